"""Verb that trains a model."""

import functools
from typing import Any

from pyro_vae.cli import output
from pyro_vae.training.distributed import is_first_process
from pyro_vae.workflow.experiment import run_experiment


@functools.wraps(run_experiment)  # whose signature and docstring are the verb's options and their help
def fit(**options: Any) -> None:  # noqa: D103
    experiment = run_experiment(**options)
    if is_first_process():
        print(output.summary(experiment.data, experiment.history, experiment.folder))
    if experiment.interrupted:
        raise KeyboardInterrupt
