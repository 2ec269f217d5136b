"""Test statistics of a data set: their selection, names and values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.criticism.statistics import STATISTICS, DataKind, Statistic, default_statistics

FEATURES = 30
"""Maximum number of features with test statistics of their own; those of more features are pooled."""

StatisticsArgument = Iterable[str | Statistic] | Mapping[str, str | Statistic | Callable[..., Tensor]] | None


@dataclass(frozen=True)
class ScalarStatistic:
    """Test statistic that is one number of a data set.

    Args:
        name: its name in a table.
        label: its name in a sentence.
        scope: "data", "row", "feature" or "discrepancy".
        rows: the number of rows that it is computed of, the first ones.
        ratio: whether it is on a ratio scale, so that a percentage of it is meaningful.
    """

    name: str
    label: str
    scope: str
    rows: int
    ratio: bool


class StatisticEvaluator:
    """Test statistics of data sets, the observed one and each replicate.

    Args:
        statistics: the test statistics by name.
        features: the names of a row's elements.
        x: the data (N, *event_shape).
        observed: the mask of observed values, of the shape of x; None without one.
    """

    def __init__(
        self, statistics: Mapping[str, Statistic], features: tuple[str, ...], x: Tensor, observed: Tensor | None = None
    ) -> None:
        self.statistics, self.features, self.observed = statistics, features, observed
        self.by_feature = x.ndim <= 2 and len(features) <= FEATURES
        self.rows = {name: _rows_used(each, x) for name, each in statistics.items()}
        self.scalars = [scalar for name in statistics for scalar in self._scalars(name)]

    @property
    def by_row(self) -> list[str]:
        """Names of the test statistics with a value of each row."""
        return [name for name, each in self.statistics.items() if each.of in ("row", "discrepancy")]

    @property
    def discrepancies(self) -> dict[str, Statistic]:
        """Test statistics that depend on the latents too, by name."""
        return {name: each for name, each in self.statistics.items() if each.of == "discrepancy"}

    def row_values(self, x: Tensor, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values of each row, (rows,) by name; `terms` holds those of discrepancies."""
        found = {}
        for name in self.by_row:
            count, statistic = self.rows[name], self.statistics[name]
            found[name] = terms[name][:count] if name in terms else statistic.function(x[:count])
        return found

    def values(self, x: Tensor, by_row: Mapping[str, Tensor]) -> Tensor:
        """Values of a data set (N, *event_shape), in the order of `scalars`, (Q,) in float64."""
        found = []
        for name, statistic in self.statistics.items():
            part = x[: self.rows[name]]
            if statistic.of == "data":
                found.append(statistic.function(part).reshape(1))
            elif statistic.of == "feature":
                found.append(self._column_values(statistic, part.reshape(len(part), -1)))
            else:
                of_rows = by_row[name].double()
                spread = [of_rows.std(correction=0)] if statistic.of == "row" and len(of_rows) > 1 else []
                found.append(torch.stack([of_rows.mean(), *spread]))
        return torch.cat([each.double() for each in found])

    def _column_values(self, statistic: Statistic, columns: Tensor) -> Tensor:
        """Values of columns (N, P), pooled into one where there are many; missing values are omitted."""
        if self.observed is None:
            return statistic.function(columns if self.by_feature else columns.reshape(-1, 1))
        known = self.observed[: len(columns)].reshape(columns.shape)
        parts = [columns[known]] if not self.by_feature else [c[k] for c, k in zip(columns.T, known.T, strict=True)]
        return torch.cat([statistic.function(part[:, None]) if len(part) else part.new_zeros(1) for part in parts])

    def _scalars(self, name: str) -> list[ScalarStatistic]:
        """Scalars of one test statistic."""
        statistic, rows = self.statistics[name], self.rows[name]
        label = statistic.label
        if statistic.of == "feature" and self.by_feature and len(self.features) > 1:
            named = [(f"{name} of {feature}", f"{label} of {feature}") for feature in self.features]
        elif statistic.of == "row":
            named = [(f"{name}, mean", f"average {label}"), (f"{name}, spread", f"spread over rows of the {label}")]
            named = named[: 2 if rows > 1 else 1]
        else:
            named = [(name, f"average {label}" if statistic.of == "discrepancy" else label)]
        return [ScalarStatistic(*pair, statistic.of, rows, statistic.ratio) for pair in named]


def select_statistics(statistics: StatisticsArgument, kind: DataKind, x: Tensor) -> dict[str, Statistic]:
    """Test statistics by name: the given ones, or by default all that suit the data.

    Args:
        statistics: names in the table `STATISTICS`, `Statistic`s, or a mapping of names to those or to functions of x;
            None for all that suit.
        kind: the kind of data.
        x: the data, on which functions are checked.

    Raises:
        InputError: an unknown name, or a function that gives neither one number nor one for each row.
    """
    if statistics is None:
        return default_statistics(kind)
    if isinstance(statistics, str) or not isinstance(statistics, Iterable):
        raise InputError(f"statistics = {statistics!r} is not a list: write statistics=['mean', 'skewness'].")
    pairs: list[tuple[Any, Any]] = (
        list(statistics.items())
        if isinstance(statistics, Mapping)
        else [(each.label if isinstance(each, Statistic) else each, each) for each in statistics]
    )
    found: dict[str, Statistic] = {}
    for name, each in pairs:
        if isinstance(each, str):
            if each not in STATISTICS:
                raise InputError(unknown_name_error("test statistic", each, STATISTICS))
            each = STATISTICS[each]
        elif not isinstance(each, Statistic) and not callable(each):
            raise InputError(
                f"statistics[{name!r}] = {each!r} is not a test statistic: give a name, or a function of x."
            )
        elif not isinstance(name, str):
            raise InputError(f"{each!r} needs a name: write statistics={{'my statistic': ...}}.")
        else:
            each = _checked(name, each, x)
        if name in found:
            raise InputError(
                f"two test statistics are called {name!r}: name them by a mapping, {{'another name': ...}}."
            )
        found[name] = each
    if not found:
        raise InputError("statistics is empty: leave it out for all that suit the data.")
    return found


def _checked(name: str, given: Statistic | Callable[..., Tensor], x: Tensor) -> Statistic:
    """Statistic of a user, with its shape checked; the scope of a function is inferred from all rows and from fewer."""
    if isinstance(given, Statistic):
        if given.of == "discrepancy":  # it takes p(x|z) too
            return given
        flat = x.reshape(len(x), -1)
        by_scope: dict[str, tuple[int, ...]] = {"data": (), "row": (len(x),), "feature": (flat.shape[1],)}
        shapes = {by_scope[given.of]}
        shape = _shape(name, given.function, flat if given.of == "feature" else x)
        expected = f"of='{given.of}'"
    else:
        shapes, shape, expected = {(), (len(x),)}, _shape(name, given, x), "a function of x"
        if shape and len(x) > 1 and _shape(name, given, x[1:]) != (len(x) - 1,):
            shapes = {()}
    if shape not in shapes:
        raise InputError(
            f"statistics[{name!r}] gives shape {shape} for x of shape {tuple(x.shape)}, where {expected} gives "
            f"{' or '.join(map(str, sorted(shapes)))}: one number of all rows, one of each, or, by "
            "pv.criticism.Statistic(..., of='feature'), one of each column."
        )
    if isinstance(given, Statistic):
        return given
    return Statistic(lambda x: torch.as_tensor(given(x)), name, "row" if shape else "data", elements=None)


def _shape(name: str, function: Callable[..., Tensor], x: Tensor) -> tuple[int, ...]:
    """Shape of the value of a user's function."""
    try:
        return tuple(torch.as_tensor(function(x)).shape)
    except Exception as error:
        raise InputError(f"statistics[{name!r}] failed on x of shape {tuple(x.shape)}: {error}") from error


def _rows_used(statistic: Statistic, x: Tensor) -> int:
    """Number of rows that a test statistic is computed of."""
    each = max(1, x[0].numel())
    return len(x) if statistic.elements is None else max(1, min(len(x), statistic.elements // each))
