"""Families on the simplex: compositions, topic proportions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.distributions import constraints
from pyro_vae.distributions.simplex import OpenDirichlet, StableStickBreaking, StickBreakingNormal
from pyro_vae.families.base import Family, Source, init_mean, init_std, parameter
from pyro_vae.families.site import Shape
from pyro_vae.families.unit import concentrations, logit_scale

_FIX_HINT = (
    "give each row positive numbers that sum to 1: with zeros filled, x = x.clamp(min=1e-6), "
    "then x / x.sum(-1, keepdim=True)"
)


def _per_part(event: Shape, family: Family) -> Shape:
    if event[-1] < 2:
        raise InputError(
            f"{type(family).__name__} describes shares of at least 2 parts, and of one part the share is always 1: "
            "take longer vectors, or a family on the unit interval, such as Beta()."
        )
    return event


def _per_break(event: Shape, family: Family) -> Shape:
    return (_per_part(event, family)[-1] - 1,)


def _moments(x: Tensor, family: Family) -> Tensor:
    mean, variance = x.mean(0), x.var(0, correction=0)
    total = (mean * (1 - mean)).sum() / variance.sum().clamp(min=torch.finfo(x.dtype).tiny) - 1
    return (mean * total.clamp(1, 1e3)).clamp(min=0.02)


@dataclass(frozen=True)
class Dirichlet(Family):
    r"""Shares of a whole: vectors of positive numbers that sum to 1.

    $$ p(x) = \frac{\Gamma(\sum_d a_d)}{\prod_d \Gamma(a_d)} \prod_d x_d^{a_d - 1}, \qquad
       x_d > 0, \quad \sum_d x_d = 1 $$

    a density over the first D-1 shares. `prior=Dirichlet(0.1)` gives sparse topics, with `guide=LogisticNormal()` or
    itself, drawn with implicit gradients.

    References:
        Blei, Ng and Jordan, Latent Dirichlet Allocation, 2003 [blei2003].
        Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018 [figurnov2018],
            https://arxiv.org/abs/1805.08498.

    Args:
        concentration: a, (D,), in [0.01, 10000]; 1, the uniform density, before training without data.

    >>> Dirichlet(0.1)
    Dirichlet(concentration=0.1)
    """

    concentration: Source = parameter(concentrations, shape=_per_part, init=_moments)
    distribution = OpenDirichlet
    event_ranks = (1,)
    data_support = constraints.open_simplex
    fix_hint = _FIX_HINT
    data_kind = "Shares that sum to one"
    support_text = "vectors of shares, positive, that sum to one"


@dataclass(frozen=True)
class LogisticNormal(Family):
    r"""Shares of a whole as broken off a stick, each break a Gaussian on the logit scale.

    $$ y_d = \log\frac{x_d}{\sum_{j>d} x_j} + \log(D - d) \sim \mathcal N(m_d, s_d^2), \qquad d = 1, \dots, D-1 $$

    so that equal shares have y = 0. The density is over the first D-1 shares. As a guide it goes with a `Dirichlet`
    prior or with one of its own kind.

    References:
        Aitchison and Shen, Logistic-Normal Distributions: Some Properties and Uses, 1980 [aitchison1980].
        Srivastava and Sutton, Autoencoding Variational Inference for Topic Models, 2017 [srivastava2017],
            https://arxiv.org/abs/1703.01488.

    Args:
        loc: the mean m of each break, (D-1,).
        scale: the standard deviation s of each break, (D-1,), in [1e-4, 100].

    >>> LogisticNormal(0, 1)
    LogisticNormal(loc=0.0, scale=1.0)
    """

    loc: Source = parameter(
        constraints.real, shape=_per_break, init=lambda x, family: init_mean(StableStickBreaking().inv(x), family)
    )
    scale: Source = parameter(
        logit_scale, shape=_per_break, init=lambda x, family: init_std(StableStickBreaking().inv(x), family)
    )
    distribution = StickBreakingNormal
    event_ranks = (1,)
    data_support = constraints.open_simplex
    fix_hint = _FIX_HINT
    data_kind = "Shares that sum to one"
    support_text = "vectors of shares, positive, that sum to one"
