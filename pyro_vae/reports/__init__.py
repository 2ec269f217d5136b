"""Reports: a page on one run or on several, with the findings of the checks first."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.methods import Importance, Method
from pyro_vae.criticism.methods.base import check_method
from pyro_vae.reports.comparison_report import comparison_page
from pyro_vae.reports.page import check_target
from pyro_vae.reports.results import ReportSettings, RunResults, load_rows, load_run
from pyro_vae.reports.run_report import run_page

__all__ = ["report"]

SPLITS = ("train", "validation", "test")


@explained
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
    """Path of a page on a run, or of one that compares several; it is one file, and needs no network.

    A page that a report wrote is replaced once the new one is complete.

    Args:
        runs: a run folder, or two and more to compare.
        data: a data set's name, a file or a folder; for one run also rows (N, *event_shape) themselves. By default the
            data of the run.
        split: the split of the data, "train", "validation" or "test".
        to: the file, .html; by default report.html in the run, or comparison.html in the folder of the runs.
        draws: replicate data sets of the check; by default 40 for each test statistic, and at least 500.
        rows: maximum number of rows that are evaluated, the first ones.
        method: the method of estimating log p(x).
        seed: of everything random; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Raises:
        InputError: not a run, or one of programs other than a VAE, data that does not exist, or a path that cannot be
            written.
    """
    check_integers(rows=(rows, 2), seed=(seed, 0), **({} if draws is None else {"draws": (draws, 2)}))
    check_method(method)
    if split not in SPLITS:
        raise InputError(f"split = {split!r} has to be one of {', '.join(map(repr, SPLITS))}.")
    if not isinstance(runs, str | Path | list | tuple):
        raise InputError(
            f"report takes run folders, not {type(runs).__name__}: fit with pv.fit(vae, x, run='my-run'), and write "
            "pv.report('my-run')."
        )
    folders = [Path(run).expanduser() for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if not folders:
        raise InputError("report takes a run folder, or several: pyro-vae report RUN.")
    settings = ReportSettings(split, draws, rows, method, seed, progress)
    name = str(data) if isinstance(data, str | Path) else None
    with seeded(seed), torch.no_grad():
        if len(folders) == 1:
            run, vae = load_run(folders[0])
            target = check_target(Path(to or run.path / "report.html").expanduser())
            results = RunResults.of(run, vae, load_rows(run, data, split), settings)
            return run_page(results, name).write(target)
        if data is not None and name is None:
            raise InputError("several runs take data by name: give data=, --data on the command line, a file.")
        common = os.path.commonpath([folder.absolute().parent for folder in folders])
        target = check_target(Path(to or Path(common) / "comparison.html").expanduser())
        return comparison_page(folders, name, settings).write(target)
