"""Table of a sweep: options, outcome and loss of each point."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas
import torch

from pyro_vae.core.errors import InputError
from pyro_vae.core.formatting import shorten
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.base_measure import distribution_measure
from pyro_vae.runs.folder import RunFolder
from pyro_vae.sweeps.trial import Outcome, Status
from pyro_vae.training.history import History
from pyro_vae.workflow.comparison import data_facts, words

WIDE = 60
"""Characters of a sentence that a line of the table shows."""


@dataclass(frozen=True)
class Result:
    """Line of the table.

    Args:
        name: name of the point, and of its run folder.
        chosen: the options in which points differ, as plain values.
        outcome: its status, and the reason of a failure.
        kind: what its loss measures, on which data; losses of one kind can be compared. Empty where there is none.
        loss: the history's column that is shown: "validation_loss", or "loss" where there are no validation data.
        best: the lowest loss of an epoch, in nats per row.
        best_epoch: that epoch.
        last: the loss after the last epoch.
        epochs: how many there were.
        seconds: how long they took.
    """

    name: str
    chosen: Mapping[str, Any]
    outcome: Outcome
    kind: str = ""
    loss: str = "validation_loss"
    best: float = math.nan
    best_epoch: int = 0
    last: float = math.nan
    epochs: int = 0
    seconds: float = math.nan

    @classmethod
    def of(cls, folder: Path, chosen: Mapping[str, Any], outcome: Outcome) -> "Result":
        """Line of the table that a run folder and an outcome make."""
        run = RunFolder(folder)
        if outcome.status not in ("finished", "pruned") or not len(history := run.history()):
            return cls(folder.name, chosen, outcome)
        loss = "validation_loss" if "validation_loss" in history.columns else "loss"
        values = history[loss]
        objective = run.spec().get("objective")
        counted = [i for i in range(len(values)) if _has_last_values(history, i, objective)]
        best = min(counted, key=lambda i: values[i] if math.isfinite(values[i]) else math.inf)
        seconds = float(history["seconds"].sum())
        numbers = (float(values[best]), int(history["epoch"][best]), float(values[-1]), len(history), seconds)
        return cls(folder.name, chosen, outcome, _kind(run), loss, *numbers)

    @property
    def shown(self) -> dict[str, Any]:
        """Cells of the line by the table's columns."""
        numbers = (self.best, self.best_epoch or math.nan, self.last, self.epochs or math.nan, self.seconds)
        names = (f"best_{self.loss}", "best_epoch", f"last_{self.loss}", "epochs", "seconds")
        return {
            "run": self.name,
            **{name: words(value) for name, value in self.chosen.items()},
            "status": self.outcome.status,
            **dict(zip(names, numbers, strict=True)),
            "kind": self.kind,
            "sentence": self.outcome.sentence,
        }


def _has_last_values(history: History, epoch: int, objective: Any) -> bool:
    """Whether the hyperparameters that follow a schedule had their last values, so that the loss was the same one."""
    fields = next(iter(objective.values())) if isinstance(objective, Mapping) else {}
    names = [name for name in fields if name in history.columns] if isinstance(fields, Mapping) else []
    return all(history[name][epoch] == history[name][-1] for name in names)


def _kind(run: RunFolder) -> str:
    """Kind of the loss of a run: base measure, objective and data."""
    plain = run.spec()
    vae = run.build_model()
    with seeded(None), torch.no_grad():
        measured = distribution_measure(vae.decode(vae.prior().sample((2,))))
    parts = [measured, str(plain.get("caveat", "")), words(plain.get("objective", ""))]
    return "; ".join([*filter(None, parts), *(f"{name} {value}" for name, value in data_facts(plain).items())])


@dataclass(frozen=True, repr=False)
class Sweep:
    """Table of a sweep, the lowest loss first within each kind of loss.

    Args:
        folder: folder of the sweep.
        results: a line for each point.
    """

    folder: Path
    results: Sequence[Result]

    def __post_init__(self) -> None:
        """Sort the lines: kinds in the order of their appearance, then the loss; what has none comes last."""
        kinds = [*self.kinds, ""]

        def place(result: Result) -> tuple[int, float]:
            return kinds.index(result.kind), result.best if math.isfinite(result.best) else math.inf

        object.__setattr__(self, "results", tuple(sorted(self.results, key=place)))

    @property
    def kinds(self) -> list[str]:
        """Kinds of the losses, in the order of their first points."""
        return list(dict.fromkeys(result.kind for result in self.results if result.kind))

    @property
    def best(self) -> Path:
        """Folder of the run with the lowest loss.

        Raises:
            InputError: none is finished, or they cannot be compared.
        """
        if not self.kinds:
            raise InputError(f"no point of {self.folder} is finished, so none is the best.")
        if len(self.kinds) > 1:
            raise InputError(
                f"the losses in {self.folder} are of {len(self.kinds)} kinds, so none is the best of all: compare them "
                "within a kind, or take pyro-vae compare where log p(x) is of one kind."
            )
        return self.folder / self.results[0].name

    def require_one(self) -> "Sweep":
        """Sweep itself, where a point is finished.

        Raises:
            InputError: no point is finished.
        """
        if not self.kinds:
            first = self.results[0]
            raise InputError(f"none of {len(self.results)} points is finished. {first.name}: {first.outcome.sentence}")
        return self

    def to_pandas(self) -> pandas.DataFrame:
        """Table as a DataFrame, a row for each point."""
        return pandas.DataFrame([result.shown for result in self.results])

    def to_csv(self) -> str:
        """Table as CSV text, with every digit."""
        frame = pandas.DataFrame([result.shown for result in self.results], dtype=object)  # epochs stay integers
        return frame.to_csv(index=False, na_rep="nan", lineterminator="\n")

    def __repr__(self) -> str:
        """Sorted table, with the reasons of failures and remarks on the comparison."""
        counts = Counter(result.outcome.status for result in self.results)
        summary = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if status in counts)
        lines = [f"Sweep of {len(self.results)} points in {self.folder}: {summary}."]
        for number, kind in enumerate(self.kinds, start=1):
            if len(self.kinds) > 1:
                lines += ["", f"Losses of kind {number}: {self._distinct_parts(kind)}"]
            lines.append(_table([result for result in self.results if result.kind == kind]))
        failed: dict[Outcome, list[str]] = {}
        for result in self.results:
            if not result.kind:
                failed.setdefault(result.outcome, []).append(result.name)
        for outcome, names in failed.items():
            lines += ["", f"{outcome.status}: {', '.join(names)}", f"    {outcome.sentence}"]
        return "\n".join(lines + self._remarks())

    def _distinct_parts(self, kind: str) -> str:
        """Parts of a kind that the others lack."""
        shared = set.intersection(*(set(other.split("; ")) for other in self.kinds))
        return "; ".join(part for part in kind.split("; ") if part not in shared)

    def _remarks(self) -> list[str]:
        remarks = []
        if (compared := sum(result.kind != "" for result in self.results)) > 1:
            rows = "validation" if any(result.loss == "validation_loss" for result in self.results) else "training"
            remarks.append(
                f"The best of {compared} looks better than it is, for it was chosen by the {rows} loss that is shown: "
                f"pyro-vae evaluate {self.folder / self.results[0].name} measures it on test rows."
            )
        if len(self.kinds) > 1:
            remarks.append(
                "Losses of different kinds cannot be compared: they are of other objectives, of densities and of "
                "probabilities, or on other data. pyro-vae compare RUN RUN holds log p(x) of the same rows against "
                "each other where there is a common measure, and says so where there is none."
            )
        return ["", *remarks] if remarks else []


def _table(results: Sequence[Result]) -> str:
    rows = [
        {
            **{name: words(value) for name, value in result.chosen.items()},
            f"best {result.loss.replace('_', ' ')}": _number(result.best),
            "at epoch": str(result.best_epoch),
            "last": _number(result.last),
            "epochs": str(result.epochs),
            "seconds": f"{result.seconds:.1f}",
            "": shorten(result.outcome.sentence, WIDE),
            "run": result.name,
        }
        for result in results
    ]
    frame = pandas.DataFrame(rows).fillna("")
    if not frame[""].any():
        del frame[""]
    return frame.to_string(index=False, justify="right")


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.3g}"
