"""Report of several runs: which fits, and why."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pyro_vae import plots
from pyro_vae.core.errors import InputError
from pyro_vae.criticism.compare import Comparison, compare
from pyro_vae.criticism.summary import findings
from pyro_vae.reports.page import Bibliography, Code, Page, Section, Sentences, SideBySide, Table
from pyro_vae.reports.pictures import draw_check, draw_training
from pyro_vae.reports.results import ReportSettings, RunResults, load_run
from pyro_vae.reports.run_report import check_commands, format_setting, references
from pyro_vae.runs.folder import RunFolder
from pyro_vae.workflow.comparison import Runs, data_facts


@dataclass(frozen=True, eq=False)
class ComparedRuns:
    """Results of groups of runs that differ only in the seed, all on the same rows.

    Args:
        runs: the runs.
        groups: the results of the runs of each group, by its name; the first run represents it in pictures.
    """

    runs: Runs
    groups: Mapping[str, Sequence[RunResults]]

    @classmethod
    def of(cls, folders: Sequence[Path], data: str | None, settings: ReportSettings) -> "ComparedRuns":
        """Results of run folders: groups best first by log p(x), those without one last."""
        for folder in folders:
            load_run(folder)
        runs = Runs.of([str(folder) for folder in folders], data, settings.split)
        groups = {
            name: [RunResults.of(RunFolder(path), runs.models[path], runs.rows, settings) for path in members]
            for name, members in runs.paths.items()
        }
        found, _ = cls(runs, groups).comparison
        names = dict.fromkeys([*(found.names if found else []), *groups])
        return cls(runs, {name: groups[name] for name in names})

    @cached_property
    def comparison(self) -> tuple[Comparison | None, list[str]]:
        """Comparison by log p(x) of the models that have one, and why others are left out."""
        kinds = {name: _kind(group) for name, group in self.groups.items()}
        densities = [kind for kind in kinds.values() if not kind.startswith("no ")]
        chosen = max(dict.fromkeys(densities), key=densities.count, default="")
        inside = [name for name, kind in kinds.items() if kind == chosen]
        notes = [
            f"{name} is not among them: its numbers are {kind}, those of the others {chosen or 'of another kind'}."
            for name, kind in kinds.items()
            if kind != chosen
        ]
        if len(inside) < 2:
            return None, [*notes, "So no two of these models can be compared by log p(x)."]
        try:
            return compare({name: [one.evidence for one in self.groups[name]] for name in inside}), notes
        except InputError as error:
            return None, [*notes, f"Log p(x) was not compared: {error}"]

    @property
    def first(self) -> dict[str, RunResults]:
        """Results of the first run of each group, by its name."""
        return {name: group[0] for name, group in self.groups.items()}

    def side_by_side(self, title: str, fill: Callable[[Section, RunResults, str], None]) -> Section:
        """Section with a column for each model, filled by a function of a section, results, and " (name)"."""
        columns = {name: Section(name) for name in self.groups}
        for name, results in self.first.items():
            fill(columns[name], results, f" ({name})")
        return Section(title, [SideBySide([(name, column.blocks) for name, column in columns.items()])])


def _kind(group: Sequence[RunResults]) -> str:
    found = group[0].evidence
    return f"no log p(x) ({found.caveat})" if found.caveat else f"logarithms of {found.measure or 'an unknown kind'}"


def comparison_page(folders: Sequence[Path], data: str | None, settings: ReportSettings) -> Page:
    """Page that compares run folders, on their data or on data of another name.

    Raises:
        InputError: a folder is not a run of a VAE, or the runs are not of the same data.
    """
    compared = ComparedRuns.of(folders, data, settings)
    statistics = compared.side_by_side("Test statistics", partial(draw_check, "checks"))
    statistics.blocks.insert(0, _statistics(compared))
    results = list(compared.first.values())
    sections = [
        _ranking(compared),
        compared.side_by_side(
            "What the checks say", lambda section, one, _: section.blocks.append(Sentences(findings(one.tree)))
        ),
        statistics,
        compared.side_by_side("Replicates", partial(draw_check, "replicates")),
        compared.side_by_side("Calibration", partial(draw_check, "coverage")),
        Section("What differs", [_differences(compared)]),
        compared.side_by_side("Training", _training),
        _reproduce(compared, settings, data),
        Section("References", [Bibliography(references(results))]),
    ]
    names, source = list(compared.groups), str(data_facts(results[0].spec)["data"] or "the same data")
    facts = [
        f"{', '.join(names[:-1])} and {names[-1]}, fitted to {source}.",
        f"Evaluated on {results[0].described_rows}, with {results[0].tree.attrs['draws']} replicate data sets each.",
    ]
    return Page(f"{len(names)} models of {source}: which fits, and why", facts, sections)


def _ranking(compared: ComparedRuns) -> Section:
    found, notes = compared.comparison
    lines = [] if found is None else repr(found).splitlines()[len(found.models) + 2 :]  # the table is a block below
    verdicts, doubts = ([line for line in lines if line.startswith("Warning") is warns] for warns in (False, True))
    section = Section("Which fits", [Sentences([*verdicts, *notes, *_reasons(compared, found)])])
    section.blocks.append(_standings(compared, found))
    if found is not None:
        alt = f"Mean log p(x) of each model and its difference to the best, {found.best.name}"
        section.draw(lambda: plots.compare(found), alt)
    if doubts:
        section.blocks.append(Sentences(doubts))
    return section


def _reasons(compared: ComparedRuns, found: Comparison | None) -> list[str]:
    """Sentence on each model, and whether log p(x) and checks agree."""
    sentences, counts = [], {}
    for name, one in compared.first.items():
        labels, count = one.significant, one.tree["checks"].sizes["statistic"]
        counts[name] = len(labels)
        most = f", most of all the {labels[0]}" if labels else ""
        sentence = f"{name}: {len(labels)} of {count} test statistics stand out{most}; "
        sentence += f"its 90 % intervals hold {100 * one.coverage:.0f} % of the data"
        if not math.isnan(one.classifier_accuracy):
            sentence += f"; a classifier is right about data and replicates in {100 * one.classifier_accuracy:.0f} %"
        sentences.append(f"{sentence}.")
    least = [name for name, count in counts.items() if count == min(counts.values())]
    if found is not None and found.best.name not in least:
        sentences.append(
            f"Log p(x) and checks do not agree: {found.best.name} gives these rows the highest log p(x), and the "
            f"checks find least against {' and '.join(least)}. Log p(x) rewards a density that is high at the data; "
            "the checks compare draws with them."
        )
    if min(counts.values()):
        sentences.append("No model passes all checks: change what the significant ones point to, and compare again.")
    return sentences


def _standings(compared: ComparedRuns, found: Comparison | None) -> Table:
    ranked = {} if found is None else {at.name: at for at in found.models}
    rows = []
    for name, group in compared.groups.items():
        at, one = ranked.get(name), group[0]
        numbers = [math.nan] * 4
        if at is not None:
            numbers = [at.log_p.value, at.log_p.se, at.difference.value, at.difference.se]
        checked = [len(one.significant), one.coverage, one.classifier_accuracy, one.active]
        rows.append([name, *numbers, *checked, int(one.evidence.unreliable.sum()), len(group)])
    head = ["model", "log p(x)", "error", "difference to the best", "its error", "significant test statistics"]
    head += ["data in 90 % intervals", "accuracy of a classifier", "active latents", "rows of large k-hat", "seeds"]
    return Table(
        "The models, in nats per row; a classifier's accuracy is 0.5 where replicates look like data", head, rows
    )


def _statistics(compared: ComparedRuns) -> Table:
    """Test statistics of the first model's data and of each model's replicates."""
    checks = {name: one.tree["checks"].to_dataset() for name, one in compared.first.items()}
    first = next(iter(checks.values()))
    columns: dict[str, list[Any]] = {
        "test statistic": first["label"].values.tolist(),
        "data": first["observed"].values.tolist(),
    }
    for name, found in checks.items():  # a model may lack one of them
        aligned = found[["mean", "q_value"]].reindex(statistic=first["statistic"])
        columns[f"{name}: replicates"] = aligned["mean"].values.tolist()
        columns[f"{name}: q"] = aligned["q_value"].values.tolist()
    return Table.of(
        "Test statistics of the data and of each model's replicates; q is the false discovery rate", columns
    )


def _differences(compared: ComparedRuns) -> Table:
    specs = compared.runs.specs
    keys = dict.fromkeys(key for spec in specs.values() for key in spec)
    rows = [[key, *(format_setting(key, spec.get(key)) for spec in specs.values())] for key in keys]
    return Table(
        "Settings in which the specifications differ",
        ["setting", *specs],
        [row for row in rows if len(set(row[1:])) > 1],
    )


def _training(section: Section, results: RunResults, model: str) -> None:
    if len(results.history):
        draw_training(section, results, model)
    section.blocks = section.blocks or ["No epoch was trained."]


def _reproduce(compared: ComparedRuns, settings: ReportSettings, data: str | None) -> Section:
    paths = [str(one.run.path) for group in compared.groups.values() for one in group]
    note = f"Seed {settings.seed}; each run's own page describes its fit: pyro-vae report RUN."
    return Section("How to reproduce", [note, Code("Commands", check_commands("compare", paths, settings, data))])
