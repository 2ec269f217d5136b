r"""Families of positive numbers: durations, amounts, concentrations.

Each starts at the data's mean $\bar x$ and coefficient of variation $v$ (the standard deviation as a share of the
mean), the scale-free pair that all of them can match. Draws stay within what the floating type can hold, for a zero
has no logarithm: densities and draws are computed from logarithms wherever a power would overflow.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions.constraints import positive as above_zero

from pyro_vae.distributions import constraints
from pyro_vae.distributions.positive import ExactGamma, OpenExponential, OpenLogNormal, OpenWeibull
from pyro_vae.families.base import Family, Source, parameter

rates = constraints.Bounded(1e-6, 1e6)
"""Rates: 1e-6 to 1e6 in one over the data's own unit."""


def _variation(x: Tensor) -> Tensor:
    """The coefficient of variation of each element, from 0.1 to 3: a constant element has none, and one row neither."""
    return (x.std(0, correction=0) / _level(x)).clamp(0.1, 3)


def _level(x: Tensor) -> Tensor:
    """The mean of each element, at least 1e-3 of the mean over elements, for an element may be zero in every row."""
    mean = x.mean(0)
    typical = mean.mean()
    return mean.clamp(min=1e-3 * typical) if bool(typical > 0) else torch.ones_like(mean)


class _PositiveFamily(Family):
    """Base of families of numbers over zero."""

    data_support = above_zero
    fix_hint = (
        "these numbers have to be over zero; where some are exactly zero, add half of the smallest other one, "
        "x + x[x > 0].min() / 2, or take Exponential(), which allows them; for negative ones take a family for real "
        "values, such as Normal(scale='learned')"
    )
    data_kind = "Positive numbers"
    support_text = "positive numbers"


@dataclass(frozen=True)
class Gamma(_PositiveFamily):
    r"""The gamma distribution of positive numbers, with independent elements.

    $$ p(x) = \prod_j \frac{b_j^{a_j}}{\Gamma(a_j)}\,x_j^{a_j - 1} e^{-b_j x_j}, \qquad x_j > 0 $$

    Its mean is $a / b$ and its coefficient of variation $a^{-1/2}$, whatever the mean: noise in proportion. As a
    guide it is reparameterised implicitly.

    References:
        McCullagh and Nelder, Generalized Linear Models, 1989 [mccullagh1989], chapter 8.
        Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018 [figurnov2018],
            https://arxiv.org/abs/1805.08498.

    Args:
        concentration: the shape a, of the event's shape, in [0.01, 1e4].
        rate: the rate b, of the event's shape, in [1e-6, 1e6] over the data's unit.

    >>> Gamma(concentration="learned")
    Gamma(concentration='learned', rate=None)
    """

    concentration: Source = parameter(constraints.Bounded(0.01, 1e4), init=lambda x, _: _variation(x) ** -2)
    rate: Source = parameter(rates, init=lambda x, _: _variation(x) ** -2 / _level(x), unit="rate")
    distribution = ExactGamma  # its draws are at least the smallest normal number


def _log_variance(x: Tensor) -> Tensor:
    return torch.log1p(_variation(x).square())


@dataclass(frozen=True)
class LogNormal(_PositiveFamily):
    r"""Positive numbers whose logarithms are Gaussian, with independent elements.

    $$ p(x) = \prod_j \frac{1}{x_j s_j\sqrt{2\pi}} \exp\Big(-\frac{(\log x_j - m_j)^2}{2 s_j^2}\Big), \qquad x_j > 0 $$

    Its median is $e^m$, its mean $e^{m + s^2/2}$. It is the density of x itself: no Jacobian has to be added to compare
    it with other families of positive numbers.

    References:
        Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions, volume 1, 1994 [johnson1994].

    Args:
        loc: the mean m of the logarithm, of the event's shape, in log units.
        scale: the standard deviation s of the logarithm, of the event's shape, in log units, in [1e-4, 10].

    >>> LogNormal(0, 1)
    LogNormal(loc=0.0, scale=1.0)
    """

    loc: Source = parameter(
        constraints.real, init=lambda x, _: _level(x).log() - _log_variance(x) / 2, unit="log_location"
    )
    scale: Source = parameter(constraints.Bounded(1e-4, 10.0), init=lambda x, _: _log_variance(x).sqrt())
    distribution = OpenLogNormal


@dataclass(frozen=True)
class Exponential(Family):
    r"""The exponential distribution, with independent elements: one number says how large they are.

    $$ p(x) = \prod_j b_j e^{-b_j x_j}, \qquad x_j \ge 0 $$

    A sparse prior over latents that are not negative, and a likelihood that allows exact zeros.

    References:
        Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions, volume 1, 1994 [johnson1994].

    Args:
        rate: the rate b, one over the mean, of the event's shape, in [1e-6, 1e6] over the data's unit.

    >>> Exponential(rate=1)
    Exponential(rate=1.0)
    """

    rate: Source = parameter(rates, init=lambda x, _: 1 / _level(x), unit="rate")
    distribution = OpenExponential
    fix_hint = "these numbers may not be negative; for such take a family for real values, such as Normal()"
    data_kind = "Positive numbers"
    support_text = "0 and positive numbers"


def _weibull_concentration(x: Tensor) -> Tensor:
    return _variation(x) ** -1.086


@dataclass(frozen=True)
class Weibull(_PositiveFamily):
    r"""The Weibull distribution of positive numbers, with independent elements: times to failure, wind speeds.

    $$ p(x) = \prod_j \frac{k_j}{s_j} \Big(\frac{x_j}{s_j}\Big)^{k_j - 1} e^{-(x_j / s_j)^{k_j}}, \qquad x_j > 0 $$

    The hazard falls with x for k < 1 and rises for k > 1. As a guide it is a gamma's reparameterised stand-in.

    References:
        Weibull, A Statistical Distribution Function of Wide Applicability, 1951 [weibull1951].
        Justus, Hargraves, Mikhail and Graber, Methods for Estimating Wind Speed Frequency Distributions, 1978
            [justus1978] (where its concentration starts).
        Zhang, Chen, Guo and Zhou, WHAI: Weibull Hybrid Autoencoding Inference, 2018 [zhang2018],
            https://arxiv.org/abs/1803.01328 (as a guide).

    Args:
        scale: the scale s, below which lies 63 %, of the event's shape, in [1e-4, 1e6] times the data's unit.
        concentration: the shape k, of the event's shape, in [0.1, 100].

    >>> Weibull(concentration=2)
    Weibull(scale=None, concentration=2.0)
    """

    scale: Source = parameter(
        constraints.positive,
        init=lambda x, _: _level(x) / torch.lgamma(1 + 1 / _weibull_concentration(x)).exp(),
        unit="scale",
    )
    concentration: Source = parameter(constraints.Bounded(0.1, 100.0), init=lambda x, _: _weibull_concentration(x))
    distribution = OpenWeibull
