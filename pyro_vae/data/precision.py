"""What is lost where rows are rounded to the type of the weights, said before any work."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError

ROUNDING = 0.05
"""Rounding error, in standard deviations of a column, above which its values are refused: log p(x) is off by 1e-3."""

MERGING = 1e-6
"""Rounding error, in standard deviations of a column, above which its values are compared before and after it."""

KEPT = 0.9
"""Share of a column's different values that differ in the type of the weights too, below which a warning says so."""

LARGEST, SMALLEST = 1e18, 1e-18
"""Standard deviations whose squares are numbers in float32."""


def is_rounded_away(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether rows (N, *event_shape) are lost in another type: an error beside the spread of a column, equal values."""
    if not _can_lose(x, dtype):
        return False
    values, sd, error = _rounding(x, dtype)
    return bool(((error > ROUNDING * sd) & (sd > 0)).any()) or bool(_merged(values, sd, error, dtype))


def check_precision(x: Tensor, dtype: torch.dtype, features: Sequence[str] = ()) -> None:
    """Check that rows (N, *event_shape) keep their values in another type, and warn where some become equal.

    Args:
        x: the rows as they were given.
        dtype: the type of the weights, in which they are used.
        features: names of the columns.

    Raises:
        InputError: a column is lost in rounding, or the square of its standard deviation is no number in that type.
    """
    if not _can_lose(x, dtype):
        return
    values, sd, error = _rounding(x, dtype)
    if (lost := _first((error > ROUNDING * sd) & (sd > 0))) is not None:
        raise InputError(
            f"{_name(lost, features)} is around {float(values[:, lost].mean()):.4g} with a standard deviation of "
            f"{float(sd[lost]):.3g}, which float32 rounds away: take the model in float64, `vae.double()`, or, "
            f"under a family of real numbers, give differences to a fixed value, such as `x - x.mean(axis=0)`."
        )
    if (wide := _first((sd > LARGEST) | ((sd < SMALLEST) & (sd > 0)))) is not None:
        raise InputError(
            f"{_name(wide, features)} has a standard deviation of {float(sd[wide]):.3g}, whose square is no number in "
            f"float32: give it in another unit, such as `x / {float(sd[wide]):.0e}`, or take `vae.double()`."
        )
    if merged := _merged(values, sd, error, dtype):
        at, (before, after) = next(iter(merged.items()))
        more = f", and {len(merged) - 1} columns more likewise" if len(merged) > 1 else ""
        warnings.warn(
            f"{_name(at, features)} has {before} different values, and {after} of them in float32, the type of the "
            f"weights{more}: give differences to a fixed value, `x - x.mean(axis=0)`, or take `vae.double()`.",
            stacklevel=3,
        )


def warn_of_constants(x: Tensor, features: Sequence[str]) -> None:
    """Warn of columns with names that have one value: they have no unit of their own, and no information."""
    values = x.reshape(len(x), -1)
    constant = torch.nonzero((values == values[:1]).all(0)).flatten().tolist() if features and len(x) > 1 else []
    if constant:
        names = ", ".join(repr(features[at]) for at in constant[:5])
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        warnings.warn(
            f"one value in all rows: column{'s' * (len(constant) > 1)} {names}{more}. Its unit is taken for 1; drop "
            "it, for a density of it has no maximum.",
            stacklevel=3,
        )


def _can_lose(x: Tensor, dtype: torch.dtype) -> bool:
    held = (torch.float32, torch.float16, torch.bool, torch.uint8)
    return dtype == torch.float32 and len(x) > 1 and x.dtype not in held


def _rounding(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Values in float64, (N, P), and the standard deviation and largest rounding error of each column, (P,)."""
    values = x.detach().reshape(len(x), -1).double()
    values = torch.where(values.isfinite().all(0), values, 0)
    return values, values.std(0, correction=0), (values - values.to(dtype).double()).abs().amax(0)


def _merged(values: Tensor, sd: Tensor, error: Tensor, dtype: torch.dtype) -> dict[int, tuple[int, int]]:
    """Numbers of different values before and after rounding, by the columns in which many become equal."""
    suspects = torch.nonzero((error > MERGING * sd) & (sd > 0)).flatten().tolist()
    counts = {at: (len(values[:, at].unique()), len(values[:, at].to(dtype).unique())) for at in suspects}
    return {at: pair for at, pair in counts.items() if pair[1] < KEPT * pair[0]}


def _first(wrong: Tensor) -> int | None:
    return int(wrong.to(torch.uint8).argmax()) if bool(wrong.any()) else None


def _name(at: int, features: Sequence[str]) -> str:
    return f"column {features[at]!r} of x" if features else f"column {at} of x"
