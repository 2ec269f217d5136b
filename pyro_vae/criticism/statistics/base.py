"""Test statistics, and the kinds of data that they suit."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from pyro_vae.core.errors import InputError, check_integers

Scope = Literal["data", "row", "feature", "discrepancy"]


@dataclass(frozen=True)
class DataKind:
    """Kind of data that x is, by which test statistics are chosen.

    Args:
        event_shape: the shape of one row.
        discrete: whether its values are integers, levels or labels, so that ties are meaningful.
        binary: whether its values are 0 and 1.
        counts: whether its values are integers without an upper bound.

    >>> DataKind((1, 28, 28), binary=True, discrete=True).image
    True
    """

    event_shape: tuple[int, ...]
    discrete: bool = False
    binary: bool = False
    counts: bool = False

    @property
    def image(self) -> bool:
        """Whether a row is an image, (height, width) or (channels, height, width), of at least 2 x 2 pixels."""
        return len(self.event_shape) in (2, 3) and min(self.event_shape[-2:]) > 1

    @property
    def size(self) -> int:
        """Number of elements of a row."""
        return math.prod(self.event_shape)

    @property
    def joint(self) -> bool:
        """Whether a row has more than one element."""
        return self.size > 1


def suits_all(kind: DataKind) -> bool:
    """Whether a statistic suits a kind of data: always."""
    return True


@dataclass(frozen=True)
class Statistic:
    r"""Test statistic T(x), or discrepancy T(x, z), computed of the data and of each replicate in the same way.

    | `of` | `function` | value |
    |---|---|---|
    | `"data"` | of x (N, *event) | one number of all rows, () |
    | `"row"` | of x (N, *event) | one number of each row, from that row alone, (N,) |
    | `"feature"` | of columns (N, P) | one number of each column, from that column alone, (P,) |
    | `"discrepancy"` | of p(x \| z) with batch shape (N,), and of x | one number of each row, (N,) |

    References:
        Gelman, Meng and Stern, Posterior Predictive Assessment of Model Fitness via Realized Discrepancies, 1996
            [gelman1996].

    Args:
        function: computes it from floating-point tensors on any device.
        label: its name in a sentence, as in "Replicates have a 31 % larger {label} than the data".
        of: what it is a value of; see the table.
        elements: maximum number of elements that it is computed of, those of the first rows; None for all.
        suits: whether it is computed by default for a kind of data.
        ratio: whether it is on a ratio scale, so that "31 % larger" is meaningful; a skewness is not.

    Raises:
        InputError: the function is not callable, the label is empty, or `of` or `elements` is not as above.

    >>> Statistic(lambda x: x.square().mean(), "mean square").of
    'data'
    """

    function: Callable[..., Tensor]
    label: str
    of: Scope = "data"
    elements: int | None = 2**20
    suits: Callable[[DataKind], bool] = suits_all
    ratio: bool = True

    def __post_init__(self) -> None:
        if not callable(self.function) or not callable(self.suits):
            raise InputError(
                "a Statistic's function and suits have to be callable: Statistic(lambda x: x.mean(), 'mean')."
            )
        if not isinstance(self.label, str) or not self.label.strip():
            raise InputError(f"label = {self.label!r} has to name the statistic in a sentence: label='share of zeros'.")
        if self.of not in get_args(Scope):
            raise InputError(f"of = {self.of!r} is none of {', '.join(map(repr, get_args(Scope)))}.")
        if self.elements is not None:
            check_integers(elements=(self.elements, 1))
