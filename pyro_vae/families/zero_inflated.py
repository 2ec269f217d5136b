"""More zeros than a family of counts explains."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.distributions import constraints
from pyro_vae.distributions.counts import UncachedZeroInflated
from pyro_vae.families.base import Composite, Family, Source, parameter
from pyro_vae.families.counts import NegativeBinomial
from pyro_vae.families.site import BoundFamily, SiteSpec


def _excess(x: Tensor, family: "ZeroInflated") -> Tensor:
    """Starting log odds of an extra 0, from the zeros that the family does not expect."""
    bound = family.family.bind(SiteSpec("likelihood", tuple(x.shape[1:])))
    expected = bound.init_distribution(x).log_prob(torch.zeros_like(x[0])).exp()
    gate = ((x == 0).to(x).mean(0) - expected) / (1 - expected)
    # A family certain of 0 leaves 0/0; and a modest gate, for the family starts at a mean that has all zeros in it.
    return torch.logit(gate.nan_to_num(0, 0, 0).clamp(0.01, 0.5))


@dataclass(frozen=True)
class ZeroInflated(Composite):
    r"""A family of counts with extra zeros: each element is 0 with probability g, and else a draw of the family.

    $$ p(x) = \prod_j g_j\,[x_j = 0] + (1 - g_j)\,f(x_j), \qquad g_j = \sigma(l_j) $$

    The mean is that of f times 1 - g. Compare it with the family alone before believing in a gate: the zeros of
    `NegativeBinomial` are often enough.

    References:
        Lambert, Zero-Inflated Poisson Regression, with an Application to Defects in Manufacturing, 1992 [lambert1992].
            Svensson, Droplet scRNA-seq is not zero-inflated, 2020 [svensson2020],
            https://doi.org/10.1038/s41587-019-0379-5.

    Args:
        family: the family f, of independent integers with 0 among them.
        gate_logits: the log odds l of an extra 0, of the event's shape.

    Raises:
        InputError: the family is continuous, cannot be 0, or has elements that depend on each other.

    >>> ZeroInflated(NegativeBinomial(), gate_logits="per_feature")
    ZeroInflated(family=NegativeBinomial(mean=None, dispersion=None), gate_logits='per_feature')
    """

    family: Family = NegativeBinomial()
    gate_logits: Source = parameter(constraints.real, init=_excess)
    distribution = UncachedZeroInflated
    roles = ("likelihood",)
    support_text = "integers 0, 1, ... by default"

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = _objection(self.family)
        if wrong:
            raise InputError(
                f"ZeroInflated.family = {self.family!r} {wrong}: take a family of counts, such as "
                "ZeroInflated(pv.Poisson()), or the family as it is."
            )

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, with the gate before it."""
        inner = self.family.bind(site)

        def gated(gate_logits: Tensor, **values: Tensor) -> UncachedZeroInflated:
            counts = inner.distribution(**values)
            return UncachedZeroInflated(counts, gate_logits=gate_logits, validate_args=False)

        return BoundFamily({**self.own_slots(site), **self.slots_of(inner)}, gated)


def _objection(family: Family) -> str:
    """Reason why a family cannot have extra zeros; empty where it can."""
    together = "has elements that depend on each other, and each has a gate of its own"
    if family.event_ranks is not None:
        return together
    distribution = family.bind(SiteSpec("likelihood", (1,))).init_distribution(torch.zeros(0, 1))
    if distribution.event_shape:
        return together
    if not distribution.support.is_discrete:
        return "is continuous, so that an exact 0 is a point mass and no part of a density"
    if not bool(distribution.support.check(torch.zeros(())).all()):
        return "cannot be 0"
    return ""
