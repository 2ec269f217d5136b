r"""The unit of data, $x = b + a\,u$, and how the parameters of a distribution move with it.

A likelihood whose support is closed under a change of unit is fitted in a unit that follows from the data alone, so
that fitting $a x + b$ is fitting $x$: its raw parameters start, move and are bounded in that unit, and its
distribution is over the user's own numbers. Each parameter declares by one word how it moves:

| word | value in the user's unit | such as |
|---|---|---|
| location | $b + a v$ | a mean, a median |
| scale | $a v$ | a standard deviation |
| rate | $v / a$ | one over a mean |
| log_location | $v + \log a$ | a mean of logarithms |
| variance | $a^2 v$ | a variance |
| rows | $a_i v_{ij}$ | a Cholesky factor, loadings |

A parameter without a word has no unit: a shape, a correlation, degrees of freedom.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

View: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Map from the shift and unit of an event to those that a part of it sees."""

Group: TypeAlias = Literal["location_scale", "scale"] | None
"""Changes of unit under which a family is closed: any, those without a shift, or none."""

BLOCK = 2**22
"""Number of values of which the spread is taken at a time."""

MOVES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "location": lambda value, shift, unit: shift + unit * value,
    "scale": lambda value, shift, unit: unit * value,
    "rate": lambda value, shift, unit: value / unit,
    "log_location": lambda value, shift, unit: value + unit.log(),
    "variance": lambda value, shift, unit: unit.square() * value,
    "rows": lambda value, shift, unit: unit.unsqueeze(-1) * value if unit.ndim else unit * value,
}
"""Values in the user's unit, of values in the canonical one, by the word that a parameter declares."""


@dataclass(frozen=True)
class Motion:
    """How a parameter moves with the unit of the data.

    Args:
        word: a key of `MOVES`.
        views: what composites around its family make of the event's shift and unit, the outermost first.
    """

    word: str
    views: tuple[View, ...] = ()

    def __call__(self, value: Tensor, shift: Tensor, unit: Tensor) -> Tensor:
        """Value in the user's unit.

        Args:
            value: in the canonical unit, (*batch, *shape).
            shift: b of each element of the event, (*event_shape).
            unit: a of each element, (*event_shape), or one for all, ().
        """
        for view in self.views:
            shift, unit = view(shift, unit)
        return MOVES[self.word](value, shift, unit)

    def within(self, view: View) -> "Motion":
        """The same motion of a part that sees the unit by a view."""
        return replace(self, views=(view, *self.views))


def group_of(words: Iterable[str | None]) -> Group:
    """Changes of unit under which a family is closed, from the words of its parameters.

    >>> group_of(["location", "scale"]), group_of(["rate", None]), group_of([None])
    ('location_scale', 'scale', None)
    """
    words = set(words)
    if "location" in words:
        return "location_scale"
    return "scale" if words - {None} else None


def measure(
    x: Tensor, *, is_common: bool = False, is_heavy: bool = False, is_image: bool = False
) -> tuple[Tensor, Tensor]:
    """Shift (*event_shape) and unit of rows, in float64: the centre and spread of each element.

    An element's unit follows from it alone: max(standard deviation, range / 10), so that one that is nearly always the
    same has a unit of the size of its exceptions. A constant element has unit 1.

    Args:
        x: rows (N, *event_shape).
        is_common: give one unit () for all elements, the root mean square of those that vary.
        is_heavy: take the median, and the standard deviation of a Gaussian with the same quartiles.
        is_image: take the lowest value of all and the range of all, under which pixels in [0, 1] stay as they are.
    """
    if is_image:
        low, high = x.amin().double(), x.amax().double()
        return low.expand(x.shape[1:]), torch.where(high > low, high - low, 1.0)
    blocks = x.reshape(len(x), -1).split(max(1, BLOCK // len(x)), 1)
    found = [_spread(block, is_heavy) for block in blocks]
    shift, unit, varies = (torch.cat(parts).reshape(x.shape[1:]) for parts in zip(*found, strict=True))
    return shift, _root_mean_square(unit[varies]) if is_common else unit


def canonical(x: Tensor, shift: Tensor | float, unit: Tensor | float) -> Tensor:
    """Rows (N, *event_shape) in the canonical unit, in the floating type of the rows."""
    return (x - torch.as_tensor(shift).to(x)).div_(torch.as_tensor(unit).to(x))


def _spread(x: Tensor, is_heavy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Centre and spread of columns (N, P), each (P,) and in float64, and which of them vary."""
    low, high, shift = x.amin(0).double(), x.amax(0).double(), x.mean(0, dtype=torch.float64)
    variance = (x - shift.to(x)).square_().mean(0, dtype=torch.float64)
    unit = torch.maximum(variance.sqrt(), (high - low) / 10)
    if is_heavy:
        lower, shift, upper = (x.kthvalue(1 + int(q * (len(x) - 1)), dim=0).values.double() for q in (0.25, 0.5, 0.75))
        unit = torch.where(upper > lower, (upper - lower) / 1.349, unit)
    return shift, torch.where(high > low, unit, 1.0), high > low


def log_spread(x: Tensor) -> Tensor:
    """Spread of log counts, (*event_shape), from counts (N, *event_shape): at least that of a Poisson's, at most 1.

    It is three standard deviations, within which nearly all of them lie.

    >>> [round(value, 3) for value in log_spread(torch.tensor([[0.0, 99.0, 1e6], [2.0, 101.0, 1e6]])).tolist()]
    [1.0, 0.3, 0.003]
    """
    x = x.double()
    mean = x.mean(0).clamp(min=1e-6)  # of an element that is always 0
    return (3 * torch.maximum(x.var(0, correction=0), mean).sqrt() / mean).clamp(max=1)


def _root_mean_square(x: Tensor) -> Tensor:
    return x.square().mean().sqrt() if len(x) else x.new_ones(())
