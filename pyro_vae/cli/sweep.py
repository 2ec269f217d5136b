"""The verb that trains a model for each point of a sweep."""

from pathlib import Path
from typing import Any, Literal

from pyro_vae.sweeps import sweep as train_sweep


def sweep(
    over: dict[str, Any] = {},  # noqa: B006 - jsonargparse would take a word without -- for it otherwise
    to: str = "runs/sweep",
    base: dict[str, Any] | None = None,
    search: Literal["grid", "random", "optuna"] | None = None,
    samples: int | None = None,
    search_seed: int = 0,
    jobs: int = 1,
    progress: bool = True,
) -> None:
    """Fit at many points of some options of fit, and write one table.

    Every option of pyro-vae fit may be given too, for all points: --config base.yaml, --epochs 50, --prior Laplace.
    Each point is a run folder in the folder of the sweep. Called again, the sweep leaves out what is finished and goes
    on with what was cut off.

    Args:
        over: options and their values, as in "{latent_dim: [2, 8], optimizer.lr: [1e-3, 3e-4]}", or ranges, as in
            "{optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}".
        to: folder of the sweep.
        base: options for all points, as in "{epochs: 50}"; the same as --epochs 50.
        search: all combinations (grid), some at random (random), or what a study proposes, which ends hopeless ones
            early (optuna); by default random where samples are given, and else the grid.
        samples: number of points of a random search or a study.
        search_seed: seed of a random search or a study.
        jobs: points trained at a time, each by a process of its own.
        progress: print a line for each point that is over.
    """
    found = train_sweep(
        over,
        base,
        to=to,
        search=search,
        samples=samples,
        search_seed=search_seed,
        jobs=jobs,
        progress=progress,
    )
    print(
        f"{found.require_one()}\nThe table in {Path(to) / 'sweep.csv'}, the loss by option in {Path(to) / 'sweep.png'}"
    )
