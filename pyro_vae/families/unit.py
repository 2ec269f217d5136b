"""Families on the unit interval: grey pixels, shares, probabilities."""

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import SigmoidTransform

from pyro_vae.distributions import constraints
from pyro_vae.distributions.unit import OpenBeta, SigmoidNormal, StableContinuousBernoulli, langevin
from pyro_vae.families.base import Family, Source, init_mean, init_std, parameter

concentrations = constraints.Bounded(1e-2, 1e4)
"""Concentrations: below, a draw in float32 is 0 or 1; above, float32 loses the density's second decimal."""


def _logits(x: Tensor, family: Family) -> Tensor:
    """Logits with that mean, by Newton's steps from Cohen's approximation of the inverse."""
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
        Loaiza-Ganem and Cunningham, The continuous Bernoulli: fixing a pervasive error in variational autoencoders,
            2019 [loaizaganem2019], https://arxiv.org/abs/1907.06845.

    Args:
        logits: the slope l of the log density, of the event's shape; it starts between -50 and 50.

    >>> ContinuousBernoulli()
    ContinuousBernoulli(logits=None)
    """

    logits: Source = parameter(constraints.real, init=_logits)
    fix_hint = "scale the data to [0, 1], as in x / 255 for bytes, or take a family for real values"
    data_kind = "Unit interval"
    support_text = "numbers in [0, 1]"
    distribution = StableContinuousBernoulli


_FIX_HINT = (
    "squeeze exact zeros and ones into the interval, x = 0.001 + 0.998 * x, or take a density that allows them, "
    "such as ContinuousBernoulli()"
)


def _concentration(share: Tensor, x: Tensor, family: Family) -> Tensor:
    """Share of the total concentration that gives the elements of x their variance."""
    mean = x.mean(0)
    total = (mean * (1 - mean) / init_std(x, family).square() - 1).clamp(1, 1e3)
    return (share * total).clamp(min=0.02)


@dataclass(frozen=True)
class Beta(Family):
    r"""Independent shares between 0 and 1.

    $$ p(x) = \prod_j \frac{x_j^{a_j - 1} (1 - x_j)^{b_j - 1}}{B(a_j, b_j)}, \qquad x_j \in (0, 1) $$

    Its mean is a / (a + b). As a prior or guide it is drawn with implicit gradients.

    References:
        Ferrari and Cribari-Neto, Beta Regression for Modelling Rates and Proportions, 2004 [ferrari2004].
        Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018 [figurnov2018],
            https://arxiv.org/abs/1805.08498.

    Args:
        concentration1: a, what pulls towards 1, of the event's shape, in [0.01, 10000]; 1 before training without data.
        concentration0: b, what pulls towards 0, likewise.

    >>> Beta(1, 1)
    Beta(concentration1=1.0, concentration0=1.0)
    """

    concentration1: Source = parameter(concentrations, init=lambda x, family: _concentration(x.mean(0), x, family))
    concentration0: Source = parameter(concentrations, init=lambda x, family: _concentration(1 - x.mean(0), x, family))
    distribution = OpenBeta
    data_support = constraints.open_unit
    fix_hint = _FIX_HINT
    data_kind = "Unit interval"
    support_text = "numbers in (0, 1)"


logit_scale = constraints.Bounded(1e-4, 1e2)
"""Standard deviations of logits: above, nearly every draw is 0 or 1 in float32."""


@dataclass(frozen=True)
class LogitNormal(Family):
    r"""The Gaussian on the logit scale, with independent elements.

    $$ p(x) = \prod_j \frac{1}{x_j (1 - x_j)}\,\mathcal N\big(\operatorname{logit} x_j \mid m_j, s_j^2\big), \qquad
       x_j \in (0, 1) $$

    Its median is $\sigma(m)$. As a guide it goes with a `Beta` prior.

    References:
        Aitchison and Shen, Logistic-Normal Distributions: Some Properties and Uses, 1980 [aitchison1980].

    Args:
        loc: the mean logit m, of the event's shape.
        scale: the standard deviation s of the logit, of the event's shape, in [1e-4, 100].

    >>> LogitNormal(0, 1)
    LogitNormal(loc=0.0, scale=1.0)
    """

    loc: Source = parameter(constraints.real, init=lambda x, family: init_mean(SigmoidTransform().inv(x), family))
    scale: Source = parameter(logit_scale, init=lambda x, family: init_std(SigmoidTransform().inv(x), family))
    distribution = SigmoidNormal
    data_support = constraints.open_unit
    fix_hint = _FIX_HINT
    data_kind = "Unit interval"
    support_text = "numbers in (0, 1)"
