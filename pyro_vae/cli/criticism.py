"""The verbs that ask whether to believe a model: log p(x), predictive checks, comparisons, a page."""

from pathlib import Path
from typing import Literal

from pyro_vae.cli import output
from pyro_vae.criticism.evidence import evidence
from pyro_vae.criticism.methods import Importance, Method
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.criticism.summary import findings
from pyro_vae.reports import report as write_report
from pyro_vae.runs.folder import RunFolder, load
from pyro_vae.runs.inputs import load_split, load_untrained
from pyro_vae.workflow.comparison import Runs


def evaluate(
    run: str,
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    method: Method = Importance(),
    batch_size: int = 100,
    to: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Estimate log p(x) of data under a fitted model, and its errors.

    --method Importance --method.draws 5000 --method.proposal defensive samples with 5,000 draws per row, a tenth of
    them from the prior; --method.proposal refined --method.steps 50 improves the guide for each row first.

    Args:
        run: run folder.
        data: data set, file or folder; by default the data of the run.
        split: which of its splits.
        method: how, Importance or AIS.
        batch_size: rows at once.
        to: file to write with log p(x), its error and k-hat of each row, .csv.
        seed: seed of the draws and of dynamic binarisation.
        overwrite: replace that file where it exists.
        progress: show progress.
    """
    target = None if to is None else output.reserve(to, overwrite, (".csv",))
    vae, rows = load(run), load_split(RunFolder(Path(run)), data, split)
    found = evidence(vae, rows, method=method, batch_size=batch_size, seed=seed, progress=progress)
    print(found)
    if target is not None:
        output.write_text(target, found.to_csv(), f"Log p(x), error and k-hat of {len(found)} rows")


def check(
    run: str,
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    kind: Literal["population", "posterior", "prior"] = "population",
    statistics: tuple[str, ...] | None = None,
    draws: int | None = None,
    candidates: int = 1,
    keep: int = 100,
    two_sample: bool = True,
    to: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Compare data with replicates that a fitted model draws, and say what differs.

    Writes check-KIND.nc into the run, in ArviZ's form, and pictures beside it.

    Args:
        run: run folder.
        data: data set, file or folder; by default the data of the run.
        split: which of its splits.
        kind: population (new data), posterior (the same rows again), or prior (by the weights before training).
        statistics: names of test statistics, as in "[mean, skewness]"; by default all that suit the data.
        draws: replicates of all rows; by default 40 for each test statistic, and 500 at least.
        candidates: for posterior replicates, draws from the guide of which one is chosen by importance weight.
        keep: rows, and replicates of each, that are written whole.
        two_sample: hold a replicate against the data by a classifier, MMD, density and coverage.
        to: file to write, .nc; by default check-KIND.nc in the run.
        seed: seed of everything random.
        overwrite: replace that file where it exists.
        progress: show progress.
    """
    target = output.reserve(to or str(Path(run) / f"check-{kind}.nc"), overwrite, (".nc",))
    folder = RunFolder(Path(run))
    rows = load_split(folder, data, split)
    vae = load_untrained(folder) if kind == "prior" else load(run)
    tree = predictive_check(
        vae,
        rows,
        kind=kind,
        statistics=statistics,
        draws=draws,
        candidates=candidates,
        keep=keep,
        two_sample=two_sample,
        seed=seed,
        progress=progress,
    )
    print("\n".join(findings(tree)))
    output.write_check(target, tree)


def compare(
    runs: list[str],
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    method: Method = Importance(),
    batch_size: int = 100,
    to: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Compare fitted models by log p(x) of the same rows: pyro-vae compare RUN RUN ...

    Runs that differ in nothing but --seed are one group, and its errors hold the variation between seeds.

    Args:
        runs: run folders, two or more.
        data: data set, file or folder; by default the data of the runs.
        split: which of its splits.
        method: how log p(x) is measured, Importance or AIS.
        batch_size: rows at once.
        to: file to write, .png for a picture or .csv for the table.
        seed: seed of the draws and of dynamic binarisation.
        overwrite: replace that file where it exists.
        progress: show progress.
    """
    target = None if to is None else output.reserve(to, overwrite, (".png", ".csv"))
    loaded = Runs.of(runs, data, split)
    found = loaded.compare(method, batch_size=batch_size, seed=seed, progress=progress)
    print(f"{found}\nWhat differs: {loaded.differences(found.names)}")
    if target is not None:
        output.write_comparison(target, found)


def report(
    runs: list[str],
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    to: str | None = None,
    draws: int | None = None,
    rows: int = 500,
    method: Method = Importance(draws=500),
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Write a page on a fitted model, or one that compares several: pyro-vae report RUN RUN ...

    The page is one file that needs no network. One that a report wrote before is replaced.

    Args:
        runs: run folders.
        data: data set, file or folder; by default the data of the runs.
        split: which of its splits.
        to: file to write, .html; by default report.html in the run, or comparison.html beside several.
        draws: replicate data sets; by default 40 for each test statistic, and 500 at least.
        rows: rows at most that are looked at, from the first.
        method: how log p(x) is measured, Importance or AIS.
        seed: seed of the draws and of dynamic binarisation.
        progress: show progress.
    """
    page = write_report(
        runs, data=data, split=split, to=to, draws=draws, rows=rows, method=method, seed=seed, progress=progress
    )
    print(f"The report in {page}")
