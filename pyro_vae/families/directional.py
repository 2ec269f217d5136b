"""Families on the circle: directions, phases, times of day."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.distributions import constraints
from pyro_vae.distributions.von_mises import StableVonMises
from pyro_vae.families.base import Family, Source, parameter


def _resultant(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.sin().mean(0), x.cos().mean(0)


def _concentration(x: Tensor, family: Family) -> Tensor:
    """Concentration with that mean resultant length, by Newton's steps from Banerjee's formula."""
    length = torch.hypot(*_resultant(x)).clamp(0.01, 0.99)
    kappa = length * (2 - length.square()) / (1 - length.square())
    for _ in range(5):
        ratio = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        kappa = kappa - (ratio - length) / (1 - ratio.square() - ratio / kappa)
    return kappa


@dataclass(frozen=True)
class VonMises(Family):
    r"""The Gaussian of the circle, with independent elements.

    $$ p(x) = \prod_j \frac{\exp(k_j \cos(x_j - m_j))}{2\pi I_0(k_j)}, \qquad x_j \in [-\pi, \pi] $$

    It is a likelihood: its sampler rejects, so that it cannot be a guide.

    References:
        Mardia and Jupp, Directional Statistics, 2000 [mardia2000].
        Banerjee, Dhillon, Ghosh and Sra, Clustering on the Unit Hypersphere using von Mises-Fisher Distributions, 2005
            [banerjee2005].

    Args:
        loc: the mean direction m, of the event's shape, in radians, modulo a turn.
        concentration: k, of the event's shape, in [1e-4, 1e6]; about 1 / variance in radians where it is high.

    >>> VonMises(concentration="learned")
    VonMises(loc=None, concentration='learned')
    """

    loc: Source = parameter(constraints.real, init=lambda x, _: torch.atan2(*_resultant(x)))
    concentration: Source = parameter(constraints.positive, init=_concentration)
    distribution = StableVonMises
    fix_hint = (
        "give angles in radians between -pi and pi: wrap them with torch.atan2(x.sin(), x.cos()), after "
        "torch.deg2rad(x) where they are degrees"
    )
    roles = ("likelihood",)
    data_kind = "Angles"
    support_text = "angles in [-pi, pi]"
