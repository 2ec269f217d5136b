"""Families on the simplex: compositions, topic proportions."""

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import StickBreakingTransform
from torch.nn.functional import logsigmoid, pad

from pyro_vae.core.errors import InputError
from pyro_vae.distributions import constraints
from pyro_vae.families.base import Family, Parameter, Source, init_mean, init_std
from pyro_vae.families.site import Shape
from pyro_vae.families.unit import concentrations, inner, logistic_normal_mean, logit_scale

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


class InnerDirichlet(dist.Dirichlet):
    """The Dirichlet distribution with draws inside of the simplex."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, with implicit gradients."""
        return inner(super().rsample(sample_shape))


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
        Blei, Ng and Jordan, Latent Dirichlet Allocation, 2003.
        Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018, https://arxiv.org/abs/1805.08498.

    Args:
        concentration: a, (D,), in [0.01, 10000]; 1, the uniform density, before training without data.

    >>> Dirichlet(0.1)
    Dirichlet(concentration=0.1)
    """

    concentration: Source = None
    parameters = {"concentration": Parameter(concentrations, shape=_per_part, init=_moments)}
    distribution = InnerDirichlet
    event_ranks = (1,)
    data_support = constraints.open_simplex
    fix_hint = _FIX_HINT


class StickBreaking(StickBreakingTransform):
    """Stick breaking by logarithms and by sums of what is left.

    torch subtracts sums from 1: in float32 a remainder below 1e-7 becomes 0, and the logit of the last break off by
    70. Here small shares keep their digits.
    """

    def _call(self, x: Tensor) -> Tensor:
        logits = x - self._offset(x)
        left = pad(logsigmoid(-logits).cumsum(-1), [1, 0])
        return inner(torch.exp(pad(logsigmoid(logits), [0, 1]) + left))

    def _inverse(self, y: Tensor) -> Tensor:
        left = y.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        x = y[..., :-1].log() - left.log()
        return x + self._offset(x)

    @staticmethod
    def _offset(x: Tensor) -> Tensor:
        return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device).log()


class StickBreakingNormal(dist.LogisticNormal):
    """Pyro's logistic normal over precise breaks, which knows its mean and which Gaussian a draw came from."""

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale, validate_args=validate_args)
        self.transforms = [StickBreaking(cache_size=1)]

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StickBreakingNormal":
        """Expand as torch does, which refuses subclasses with a constructor of their own."""
        expanded: StickBreakingNormal = super().expand(batch_shape, _instance or self.__new__(type(self)))
        return expanded

    @property
    def mean(self) -> Tensor:
        """The mean, to 3e-9 D: the breaks are independent, so that their means multiply."""
        offset = StickBreaking._offset(self.loc)
        taken, left = (logistic_normal_mean(sign * (self.loc - offset), self.scale) for sign in (1, -1))
        return pad(taken, [0, 1], value=1) * pad(left.cumprod(-1), [1, 0], value=1)


def _mean_break(x: Tensor, family: Family) -> Tensor:
    return init_mean(StickBreaking().inv(x), family)


def _spread_break(x: Tensor, family: Family) -> Tensor:
    return init_std(StickBreaking().inv(x), family)


@dataclass(frozen=True)
class LogisticNormal(Family):
    r"""Shares of a whole as broken off a stick, each break a Gaussian on the logit scale.

    $$ y_d = \log\frac{x_d}{\sum_{j>d} x_j} + \log(D - d) \sim \mathcal N(m_d, s_d^2), \qquad d = 1, \dots, D-1 $$

    so that equal shares have y = 0. The density is over the first D-1 shares. As a guide it goes with a `Dirichlet`
    prior or with one of its own kind.

    References:
        Aitchison and Shen, Logistic-Normal Distributions: Some Properties and Uses, 1980.
        Srivastava and Sutton, Autoencoding Variational Inference for Topic Models, 2017,
        https://arxiv.org/abs/1703.01488.

    Args:
        loc: the mean m of each break, (D-1,).
        scale: the standard deviation s of each break, (D-1,), in [1e-4, 100].

    >>> LogisticNormal(0, 1)
    LogisticNormal(loc=0.0, scale=1.0)
    """

    loc: Source = None
    scale: Source = None
    parameters = {
        "loc": Parameter(constraints.real, shape=_per_break, init=_mean_break),
        "scale": Parameter(logit_scale, shape=_per_break, init=_spread_break),
    }
    distribution = StickBreakingNormal
    event_ranks = (1,)
    data_support = constraints.open_simplex
    fix_hint = _FIX_HINT
