"""The exponential moving average of the weights."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from pyro_vae.training.loss import substituted


class ExponentialMovingAverage:
    """A moving average of weights; see `Optimizer` for the formula.

    Args:
        weights: the averaged weights by name.
        decay: the share of the average that is kept each step, once there are many.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self.weights, self.decay, self.steps = dict(weights), decay, 0
        self.means: dict[str, Tensor] = {}

    def reset(self) -> None:
        """Start the average at the present weights."""
        self.means = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def next_rate(self) -> float:
        """Rate 1 - d of the coming step, which is counted."""
        self.steps += 1
        return 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))

    @torch.no_grad()
    def update(self, rate: float | Tensor) -> None:
        """Move the average towards the present weights at a rate 1 - d."""
        for mean, weight in zip(self.means.values(), self.weights.values(), strict=True):
            mean.lerp_(weight.detach(), rate)

    def copy_to_model(self) -> None:
        """Give the weights the values of their averages."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.means[name])

    def applied(self) -> AbstractContextManager[None]:
        """A block within which the weights are their averages."""
        return substituted(self.weights, list(self.means.values()))
