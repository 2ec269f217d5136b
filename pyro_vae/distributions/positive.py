"""Distributions of positive numbers whose draws are positive and finite in their floating type."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import ExpTransform, TransformedDistribution

from pyro_vae.distributions.stirling import LOG_ROOT_TAU, deviance, stirling_error
from pyro_vae.distributions.wrappers import ExpandMixin


def _clamped_exp(logarithm: Tensor) -> Tensor:
    """The exponential, kept within the normal numbers of the type before it is taken, for its gradient's sake."""
    info = torch.finfo(logarithm.dtype)
    return logarithm.clamp(math.log(info.tiny) + 1, math.log(info.max) - 1).exp()


class ExactGamma(ExpandMixin, dist.Gamma):
    r"""The gamma distribution whose log density has no terms that cancel at large concentrations a.

    $$ \log p(x) = -a \log\frac{a}{b x} + a - b x + \tfrac12 \log a - \tfrac12 \log 2\pi - \delta(a) - \log x $$
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each element."""
        value = value.clamp(min=torch.finfo(value.dtype).tiny)  # at 0 terms of a mass of nothing would be infinite
        a, log = self.concentration, value.log()
        a, mean, log_mean = torch.broadcast_tensors(a, self.rate * value, self.rate.log() + log)
        return 0.5 * a.log() - LOG_ROOT_TAU - stirling_error(a) - log - deviance(a, mean, log_mean)


class OpenLogNormal(ExpandMixin, dist.LogNormal):
    """The log-normal distribution whose draws are positive and finite in the type they have.

    Pyro's validates its Gaussian in any case, which is a host sync.
    """

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        base = dist.Normal(loc, scale, validate_args=validate_args)
        TransformedDistribution.__init__(self, base, ExpTransform(), validate_args=validate_args)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws as the exponential of Gaussian ones."""
        return _clamped_exp(self.base_dist.rsample(sample_shape))


class OpenExponential(dist.Exponential):
    """The exponential distribution whose draws are never exactly 0, where another density of them may be infinite."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws, at least the smallest normal number."""
        draws: Tensor = super().rsample(sample_shape)
        return draws.clamp(min=torch.finfo(draws.dtype).tiny)


_MAX_LOG_HAZARD = 40.0  # log of the cumulated hazard, beyond which it is continued by its tangent


class OpenWeibull(dist.Weibull):
    r"""The Weibull distribution computed from logarithms: its powers overflow.

    The cumulated hazard is $e^u$ with $u = k \log(x/s)$. Beyond u = 40, where the probability left is
    $\exp(-e^{40})$, it is continued by its tangent, so that the log density and its gradient stay finite and lead back.
    """

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws as powers of exponential ones, from their logarithms."""
        unit = self.base_dist.rsample(sample_shape)
        unit = unit.clamp(min=torch.finfo(unit.dtype).tiny)
        return _clamped_exp(self.scale.log() + unit.log() * self.concentration_reciprocal)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each element."""
        log = value.log()
        u = self.concentration * (log - self.scale.log())
        near = u.clamp(max=_MAX_LOG_HAZARD)
        return self.concentration.log() - log + u - near.exp() * (1 + u - near)
