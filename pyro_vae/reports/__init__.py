"""A run as a page, or several runs as one: what the checks say first, and all that a reader needs to judge it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.methods import Importance, Method
from pyro_vae.reports.comparison_report import compared
from pyro_vae.reports.page import reserve
from pyro_vae.reports.results import Measured, Settings, load_run, rows_of
from pyro_vae.reports.run_report import told

__all__ = ["report"]

SPLITS = ("train", "validation", "test")


def report(
    runs: str | Path | Sequence[str | Path],
    *,
    data: Any = None,
    split: str = "test",
    to: str | Path | None = None,
    draws: int | None = None,
    rows: int = 500,
    method: Method = Importance(draws=500),
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write a page on a run, or one that compares several; it is one file, and needs no network.

    A page that a report wrote is replaced once the new one is complete.

    Args:
        runs: a run folder, or two and more to compare.
        data: a data set's name, a file or a folder; of one run also rows (N, *event_shape) themselves. By default the
            data of the run.
        split: which of its splits, "train", "validation" or "test".
        to: the file, .html; by default report.html in the run, or comparison.html in the folder of the runs.
        draws: replicate data sets of the check; by default 40 for each test statistic, and 500 at least.
        rows: rows at most that are looked at, from the first.
        method: how log p(x) is measured.
        seed: of everything random; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        Where the page is.

    Raises:
        InputError: no run, one of programs that are no VAE, data that is not there, or a place that cannot be written.
    """
    check_integers(rows=(rows, 2), seed=(seed, 0), **({} if draws is None else {"draws": (draws, 2)}))
    if not isinstance(method, Method):
        raise InputError(f"method = {method!r} is none: write method=pv.criticism.Importance(draws=1000).")
    if split not in SPLITS:
        raise InputError(f"split = {split!r} has to be one of {', '.join(map(repr, SPLITS))}.")
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    settings = Settings(split, draws, rows, method, seed, progress)
    if not folders:
        raise InputError("report takes a run folder, or several: pyro-vae report RUN.")
    with seeded(seed), torch.no_grad():
        return _write(folders, data, settings, None if to is None else Path(to))


def _write(folders: Sequence[Path], data: Any, settings: Settings, to: Path | None) -> Path:
    by_name = None if data is None or not isinstance(data, str | Path) else str(data)
    if len(folders) == 1:
        run, vae = load_run(folders[0])
        target = reserve(to or run.path / "report.html")
        return told(Measured.of(run, vae, rows_of(run, data, settings.split), settings), by_name).write(target)
    if data is not None and by_name is None:
        raise InputError("several runs take data by name: give data=, --data on the command line, a file.")
    target = reserve(to or _common(folders) / "comparison.html")
    return compared(folders, by_name, settings).write(target)


def _common(folders: Sequence[Path]) -> Path:
    """The folder that holds all of them."""
    return Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
