"""Verbs of criticism: log p(x), predictive checks, comparisons, reports."""

from pathlib import Path
from typing import Any, Literal

from pyro_vae.cli import output
from pyro_vae.cli.output import Split
from pyro_vae.core.signatures import delegates
from pyro_vae.criticism.evidence import evidence
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.criticism.summary import findings
from pyro_vae.reports import report as write_report
from pyro_vae.runs.folder import RunFolder, load
from pyro_vae.runs.inputs import load_split, load_untrained
from pyro_vae.workflow.comparison import Runs


@delegates(output.reserve, "overwrite")
@delegates(load_split, "data", "split")
@delegates(evidence)
def evaluate(
    run: str, *, data: str | None, split: Split, to: str | None = None, overwrite: bool, **options: Any
) -> None:
    """Estimate log p(x) of data under a fitted model, and its errors.

    --method Importance --method.draws 5000 --method.proposal defensive samples with 5,000 draws per row, a tenth of
    them from the prior; --method.proposal refined --method.steps 50 improves the guide for each row first.

    Args:
        run: run folder.
        to: file to write with log p(x), its error and k-hat of each row, .csv.
    """
    target = None if to is None else output.reserve(to, overwrite, (".csv",))
    vae, rows = load(run), load_split(RunFolder(Path(run).expanduser()), data, split)
    found = evidence(vae, rows, **options)
    print(found)
    if target is not None:
        output.write_text(target, found.to_csv(), f"Log p(x), error and k-hat of {len(found)} rows")


@delegates(output.reserve, "overwrite")
@delegates(load_split, "data", "split")
@delegates(predictive_check)
def check(
    run: str,
    *,
    data: str | None,
    split: Split,
    kind: Literal["population", "posterior", "prior"],
    statistics: tuple[str, ...] | None,
    to: str | None = None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Compare data with replicates that a fitted model draws, and report what differs.

    Writes check-KIND.nc into the run, in ArviZ's form, and pictures beside it. A prior check is of the weights before
    training.

    Args:
        run: run folder.
        statistics: names of test statistics, as in "[mean, skewness]"; by default all that suit the data.
        to: file to write, .nc; by default check-KIND.nc in the run.
    """
    folder = RunFolder(Path(run).expanduser())
    folder.spec()
    target = output.reserve(to or str(Path(run) / f"check-{kind}.nc"), overwrite, (".nc",))
    rows = load_split(folder, data, split)
    vae = load_untrained(folder) if kind == "prior" else load(run)
    tree = predictive_check(vae, rows, kind=kind, statistics=statistics, **options)
    print("\n".join(findings(tree)))
    output.write_check(target, tree)


@delegates(output.reserve, "overwrite")
@delegates(load_split, "data", "split")
@delegates(evidence)
def compare(
    runs: list[str], *, data: str | None, split: Split, to: str | None = None, overwrite: bool, **options: Any
) -> None:
    """Compare fitted models by log p(x) of the same rows: pyro-vae compare RUN RUN ...

    Runs that differ in nothing but --seed are one group, and its errors hold the variation between seeds.

    Args:
        runs: run folders, two or more.
        to: file to write, .png for a picture or .csv for the table.
    """
    target = None if to is None else output.reserve(to, overwrite, (".png", ".csv"))
    loaded = Runs.of(runs, data, split)
    found = loaded.compare(**options)
    print(f"{found}\nWhat differs: {loaded.differences(found.names)}")
    if target is not None:
        output.write_comparison(target, found)


@delegates(load_split, "data", "split")
@delegates(write_report)
def report(runs: list[str], *, split: Split, **options: Any) -> None:
    """Write a page on a fitted model, or one that compares several: pyro-vae report RUN RUN ...

    The page is one file that needs no network. One that a report wrote before is replaced.

    Args:
        runs: run folders.
    """
    print(f"The report in {write_report(runs, split=split, **options)}")
