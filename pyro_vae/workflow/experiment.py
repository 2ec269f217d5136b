"""Experiment: a fit whose data, model and training are named, by options of the command line or of a sweep.

options -> data.load, VAE, fit -> a run folder
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae import data as datasets
from pyro_vae.core.errors import TrainingInterrupted
from pyro_vae.core.rng import seeded
from pyro_vae.core.signatures import delegates
from pyro_vae.model.vae import VAE
from pyro_vae.runs.folder import RunFolder
from pyro_vae.training import History
from pyro_vae.training.checkpoints import Checkpoints
from pyro_vae.training.distributed import is_first_process
from pyro_vae.workflow.fit import fit
from pyro_vae.workflow.options import RunOptions

MODEL = ("prior", "likelihood", "guide", "encoder", "decoder")
"""Keywords of `VAE`."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """Result of an experiment.

    Args:
        data: the rows it was given, in three splits.
        history: the record of each epoch.
        folder: its run folder.
        interrupted: whether SIGINT came.
    """

    data: datasets.Dataset
    history: History
    folder: str
    interrupted: bool = False


@delegates(VAE, "latent_dim", *MODEL)
@delegates(RunOptions, "overwrite", "resume", "checkpoints")
@delegates(fit, "objective", "optimizer", "epochs", "batch_size", "seed", "compile", "monitor", "runtime", "progress")
def run_experiment(
    *,
    data: datasets.DataOptions = datasets.DataOptions("digits"),
    run: str | None = None,
    overwrite: bool,
    resume: bool,
    checkpoints: Checkpoints | None,
    latent_dim: int = 8,
    seed: int,
    _callbacks: Sequence[Callable[..., Any]] = (),  # not an option: a study prunes by it
    **options: Any,
) -> Experiment:
    """Fit a VAE and write a run folder.

    Declared things are given by name, with fields behind a dot: --prior Laplace --prior.scale 2,
    --encoder MLP --encoder.hidden "[400]", --optimizer.lr 3e-4, --data mnist --data.binarize dynamic.
    pyro-vae families lists the families. A field is a number (fixed), learned, per_feature, or left out (computed by
    the network).

    Args:
        data: the rows, and how they are split and rounded.
        run: folder to write; by default runs/ and the data's name.
    """
    folder = run or str(Path("runs") / Path(data.name).stem)
    if is_first_process():
        RunFolder.reserve(folder, overwrite, resume)
    rows = data.load()
    model = {name: options.pop(name) for name in MODEL if name in options}
    with seeded(seed):
        vae = VAE(rows.event_shape, latent_dim, **model)
    try:
        history = fit(
            vae,
            rows.train,
            validation=rows.validation,
            seed=seed,
            run=RunOptions(folder, overwrite, resume, checkpoints),
            callbacks=_callbacks,
            **options,
        )
    except TrainingInterrupted as stop:
        return Experiment(rows, stop.history, folder, interrupted=True)
    return Experiment(rows, history, folder)
