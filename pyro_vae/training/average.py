"""The exponential moving average of the weights, beside those that are trained."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pyro_vae.training.programs import valued


class Average:
    """An average of weights; see `Optimizer` for the formula.

    Args:
        weights: what is averaged, by name.
        decay: how much of the average is kept each step, once there are many.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self.weights, self.decay, self.steps = dict(weights), decay, 0
        self.means: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Take the present weights for the first average."""
        self.means = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def update(self) -> None:
        """A step has been made."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(list(self.means.values()), self._now(), self.steps)

    def settle(self) -> None:
        """Give the weights the values of their averages."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.means[name])

    def in_place(self) -> AbstractContextManager[None]:
        """Within the block, the weights have the values of their averages."""
        return valued(self.weights, list(self.means.values()))

    def _now(self) -> list[Tensor]:
        return [weight.detach() for weight in self.weights.values()]
