"""Test quantities of a data set: which numbers are looked at, what they are called, their values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.criticism.statistics import STATISTICS, Kind, Statistic, for_data

FEATURES = 30
"""Features at most of which each has numbers of its own; those of more are pooled."""

Asked = Iterable[str | Statistic] | Mapping[str, str | Statistic | Callable[..., Tensor]] | None


@dataclass(frozen=True)
class Quantity:
    """One number of a data set.

    Args:
        name: what it is called in a table.
        noun: what it is called in a sentence.
        scope: "data", "row", "feature" or "discrepancy".
        rows: how many rows it looks at, the first ones.
        ratio: whether a percentage of it means something.
    """

    name: str
    label: str
    scope: str
    rows: int
    ratio: bool


class Quantities:
    """What is computed of every data set, the observed one and each replicate.

    Args:
        statistics: the test quantities by name.
        features: the names of a row's elements.
        x: the data (N, *event_shape).
        seen: where a mask lets data in, of that shape; None without a mask.
    """

    def __init__(
        self, statistics: Mapping[str, Statistic], features: tuple[str, ...], x: Tensor, seen: Tensor | None = None
    ) -> None:
        self.statistics, self.features, self.seen = statistics, features, seen
        self.single = x.ndim <= 2 and len(features) <= FEATURES
        self.rows = {name: _rows(each, x) for name, each in statistics.items()}
        self.list = [quantity for name in statistics for quantity in self._of(name)]

    @property
    def by_row(self) -> list[str]:
        """The test quantities that are a number of each row."""
        return [name for name, each in self.statistics.items() if each.of in ("row", "discrepancy")]

    @property
    def discrepancies(self) -> dict[str, Statistic]:
        """Those that look at the latents too."""
        return {name: each for name, each in self.statistics.items() if each.of == "discrepancy"}

    def row_values(self, x: Tensor, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numbers of each row, (rows,) by name; those of discrepancies are given."""
        found = {}
        for name in self.by_row:
            count, statistic = self.rows[name], self.statistics[name]
            found[name] = terms[name][:count] if name in terms else statistic.function(x[:count])
        return found

    def values(self, x: Tensor, by_row: Mapping[str, Tensor]) -> Tensor:
        """The numbers of a data set (N, *event_shape), in the order of `list`, (Q,) in float64."""
        found = []
        for name, statistic in self.statistics.items():
            part = x[: self.rows[name]]
            if statistic.of == "data":
                found.append(statistic.function(part).reshape(1))
            elif statistic.of == "feature":
                found.append(self._of_columns(statistic, part.reshape(len(part), -1)))
            else:
                of_rows = by_row[name].double()
                spread = [of_rows.std(correction=0)] if statistic.of == "row" and len(of_rows) > 1 else []
                found.append(torch.stack([of_rows.mean(), *spread]))
        return torch.cat([each.double() for each in found])

    def _of_columns(self, statistic: Statistic, columns: Tensor) -> Tensor:
        """The numbers of columns (N, P), of all of them as one where there are many; without what a mask leaves out."""
        if self.seen is None:
            return statistic.function(columns if self.single else columns.reshape(-1, 1))
        known = self.seen[: len(columns)].reshape(columns.shape)
        parts = [columns[known]] if not self.single else [c[k] for c, k in zip(columns.T, known.T, strict=True)]
        return torch.cat([statistic.function(part[:, None]) if len(part) else part.new_zeros(1) for part in parts])

    def _of(self, name: str) -> list[Quantity]:
        """The numbers that one test quantity makes of a data set."""
        statistic, rows = self.statistics[name], self.rows[name]
        label = statistic.label
        if statistic.of == "feature" and self.single and len(self.features) > 1:
            named = [(f"{name} of {feature}", f"{label} of {feature}") for feature in self.features]
        elif statistic.of == "row":
            named = [(f"{name}, mean", f"average {label}"), (f"{name}, spread", f"spread over rows of the {label}")]
            named = named[: 2 if rows > 1 else 1]
        else:
            named = [(name, f"average {label}" if statistic.of == "discrepancy" else label)]
        return [Quantity(*pair, statistic.of, rows, statistic.ratio) for pair in named]


def chosen(asked: Asked, kind: Kind, x: Tensor) -> dict[str, Statistic]:
    """The test quantities that were asked for, or those that suit the data.

    Args:
        asked: names in the table `STATISTICS`, `Statistic`s, or a mapping of names to those or to functions of x;
            None for all that suit.
        kind: the kind of data.
        x: the data, on which functions are tried.

    Raises:
        InputError: an unknown name, or a function that gives neither one number nor one for each row.
    """
    if asked is None:
        return for_data(kind)
    if isinstance(asked, str) or not isinstance(asked, Iterable):
        raise InputError(f"statistics = {asked!r} is no list: write statistics=['mean', 'skewness'].")
    pairs: list[tuple[Any, Any]] = (
        list(asked.items()) if isinstance(asked, Mapping) else [(getattr(each, "label", each), each) for each in asked]
    )
    found: dict[str, Statistic] = {}
    for name, each in pairs:
        if isinstance(each, str):
            if each not in STATISTICS:
                raise InputError(unknown_name_error("test quantity", each, STATISTICS))
            each = STATISTICS[each]
        elif not isinstance(each, Statistic) and not callable(each):
            raise InputError(f"statistics[{name!r}] = {each!r} is no test quantity: give a name, or a function of x.")
        elif not isinstance(name, str):
            raise InputError(f"{each!r} needs a name: write statistics={{'my quantity': ...}}.")
        else:
            each = _tried(name, each, x)
        if name in found:
            raise InputError(
                f"two test quantities are called {name!r}: name them by a mapping, {{'another name': ...}}."
            )
        found[name] = each
    if not found:
        raise InputError("statistics is empty: leave it out for all that suit the data.")
    return found


def _tried(name: str, given: Statistic | Callable[..., Tensor], x: Tensor) -> Statistic:
    """A user's test quantity, of the shape that it says; of a function, trials on all rows and on fewer show it."""
    if isinstance(given, Statistic):
        if given.of == "discrepancy":  # it takes p(x|z) too
            return given
        flat = x.reshape(len(x), -1)
        by_scope: dict[str, tuple[int, ...]] = {"data": (), "row": (len(x),), "feature": (flat.shape[1],)}
        shapes = {by_scope[given.of]}
        told = _shape(name, given.function, flat if given.of == "feature" else x)
        wish = f"of='{given.of}'"
    else:
        shapes, told, wish = {(), (len(x),)}, _shape(name, given, x), "a function of x"
        if told and len(x) > 1 and _shape(name, given, x[1:]) != (len(x) - 1,):
            shapes = {()}
    if told not in shapes:
        raise InputError(
            f"statistics[{name!r}] gives shape {told} for x of shape {tuple(x.shape)}, where {wish} gives "
            f"{' or '.join(map(str, sorted(shapes)))}: one number of all rows, one of each, or, by "
            "pv.criticism.Statistic(..., of='feature'), one of each column."
        )
    if isinstance(given, Statistic):
        return given
    return Statistic(lambda x: torch.as_tensor(given(x)), name, "row" if told else "data", elements=None)


def _shape(name: str, function: Callable[..., Tensor], x: Tensor) -> tuple[int, ...]:
    """The shape of what a user's function gives."""
    try:
        return tuple(torch.as_tensor(function(x)).shape)
    except Exception as error:
        raise InputError(f"statistics[{name!r}] failed on x of shape {tuple(x.shape)}: {error}") from error


def _rows(statistic: Statistic, x: Tensor) -> int:
    """How many rows a test quantity looks at."""
    each = max(1, x[0].numel())
    return len(x) if statistic.elements is None else max(1, min(len(x), statistic.elements // each))
