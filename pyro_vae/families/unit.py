"""Families on the unit interval: grey pixels, shares, probabilities."""

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import SigmoidTransform, register_kl
from torch.nn.functional import softplus

from pyro_vae.distributions import constraints
from pyro_vae.families.base import Family, Parameter, Source, init_mean, init_std

concentrations = constraints.Bounded(1e-2, 1e4)
"""Concentrations: below, a draw in float32 is 0 or 1; above, float32 loses the density's second decimal."""

_NEAR = 0.2  # half logits below which differences of large terms are taken from their series instead
# log(h / tanh h) / h^2 and (coth h - 1/h) / h, in powers of h^2
_LOG_RATIO = (1 / 3, -7 / 90, 62 / 2835, -127 / 18900, 146 / 66825, -1414477 / 1915538625)
_LANGEVIN = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555, -1382 / 638512875)


def _series(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def inner(x: Tensor) -> Tensor:
    """Keep draws off 0 and 1, where rounding puts them and densities may be infinite."""
    limits = torch.finfo(x.dtype)
    return x.clamp(limits.tiny, 1 - limits.eps / 2)


class StableContinuousBernoulli(dist.ContinuousBernoulli):
    """The continuous Bernoulli by its logits alone: torch's goes by way of probabilities.

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
        """Draw, off the edge: a prior's density may be infinite there."""
        return inner(super().sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, by quantiles, off the edge."""
        return inner(super().rsample(torch.Size(sample_shape)))

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value, (e^lx - 1) / (e^l - 1)."""
        value = value.clamp(0, 1)
        small, down, rate = self._falling()
        x = torch.where(down, value, 1 - value)
        below = torch.expm1(rate * x) / torch.expm1(rate)
        near = value - self.logits / 2 * value * (1 - value) * (1 - self.logits / 6 * (1 - 2 * value))
        return torch.where(small, near, torch.where(down, below, 1 - below))

    def icdf(self, value: Tensor) -> Tensor:
        """The value with that probability of less, log(1 + u (e^l - 1)) / l."""
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


def _logits(x: Tensor, family: Family) -> Tensor:
    """Solve for the logits with that mean, by Newton's steps from Cohen's approximation of the inverse."""
    y = (2 * x.mean(0) - 1).clamp(-0.96, 0.96)
    h = y * (3 - y.square()) / (1 - y.square())
    for _ in range(8):
        value, slope = langevin(h)
        h = h - (value - y) / slope
    return 2 * h


@dataclass(frozen=True)
class ContinuousBernoulli(Family):
    r"""Independent grey values between 0 and 1: the density that Bernoulli's formula is the numerator of.

    $$ p(x) = \prod_j C(l_j)\,\sigma(l_j)^{x_j}\,(1 - \sigma(l_j))^{1 - x_j}, \qquad
       C(l) = \frac{l}{\tanh(l/2)}, \quad x_j \in [0, 1] $$

    It is the exponential distribution cut off at 1, rising for positive logits; its mean is not $\sigma(l)$.

    References:
        Loaiza-Ganem and Cunningham, The continuous Bernoulli: fixing a pervasive error in variational
        autoencoders, 2019, https://arxiv.org/abs/1907.06845.

    Args:
        logits: the slope l of the log density, of the event's shape; it starts between -50 and 50.

    >>> ContinuousBernoulli()
    ContinuousBernoulli(logits=None)
    """

    logits: Source = None
    parameters = {"logits": Parameter(constraints.real, init=_logits)}
    fix_hint = "scale the data to [0, 1], as in x / 255 for bytes, or take a family for real values"

    @staticmethod
    def distribution(logits: Tensor, validate_args: bool) -> dist.TorchDistribution:
        """Build the distribution, whose first argument is `probs`."""
        return StableContinuousBernoulli(logits=logits, validate_args=validate_args)


class InnerBeta(dist.Beta):
    """The beta distribution with draws inside of the interval."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, with implicit gradients."""
        return inner(super().rsample(sample_shape))


_FIX_HINT = (
    "squeeze exact zeros and ones into the interval, x = 0.001 + 0.998 * x, or take a density that allows them, "
    "such as ContinuousBernoulli()"
)


def _mean_and_total(x: Tensor, family: Family) -> tuple[Tensor, Tensor]:
    mean = x.mean(0)
    return mean, (mean * (1 - mean) / init_std(x, family).square() - 1).clamp(1, 1e3)


def _concentration1(x: Tensor, family: Family) -> Tensor:
    mean, total = _mean_and_total(x, family)
    return (mean * total).clamp(min=0.02)


def _concentration0(x: Tensor, family: Family) -> Tensor:
    mean, total = _mean_and_total(x, family)
    return ((1 - mean) * total).clamp(min=0.02)


@dataclass(frozen=True)
class Beta(Family):
    r"""Independent shares between 0 and 1.

    $$ p(x) = \prod_j \frac{x_j^{a_j - 1} (1 - x_j)^{b_j - 1}}{B(a_j, b_j)}, \qquad x_j \in (0, 1) $$

    Its mean is a / (a + b). As a prior or guide it is drawn with implicit gradients.

    References:
        Ferrari and Cribari-Neto, Beta Regression for Modelling Rates and Proportions, 2004.
        Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018, https://arxiv.org/abs/1805.08498.

    Args:
        concentration1: a, what pulls towards 1, of the event's shape, in [0.01, 10000]; 1 before training without data.
        concentration0: b, what pulls towards 0, likewise.

    >>> Beta(1, 1)
    Beta(concentration1=1.0, concentration0=1.0)
    """

    concentration1: Source = None
    concentration0: Source = None
    parameters = {
        "concentration1": Parameter(concentrations, init=_concentration1),
        "concentration0": Parameter(concentrations, init=_concentration0),
    }
    distribution = InnerBeta
    data_support = constraints.open_unit
    fix_hint = _FIX_HINT


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


class SigmoidNormal(dist.TransformedDistribution):
    """A Gaussian's sigmoid, which knows its mean and which Gaussian a draw came from."""

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        gaussian = dist.Normal(loc, scale, validate_args=validate_args)
        super().__init__(gaussian, SigmoidTransform(cache_size=1), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "SigmoidNormal":
        """Expand as torch does, which refuses subclasses with a constructor of their own."""
        expanded: SigmoidNormal = super().expand(batch_shape, _instance or self.__new__(type(self)))
        return expanded

    @property
    def mean(self) -> Tensor:
        """The mean, to 3e-9."""
        return logistic_normal_mean(self.base_dist.loc, self.base_dist.scale)


def _mean_logit(x: Tensor, family: Family) -> Tensor:
    return init_mean(SigmoidTransform().inv(x), family)


def _spread_logit(x: Tensor, family: Family) -> Tensor:
    return init_std(SigmoidTransform().inv(x), family)


logit_scale = constraints.Bounded(1e-4, 1e2)
"""Standard deviations of logits: above, nearly every draw is 0 or 1 in float32."""


@dataclass(frozen=True)
class LogitNormal(Family):
    r"""The Gaussian on the logit scale, with independent elements.

    $$ p(x) = \prod_j \frac{1}{x_j (1 - x_j)}\,\mathcal N\big(\operatorname{logit} x_j \mid m_j, s_j^2\big), \qquad
       x_j \in (0, 1) $$

    Its median is $\sigma(m)$. As a guide it goes with a `Beta` prior.

    References:
        Aitchison and Shen, Logistic-Normal Distributions: Some Properties and Uses, 1980.

    Args:
        loc: the mean logit m, of the event's shape.
        scale: the standard deviation s of the logit, of the event's shape, in [1e-4, 100].

    >>> LogitNormal(0, 1)
    LogitNormal(loc=0.0, scale=1.0)
    """

    loc: Source = None
    scale: Source = None
    parameters = {
        "loc": Parameter(constraints.real, init=_mean_logit),
        "scale": Parameter(logit_scale, init=_spread_logit),
    }
    distribution = SigmoidNormal
    data_support = constraints.open_unit
    fix_hint = _FIX_HINT
