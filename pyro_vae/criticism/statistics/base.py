"""A test quantity, and the kind of data it suits."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from pyro_vae.core.errors import InputError, check_integers

Scope = Literal["data", "row", "feature", "discrepancy"]


@dataclass(frozen=True)
class Kind:
    """What sort of data x is, as far as test quantities care.

    Args:
        event_shape: the shape of one row.
        discrete: whether its values are whole numbers, levels or labels, so that ties mean something.
        binary: whether they are 0 and 1.
        counts: whether they are whole numbers without a bound.

    >>> Kind((1, 28, 28), binary=True, discrete=True).image
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
        """The number of elements of a row."""
        return math.prod(self.event_shape)


def any_kind(kind: Kind) -> bool:
    """Suit every kind of data."""
    return True


@dataclass(frozen=True)
class Statistic:
    r"""A test quantity T(x), or T(x, z): what is computed of the data, and of each replicate in the same way.

    | `of` | `function` | gives |
    |---|---|---|
    | `"data"` | of x (N, *event) | one number of all rows, () |
    | `"row"` | of x (N, *event) | one number of each row, from that row alone, (N,) |
    | `"feature"` | of columns (N, P) | one number of each column, from that column alone, (P,) |
    | `"discrepancy"` | of p(x \| z) with batch shape (N,), and of x | one number of each row, (N,) |

    References:
        Gelman, Meng and Stern, Posterior Predictive Assessment of Model Fitness via Realized Discrepancies, 1996.

    Args:
        function: what computes it, from floating-point tensors on any device.
        label: its name in a sentence, as in "the {label} of replicates is 31 % above the data's".
        of: what it is a number of; see the table.
        elements: the number of elements at most that it looks at: of larger data, the first rows; None for all.
        suits: the kinds of data that it is computed of unless others are asked for.
        ratio: whether it is on a ratio scale, so that "31 % larger" means something; a skewness is not.

    Raises:
        InputError: the function is none, the label is empty, or `of` or `elements` is not as above.

    >>> Statistic(lambda x: x.square().mean(), "mean square").of
    'data'
    """

    function: Callable[..., Tensor]
    label: str
    of: Scope = "data"
    elements: int | None = 2**20
    suits: Callable[[Kind], bool] = any_kind
    ratio: bool = True

    def __post_init__(self) -> None:
        if not callable(self.function) or not callable(self.suits):
            raise InputError("a Statistic's function and suits are called: Statistic(lambda x: x.mean(), 'mean').")
        if not isinstance(self.label, str) or not self.label.strip():
            raise InputError(f"label = {self.label!r} has to name the statistic in a sentence: label='share of zeros'.")
        if self.of not in get_args(Scope):
            raise InputError(f"of = {self.of!r} is none of {', '.join(map(repr, get_args(Scope)))}.")
        if self.elements is not None:
            check_integers(elements=(self.elements, 1))
