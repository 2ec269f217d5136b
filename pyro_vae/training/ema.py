"""The exponential moving average of the weights, beside those that are trained."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from pyro_vae.training.loss import valued


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

    def next_share(self) -> float:
        """How much of the weights the average takes up after the coming step."""
        self.steps += 1
        return 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))

    @torch.no_grad()
    def move(self, share: float | Tensor) -> None:
        """Take up so much of the weights of now."""
        for mean, weight in zip(self.means.values(), self.weights.values(), strict=True):
            mean.lerp_(weight.detach(), share)

    def settle(self) -> None:
        """Give the weights the values of their averages."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.means[name])

    def in_place(self) -> AbstractContextManager[None]:
        """Within the block, the weights have the values of their averages."""
        return valued(self.weights, list(self.means.values()))
