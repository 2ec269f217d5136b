"""Distributions on the unit interval, precise near its ends."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import SigmoidTransform, register_kl
from torch.nn.functional import softplus

from pyro_vae.distributions.wrappers import ExpandMixin

_NEAR = 0.2  # half logits below which differences of large terms are taken from their series instead
# log(h / tanh h) / h^2 and (coth h - 1/h) / h, in powers of h^2
_LOG_RATIO = (1 / 3, -7 / 90, 62 / 2835, -127 / 18900, 146 / 66825, -1414477 / 1915538625)
_LANGEVIN = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555, -1382 / 638512875)


def _series(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def clamp_to_open_unit(x: Tensor) -> Tensor:
    """Draws clamped away from 0 and 1, where rounding puts them and densities may be infinite."""
    limits = torch.finfo(x.dtype)
    return x.clamp(limits.tiny, 1 - limits.eps / 2)


class StableContinuousBernoulli(dist.ContinuousBernoulli):
    """The continuous Bernoulli computed from its logits alone: torch's uses probabilities.

    These are cut off at a logit of 16 in float32, and torch's formulas cancel on either side of the interval around
    1/2 where its series holds, in which a draw has no gradient.
    """

    @property
    def mean(self) -> Tensor:
        """The first derivative of the log-normaliser."""
        return 0.5 + 0.5 * langevin(self.logits / 2)[0]

    @property
    def variance(self) -> Tensor:
        """The second derivative of the log-normaliser."""
        return 0.25 * langevin(self.logits / 2)[1]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws inside the interval: a prior's density may be infinite at its ends."""
        return clamp_to_open_unit(super().sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws by quantiles, inside the interval."""
        return clamp_to_open_unit(super().rsample(torch.Size(sample_shape)))

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function, (e^lx - 1) / (e^l - 1)."""
        value = value.clamp(0, 1)
        small, down, rate = self._falling()
        x = torch.where(down, value, 1 - value)
        below = torch.expm1(rate * x) / torch.expm1(rate)
        near = value - self.logits / 2 * value * (1 - value) * (1 - self.logits / 6 * (1 - 2 * value))
        return torch.where(small, near, torch.where(down, below, 1 - below))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile function, log(1 + u (e^l - 1)) / l."""
        small, down, rate = self._falling()
        u = torch.where(down, value, 1 - value).clamp(0, 1 - torch.finfo(value.dtype).eps)
        x = (torch.log1p(u * torch.expm1(rate)) / rate).clamp(0, 1)
        near = value + self.logits / 2 * value * (1 - value) * (1 + self.logits / 3 * (1 - 2 * value))
        return torch.where(small, near, torch.where(down, x, 1 - x))

    def entropy(self) -> Tensor:
        """The expected negative log density."""
        return softplus(self.logits) - self.logits * self.mean - self._cont_bern_log_norm()

    def _cont_bern_log_norm(self) -> Tensor:
        """The logarithm of l / tanh(l/2)."""
        half = self.logits / 2
        small = half.abs() < _NEAR
        far = torch.where(small, 1, half)
        series = half.square() * _series(_LOG_RATIO, torch.where(small, half, 0).square())
        return torch.where(small, series, torch.log(far / torch.tanh(far))) + math.log(2)

    def _falling(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where the logits are near 0, where the density falls, and the logits of it or of its mirror image."""
        small = self.logits.abs() < 1e-3
        return small, self.logits <= 0, -torch.where(small, 1, self.logits.abs())


def _kl(p: StableContinuousBernoulli, q: StableContinuousBernoulli) -> Tensor:
    offset = softplus(q.logits) - q._cont_bern_log_norm()
    return (p.logits - q.logits) * p.mean + offset - softplus(p.logits) + p._cont_bern_log_norm()


register_kl(StableContinuousBernoulli, StableContinuousBernoulli)(_kl)


def langevin(h: Tensor) -> tuple[Tensor, Tensor]:
    """The function coth h - 1/h, the mean direction of a spin in a field, and its derivative."""
    small = h.abs() < _NEAR
    far, near = torch.where(small, 1, h), torch.where(small, h, 0).square()
    coth = 1 / torch.tanh(far)
    slopes = tuple((2 * k + 1) * c for k, c in enumerate(_LANGEVIN))
    value = torch.where(small, h * _series(_LANGEVIN, near), coth - 1 / far)
    return value, torch.where(small, _series(slopes, near), 1 / far.square() - (coth.square() - 1))


class OpenBeta(dist.Beta):
    """The beta distribution with draws inside of the interval."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws with implicit gradients."""
        return clamp_to_open_unit(super().rsample(sample_shape))


def logistic_normal_mean(loc: Tensor, scale: Tensor) -> Tensor:
    """The mean of a Gaussian's sigmoid, to 3e-9.

    The sigmoid is nearly a mixture of eight Gaussian distribution functions, and under a Gaussian each of them has
    a mean in closed form (Monahan and Stefanski, Normal scale mixture approximations to F*(z) and computation of the
    logistic-normal integral, 1992).
    """
    weights, slopes = loc.new_tensor(_MIXTURE).T
    ratio = loc.unsqueeze(-1) * slopes / torch.sqrt(1 + (slopes * scale.unsqueeze(-1)).square())
    return (torch.special.ndtr(ratio) * weights).sum(-1)


_MIXTURE = (
    (0.003246343272134, 1.365340806296348),
    (0.051517477033972, 1.059523971016916),
    (0.195077912673858, 0.830791313765644),
    (0.315569823632818, 0.650732166639391),
    (0.274149576158423, 0.508135425366489),
    (0.131076880695470, 0.396313345166341),
    (0.027912418727972, 0.308904252267995),
    (0.001449567805354, 0.238212616409306),
)


class SigmoidNormal(ExpandMixin, dist.TransformedDistribution):
    """Sigmoid of a Gaussian, with a mean, and a cached inverse of its draws."""

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        gaussian = dist.Normal(loc, scale, validate_args=validate_args)
        super().__init__(gaussian, SigmoidTransform(cache_size=1), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean, to 3e-9."""
        return logistic_normal_mean(self.base_dist.loc, self.base_dist.scale)
