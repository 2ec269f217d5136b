"""A pair of programs and its data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Example:
    """A model that Pyro's documentation shows.

    Args:
        make: makes the pair, of which each has weights of its own.
        data: makes the tensors of a batch by name.
        steps: the steps of training, on all rows at once.
        lr: learning rate of Adam.
        says: words of the sentence that refuses it; empty where it trains.
        mended: makes the pair that follows that sentence, to be trained under `RWS`.
    """

    make: Callable[[], Any]
    data: Callable[[], dict[str, Tensor]]
    steps: int = 120
    lr: float = 0.02
    says: str = ""
    mended: Callable[[], Any] | None = None
