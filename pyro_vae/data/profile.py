"""`ColumnProfile`: the values and the moments of data by column, by which a family is chosen."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_vae.core.errors import InputError
from pyro_vae.data.rows import Rows

Array = NDArray[np.float64]

SAMPLE = 500_000
"""Largest sample of numbers for moments and quantiles; which values occur is computed from all rows."""

MOST_LEVELS = 20
"""Largest integer that can be a label or an ordered level."""


@dataclass(frozen=True)
class ColumnProfile:
    """Values and moments of P columns, one for each element of an event.

    Args:
        x: (n, P), a sample of the rows, NaN where a value is missing.
        low: (P,), the smallest value of each column, over all rows; NaN where none is observed.
        high: (P,), the largest.
        is_integer: (P,), whether all values are integers.
        missing: (P,), how many values of each column are missing.
        names: the names of the columns.
        event_shape: the shape of one row.
        is_uint8: whether x has the dtype uint8.
    """

    x: Array
    low: Array
    high: Array
    is_integer: NDArray[np.bool_]
    missing: NDArray[np.int64]
    names: tuple[str, ...]
    event_shape: tuple[int, ...]
    is_uint8: bool

    @classmethod
    def of(cls, rows: Rows, names: tuple[str, ...]) -> "ColumnProfile":
        """Profile of rows.

        Raises:
            InputError: an infinite value, or no observed one.
        """
        x = rows.x if rows.x.is_floating_point() else rows.x.to(torch.float64)
        x = x.detach().cpu().reshape(len(rows), -1)
        if bool(torch.isinf(x).any()):
            where = torch.isinf(x).nonzero()[0].tolist()
            raise InputError(
                f"x has an infinite value, in row {where[0]}, column {names[where[1]]}: write NaN for a missing value, "
                "or drop the row."
            )
        seen = ~torch.isnan(x)
        if "mask" in rows.tensors:
            seen &= rows.tensors["mask"].cpu().reshape(seen.shape).bool()
        if not bool(seen.any()):
            raise InputError("x has no observed value: every one is missing.")
        nothing = ~seen.any(0)
        low = torch.where(seen, x, math.inf).amin(0).masked_fill(nothing, math.nan)
        high = torch.where(seen, x, -math.inf).amax(0).masked_fill(nothing, math.nan)
        step = max(1, -(-x.numel() // SAMPLE))
        return cls(
            x=torch.where(seen, x, math.nan)[::step].double().numpy(),
            low=low.double().numpy(),
            high=high.double().numpy(),
            is_integer=((x == x.round()) | ~seen).all(0).numpy(),
            missing=(~seen).sum(0).numpy(),
            names=names,
            event_shape=rows.event_shape,
            is_uint8=rows.x.dtype == torch.uint8,
        )

    @functools.cached_property
    def varies(self) -> NDArray[np.bool_]:
        """Which columns hold two different values; all of them where none does."""
        several = self.high > self.low
        return several if several.any() else ~np.isnan(self.low)

    @property
    def columns(self) -> Array:
        """The columns that vary."""
        return self.x[:, self.varies]

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest of all values."""
        return float(np.nanmin(self.low)), float(np.nanmax(self.high))

    @property
    def is_array(self) -> bool:
        """Whether an event is an array of like elements rather than a list of columns."""
        return len(self.event_shape) > 1

    @functools.cached_property
    def mean(self) -> Array:
        """The mean of each column that varies, and 1e-12 where it is 0."""
        mean = np.nanmean(self.columns, 0)
        return np.where(mean == 0, 1e-12, mean)

    @functools.cached_property
    def variance(self) -> Array:
        """The variance of each column that varies."""
        return np.nanvar(self.columns, 0)

    @functools.cached_property
    def dispersion(self) -> float:
        """The dispersion index: variance over mean, 1 for a Poisson."""
        return float(self.variance.sum() / max(self.mean.sum(), 1e-300))

    @functools.cached_property
    def skewness(self) -> float:
        """The mean of the columns' skewness."""
        return skewness_of(self.columns)

    @functools.cached_property
    def size(self) -> Array:
        """The inverse dispersion of each column by moments: large where a Poisson fits."""
        return self.mean**2 / np.maximum(self.variance - self.mean, 1e-6 * np.abs(self.mean))

    @functools.cached_property
    def rate_above_zero(self) -> Array:
        """The rate of the Poisson that, without its zeros, has the mean of each column's values above 0."""
        above = np.where(self.columns > 0, self.columns, 0).sum(0) / np.maximum((self.columns > 0).sum(0), 1)
        rate = above
        for _ in range(200):  # above = rate / (1 - exp(-rate))
            rate = above * -np.expm1(-rate)
        return rate

    def _expected_above(self, high: Array) -> Array:
        """Expected number of values of each column above `high`, were they counts, zero-inflated ones included."""
        from scipy import stats

        usual = np.isfinite(self.columns).sum(0) * stats.nbinom.sf(
            high, self.size, self.size / (self.size + np.abs(self.mean))
        )
        above = stats.poisson.sf(high, self.rate_above_zero) / np.maximum(-np.expm1(-self.rate_above_zero), 1e-12)
        gated = (self.columns > 0).sum(0) * above
        return np.where(high > 1, np.minimum(usual, gated), usual)

    @functools.cached_property
    def kinds(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns that vary, by kind: binary, levels, counts, real."""
        if self.is_array:
            counted = self.is_integer.all() and self.range[0] >= 0
            kind = "real" if not counted else "binary" if self.range[1] <= 1 else "counts"
            return {kind: self.names}
        low, high = self.low[self.varies], self.high[self.varies]
        count: NDArray[np.bool_] = self.is_integer[self.varies] & (low >= 0)
        bound = self._expected_above(high) > 10 + math.log(len(high))
        top = high[count].max(initial=0)
        together = self._expected_above(np.full_like(high, top))[count].sum() > 10
        levels = count & (high <= MOST_LEVELS) & (bound | (together & (top <= MOST_LEVELS)))
        spread_out: NDArray[np.bool_] = (
            count & ~levels & (high > 1) & ((self.variance > 0.5 * self.mean) | (high <= MOST_LEVELS))
        )
        binary = count & (high <= 1) & (levels | ~spread_out.any())
        counts = spread_out | (count & (high <= 1) & ~binary)
        named = np.array(self.names, dtype=object)[self.varies]
        found = {"binary": binary, "levels": levels & ~binary, "counts": counts}
        found["real"] = ~(binary | levels | counts)
        return {kind: tuple(named[chosen]) for kind, chosen in found.items() if chosen.any()}


def names_of(rows: Rows) -> tuple[str, ...]:
    """Names of the columns, in quotes; or their numbers, where they have no names."""
    if rows.features:
        return tuple(map(repr, rows.features))
    shape = rows.event_shape
    if len(shape) < 2:
        return tuple(map(str, range(math.prod(shape))))
    return tuple(str(tuple(int(i) for i in np.unravel_index(j, shape))) for j in range(math.prod(shape)))


def skewness_of(x: Array) -> float:
    """The mean of the columns' skewness, NaN left out; 0 of constants."""
    centred = x - np.nanmean(x, 0)
    spread = np.sqrt(np.nanmean(centred**2, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.nanmean(centred**3, 0) / spread**3
    return float(np.mean(each[spread > 0])) if (spread > 0).any() else 0.0
