"""Families of binary events."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pyro_vae.distributions import constraints
from pyro_vae.distributions.bernoulli import FusedBernoulli, GreyBernoulli
from pyro_vae.families.base import Family, Parameter, Source
from pyro_vae.families.site import BoundFamily, SiteSpec


def _log_odds(x: Tensor, family: Family) -> Tensor:
    share = (x.sum(0) + 0.5) / (x.shape[0] + 1)
    return torch.logit(share)


@dataclass(frozen=True)
class Bernoulli(Family):
    r"""Independent binary elements.

    $$ p(x) = \prod_j \sigma(l_j)^{x_j}\,(1 - \sigma(l_j))^{1 - x_j}, \qquad x_j \in \{0, 1\} $$

    Grey values between 0 and 1 are refused, for under them the formula does not integrate to one and its
    "likelihood" compares with nothing; `ContinuousBernoulli` is their density. `grey=True` computes it all the same, as
    much published code does, and every report then states it.

    References:
        Loaiza-Ganem and Cunningham, The continuous Bernoulli: fixing a pervasive error in variational
        autoencoders, 2019, https://arxiv.org/abs/1907.06845.

    Args:
        logits: the log odds l of a one, of the event's shape.
        grey: whether values between 0 and 1 are let in, as a cross-entropy that is not a density.

    >>> Bernoulli(logits=0)
    Bernoulli(logits=0.0, grey=False)
    """

    logits: Source = None
    grey: bool = False
    parameters = {"logits": Parameter(constraints.real, init=_log_odds)}
    fix_hint = (
        "take their density, ContinuousBernoulli(), binarise the data (pv.data.load(..., binarize='dynamic'), on the "
        "command line --binarize dynamic), take a family for real values such as Normal(scale='learned'), or accept a "
        "cross-entropy that is not a density: Bernoulli(grey=True)"
    )
    roles = ("likelihood",)
    data_kind = "Categories"
    support_text = "0 and 1"

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, with the support that `grey` selects."""
        kind = GreyBernoulli if self.grey else FusedBernoulli
        return BoundFamily(self.own_slots(site), partial(kind, validate_args=False))

    @property
    def caveat(self) -> str:
        """Grey values make the log-likelihood a cross-entropy."""
        return "Bernoulli(grey=True) on values in [0, 1] is a cross-entropy, not a density" if self.grey else ""
