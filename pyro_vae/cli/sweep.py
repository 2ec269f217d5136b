"""Verb that trains a model for each point of a sweep."""

import inspect
from pathlib import Path
from typing import Any

from pyro_vae.core.signatures import delegates
from pyro_vae.sweeps import sweep as train_sweep
from pyro_vae.sweeps.search_space import OURS
from pyro_vae.workflow.experiment import run_experiment

OWN = ("search", "samples", "search_seed", "jobs", "progress")
"""Options of the sweep itself."""

SHARED = [name for name in inspect.signature(run_experiment).parameters if name[0] != "_" and name not in OURS]


@delegates(train_sweep, *OWN)
@delegates(run_experiment, *SHARED)
def sweep(*, over: dict[str, Any] = {}, to: str = "runs/sweep", **options: Any) -> None:  # noqa: B006
    """Fit at many points of some options of fit, and write one table.

    Every option of pyro-vae fit may be given too, for all points: --config base.yaml, --epochs 50, --prior Laplace.
    Each point is a run folder in the folder of the sweep. Called again, the sweep leaves out what is finished and goes
    on with what was cut off.

    Args:
        over: options and their values, as in "{latent_dim: [2, 8], optimizer.lr: [1e-3, 3e-4]}", or ranges, as in
            "{optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}".
        to: folder of the sweep.
    """
    own = {name: options.pop(name) for name in OWN if name in options}
    found = train_sweep(over, options, to=to, **own)
    print(
        f"{found.require_one()}\nThe table in {Path(to) / 'sweep.csv'}, the loss by option in {Path(to) / 'sweep.png'}"
    )
