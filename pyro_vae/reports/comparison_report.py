"""The page of several runs: which fits, and why."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.compare import Comparison, compare
from pyro_vae.reports import pictures
from pyro_vae.reports.page import Beside, Bibliography, Code, Page, Section, Sentences, Table
from pyro_vae.reports.results import Measured, Settings, load_run
from pyro_vae.reports.run_report import commands, references, written
from pyro_vae.runs.folder import RunFolder
from pyro_vae.workflow.comparison import Runs


@dataclass(frozen=True, eq=False)
class Several:
    """Groups of runs that differ in the seed only, all measured on the same rows.

    Args:
        runs: the runs.
        groups: by the name of each group what was measured of its runs; the first one stands for it in pictures.
    """

    runs: Runs
    groups: Mapping[str, Sequence[Measured]]

    @classmethod
    def of(cls, folders: Sequence[Path], data: str | None, settings: Settings) -> "Several":
        """Load runs and their data."""
        for folder in folders:
            load_run(folder)
        loaded = Runs.of([str(folder) for folder in folders], data, settings.split)
        groups = {
            name: [Measured.of(RunFolder(path), loaded.models[path], loaded.rows, settings) for path in members]
            for name, members in loaded.paths.items()
        }
        return cls(loaded, groups).ordered()

    def ordered(self) -> "Several":
        """The same, best first by log p(x), those without one last."""
        found, _ = self.compared
        names = dict.fromkeys([*(found.names if found else []), *self.groups])
        return Several(self.runs, {name: self.groups[name] for name in names})

    @cached_property
    def compared(self) -> tuple[Comparison | None, list[str]]:
        """The comparison by log p(x) of those models that have one, and why others are left out."""
        kinds = {name: self._kind(group) for name, group in self.groups.items()}
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

    @staticmethod
    def _kind(group: Sequence[Measured]) -> str:
        found = group[0].evidence
        return (
            f"no log p(x) ({found.caveat})" if found.caveat else f"logarithms of {found.measure or 'an unknown kind'}"
        )

    def beside(self, make: Callable[[Measured, str], Sequence[Any]]) -> Beside:
        """Something of each model, beside each other."""
        return Beside([(name, make(group[0], name)) for name, group in self.groups.items()])


def compared(folders: Sequence[Path], data: str | None, settings: Settings) -> Page:
    """Compare runs on one page.

    Args:
        folders: the run folders.
        data: other data than that of the runs.
        settings: how closely to look.

    Raises:
        InputError: a folder is no run of a VAE, or the runs are not of the same data.
    """
    several = Several.of(folders, data, settings)
    sections = [
        _which(several),
        _findings(several),
        _quantities(several),
        _replicates(several),
        _calibration(several),
        _differ(several),
        _training(several),
        _reproduce(several, data),
        Section("References", [Bibliography(references([group[0] for group in several.groups.values()]))]),
    ]
    first = next(iter(several.groups.values()))[0]
    names, data_name = list(several.groups), str(first.spec.get("data") or "the same data")
    facts = [
        f"{', '.join(names[:-1])} and {names[-1]}, fitted to {data_name}.",
        f"All of them looked at {first.told_rows}, with {first.tree.attrs['draws']} replicate data sets each.",
    ]
    return Page(f"{len(names)} models of {data_name}: which fits, and why", facts, sections)


def _which(several: Several) -> Section:
    found, notes = several.compared
    section = Section("Which fits", [])
    said = [] if found is None else repr(found).splitlines()[len(found.models) + 2 :]  # the table has a place below
    verdicts, doubts = ([line for line in said if line.startswith("Warning") is warns] for warns in (False, True))
    section.blocks.append(Sentences([*verdicts, *notes, *_reasons(several, found)]))
    section.blocks.append(_standings(several, found))
    if found is not None:
        pictures.comparison(section, found)
    if doubts:
        section.blocks.append(Sentences(doubts))
    return section


def _reasons(several: Several, found: Comparison | None) -> list[str]:
    """Each model in a sentence, and whether log p(x) and checks agree."""
    told, out = [], {}
    for name, (one, *_) in several.groups.items():
        out[name], count = len(one.striking), one.tree["checks"].sizes["quantity"]
        most = f", most of all the {one.striking[0]}" if one.striking else ""
        sentence = f"{name}: {out[name]} of {count} test statistics stand out{most}; "
        sentence += f"its 90 % intervals hold {100 * one.covered:.0f} % of the data"
        if not math.isnan(one.told_apart):
            sentence += f"; a classifier tells its replicates from data in {100 * one.told_apart:.0f} % of cases"
        told.append(f"{sentence}.")
    least = [name for name in out if out[name] == min(out.values())]
    if found is not None and found.best.name not in least:
        told.append(
            f"Log p(x) and checks do not agree: {found.best.name} gives these rows the highest log p(x), and the "
            f"checks find least against {' and '.join(least)}. Log p(x) rewards a density that is high at the data; "
            "the checks ask whether draws look like them."
        )
    if min(out.values()):
        told.append("No model describes the data in all that was looked at: mend what stands out, and compare again.")
    return told


def _standings(several: Several, found: Comparison | None) -> Table:
    ranked = {} if found is None else {at.name: at for at in found.models}
    rows = []
    for name, (one, *others) in several.groups.items():
        at = ranked.get(name)
        numbers = [math.nan] * 4
        if at is not None:
            numbers = [at.log_p.value, at.log_p.se, at.difference.value, at.difference.se]
        unreliable = int(one.evidence.unreliable.sum())
        checked = [len(one.striking), one.covered, one.told_apart, one.active]
        rows.append([name, *numbers, *checked, unreliable, 1 + len(others)])
    head = ["model", "log p(x)", "error", "difference to the best", "its error", "quantities that stand out"]
    head += ["data in 90 % intervals", "accuracy of a classifier", "active latents", "rows of large k-hat", "seeds"]
    return Table(
        "The models, in nats per row; a classifier's accuracy is 0.5 where replicates look like data", head, rows
    )


def _findings(several: Several) -> Section:
    return Section("What the checks say", [several.beside(lambda one, name: [Sentences(one.findings)])])


def _quantities(several: Several) -> Section:
    trees = {name: group[0].tree["checks"].to_dataset() for name, group in several.groups.items()}
    first = next(iter(trees.values()))
    order = list(first["quantity"].values)
    head, rows = ["test statistic", "data"], []
    for name in trees:
        head += [f"{name}: replicates", f"{name}: q"]
    for quantity in order:
        at = first.sel(quantity=quantity)
        row: list[Any] = [str(at["noun"].values), float(at["observed"])]
        for checks in trees.values():
            there = quantity in checks["quantity"].values
            one = checks.sel(quantity=quantity) if there else None
            row += [math.nan] * 2 if one is None else [float(one["mean"]), float(one["q_value"])]
        rows.append(row)
    caption = "Test statistics of the data and of each model's replicates; q is the false discovery rate"
    section = Section("Test statistics", [Table(caption, head, rows)])
    section.blocks.append(several.beside(lambda one, name: _drawn("checks", one, name)))
    return section


def _drawn(picture: str, one: Measured, name: str) -> list[Any]:
    section = Section(name)
    pictures.one_of_check(section, picture, one.tree, f" ({name})")
    return section.blocks


def _replicates(several: Several) -> Section:
    return Section("Replicates", [several.beside(lambda one, name: _drawn("replicates", one, name))])


def _calibration(several: Several) -> Section:
    return Section("Calibration", [several.beside(lambda one, name: _drawn("coverage", one, name))])


def _differ(several: Several) -> Section:
    specs = several.runs.specs
    keys = dict.fromkeys(key for spec in specs.values() for key in spec)
    rows = []
    for key in keys:
        words = [written(key, spec.get(key)) for spec in specs.values()]
        if len(set(words)) > 1:
            rows.append([key, *words])
    table = Table("What the specifications differ in", ["setting", *specs], rows)
    return Section("What differs", [table])


def _training(several: Several) -> Section:
    def make(one: Measured, name: str) -> list[Any]:
        section = Section(name)
        if len(one.history):
            pictures.training(section, one.history, f" ({name})")
        return section.blocks or ["No epoch was trained."]

    return Section("Training", [several.beside(make)])


def _reproduce(several: Several, data: str | None) -> Section:
    members = [one for group in several.groups.values() for one in group]
    text = commands("compare", [str(one.run.path) for one in members], members[0].settings, data)
    note = f"Seed {members[0].settings.seed}; each run's own page says how it was fitted: pyro-vae report RUN."
    return Section("How to reproduce", [note, Code("Commands", text)])
