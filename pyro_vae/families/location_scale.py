"""Location-scale families with heavier tails than the Gaussian's, or with a skew."""

import math
from dataclasses import dataclass

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.distributions import constraints
from pyro_vae.distributions.location_scale import FiniteLogistic, UncheckedStudentT
from pyro_vae.families.base import Family, Source, init_mean, init_std, parameter


@dataclass(frozen=True)
class Laplace(Family):
    r"""The double exponential, with independent elements.

    $$ p(x) = \prod_j \frac{1}{2 b_j} \exp\Big(-\frac{|x_j - m_j|}{b_j}\Big) $$

    As a likelihood its location is a conditional median, so single outliers pull less than under `Normal`.

    References:
        Kotz, Kozubowski and Podgorski, The Laplace Distribution and Generalizations, 2001 [kotz2001].

    Args:
        loc: the median m, of the event's shape, in the data's unit.
        scale: the mean absolute deviation b, of the event's shape, in [1e-4, 1e6] times the data's unit.

    >>> Laplace(scale="learned")
    Laplace(loc=None, scale='learned')
    """

    loc: Source = parameter(constraints.real, init=init_mean, unit="location")
    scale: Source = parameter(constraints.positive, init=init_std, unit="scale")
    distribution = dist.Laplace


@dataclass(frozen=True)
class StudentT(Family):
    r"""Student's t with independent elements: tails that fall like a power.

    $$ p(x) = \prod_j \frac{\Gamma(\frac{\nu_j+1}{2})}{\Gamma(\frac{\nu_j}{2})\sqrt{\nu_j\pi}\,s_j}
       \Big(1 + \frac{(x_j - m_j)^2}{\nu_j s_j^2}\Big)^{-\frac{\nu_j+1}{2}} $$

    It has a mean for degrees of freedom over 1 and a variance over 2.

    References:
        Lange, Little and Taylor, Robust Statistical Modeling Using the t Distribution, 1989 [lange1989].

    Args:
        df: the degrees of freedom nu, of the event's shape, in [0.5, 1000]; 10 before training.
        loc: the location m, of the event's shape, in the data's unit.
        scale: the scale s, of the event's shape, in [1e-4, 1e6] times the data's unit.

    >>> StudentT(df="learned", scale="per_feature")
    StudentT(df='learned', loc=None, scale='per_feature')
    """

    df: Source = parameter(constraints.Bounded(0.5, 1000.0, unit=10.0))
    loc: Source = parameter(constraints.real, init=init_mean, unit="location")
    scale: Source = parameter(constraints.positive, init=init_std, unit="scale")
    distribution = UncheckedStudentT
    is_heavy_tailed = True


@dataclass(frozen=True)
class Logistic(Family):
    r"""The logistic distribution with independent elements: smooth as a Gaussian, tails as a Laplace.

    $$ p(x) = \prod_j \frac{1}{4 s_j}\,\mathrm{sech}^2\Big(\frac{x_j - m_j}{2 s_j}\Big) $$

    References:
        Balakrishnan, Handbook of the Logistic Distribution, 1992 [balakrishnan1992].

    Args:
        loc: the mean m, of the event's shape, in the data's unit.
        scale: the scale s, of the event's shape, in [1e-4, 1e6] times the data's unit; the standard deviation is
            1.81 of it.

    >>> Logistic(scale="learned")
    Logistic(loc=None, scale='learned')
    """

    loc: Source = parameter(constraints.real, init=init_mean, unit="location")
    scale: Source = parameter(
        constraints.positive, init=lambda x, family: init_std(x, family) * (math.sqrt(3) / math.pi), unit="scale"
    )
    distribution = FiniteLogistic


def _quantile(x: Tensor, share: float) -> Tensor:
    return x.kthvalue(1 + int(share * (len(x) - 1)), dim=0).values  # torch.quantile refuses over 16 million values


def _half_width(x: Tensor, family: Family) -> Tensor:
    half = (_quantile(x, 0.75) - _quantile(x, 0.25)) / 2
    typical = half.mean()
    return half.clamp(min=0.1 * typical) if bool(typical > 0) else init_std(x, family)


@dataclass(frozen=True)
class Cauchy(Family):
    r"""The Cauchy distribution with independent elements: tails so heavy that it has no mean.

    $$ p(x) = \prod_j \frac{1}{\pi s_j}\Big(1 + \frac{(x_j - m_j)^2}{s_j^2}\Big)^{-1} $$

    As a likelihood it ignores outliers; look at draws or at `vae.decode(z).base_dist.loc`, the median. As a guide it
    wants a prior with tails as heavy, such as `Cauchy(0, 1)`: to any of lighter tails its KL divergence is infinite.

    References:
        Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions, volume 1, 1994 [johnson1994].

    Args:
        loc: the median m, of the event's shape, in the data's unit.
        scale: half the interquartile range s, of the event's shape, in [1e-4, 1e6] times the data's unit.

    >>> Cauchy(0, 1)
    Cauchy(loc=0.0, scale=1.0)
    """

    loc: Source = parameter(constraints.real, init=lambda x, _: _quantile(x, 0.5), unit="location")
    scale: Source = parameter(constraints.positive, init=_half_width, unit="scale")
    distribution = dist.Cauchy
    is_heavy_tailed = True


@dataclass(frozen=True)
class AsymmetricLaplace(Family):
    r"""Two exponentials back to back, with independent elements: the likelihood of quantile regression.

    $$ p(x) = \prod_j \frac{1}{s_j (k_j + 1/k_j)} \exp\Big(-\frac{|x_j - m_j|}{s_j k_j^{\pm 1}}\Big) $$

    with $s k$ the scale below the mode m, and $s / k$ that above. A share of $k^2 / (1 + k^2)$ lies below m, so that a
    fixed asymmetry makes m a conditional quantile: 3 that of 0.9, 1 the median, 1/3 that of 0.1.

    References:
        Yu and Moyeed, Bayesian Quantile Regression, 2001 [yu2001].
        Kozubowski and Podgorski, A Multivariate and Asymmetric Generalization of Laplace Distribution, 2000
            [kozubowski2000].

    Args:
        loc: the mode m, of the event's shape, in the data's unit.
        scale: the geometric mean s of the two scales, of the event's shape, in [1e-4, 1e6] times the data's unit.
        asymmetry: the root k of the ratio of the scale below to that above, of the event's shape, in [0.01, 100];
            1 before training.

    >>> AsymmetricLaplace(asymmetry=3)
    AsymmetricLaplace(loc=None, scale=None, asymmetry=3.0)
    """

    loc: Source = parameter(constraints.real, init=init_mean, unit="location")
    scale: Source = parameter(constraints.positive, init=init_std, unit="scale")
    asymmetry: Source = parameter(constraints.Bounded(0.01, 100.0))
    distribution = dist.AsymmetricLaplace
