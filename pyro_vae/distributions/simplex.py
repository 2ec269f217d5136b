"""Distributions on the simplex whose draws lie inside of it."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import StickBreakingTransform
from torch.nn.functional import logsigmoid, pad

from pyro_vae.distributions.unit import clamp_to_open_unit, logistic_normal_mean
from pyro_vae.distributions.wrappers import ExpandMixin


class OpenDirichlet(dist.Dirichlet):
    """The Dirichlet distribution with draws inside of the simplex."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws with implicit gradients."""
        return clamp_to_open_unit(super().rsample(sample_shape))


class StableStickBreaking(StickBreakingTransform):
    """Stick breaking by logarithms and by sums of what is left.

    torch subtracts sums from 1: in float32 a remainder below 1e-7 becomes 0, and the logit of the last break off by
    70. Here small shares keep their digits.
    """

    def _call(self, x: Tensor) -> Tensor:
        logits = x - self._offset(x)
        left = pad(logsigmoid(-logits).cumsum(-1), [1, 0])
        return clamp_to_open_unit(torch.exp(pad(logsigmoid(logits), [0, 1]) + left))

    def _inverse(self, y: Tensor) -> Tensor:
        left = y.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        x = y[..., :-1].log() - left.log()
        return x + self._offset(x)

    @staticmethod
    def _offset(x: Tensor) -> Tensor:
        return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device).log()


class StickBreakingNormal(ExpandMixin, dist.LogisticNormal):
    """Logistic normal over precise breaks, with a mean, and a cached inverse of its draws."""

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale, validate_args=validate_args)
        self.transforms = [StableStickBreaking(cache_size=1)]

    @property
    def mean(self) -> Tensor:
        """The mean, to 3e-9 D: the breaks are independent, so that their means multiply."""
        offset = StableStickBreaking._offset(self.loc)
        taken, left = (logistic_normal_mean(sign * (self.loc - offset), self.scale) for sign in (1, -1))
        return pad(taken, [0, 1], value=1) * pad(left.cumprod(-1), [1, 0], value=1)
