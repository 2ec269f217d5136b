"""Distributions of counts: numbers of successes, and counts with extra zeros."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.wrappers import ExpandMixin


class IntegerUpTo(torch.distributions.constraints.integer_interval):
    """Whole numbers from 0 to a number of trials; empty where that number is not whole."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is such a count."""
        return super().check(value) & (self.upper_bound % 1 == 0)


class UnexpandedBinomial(ExpandMixin, dist.Binomial):
    """The binomial that knows its number of trials as it was given, one for any number of rows."""

    unexpanded = ("given",)

    def __init__(self, total_count: Tensor, logits: Tensor, validate_args: bool | None = None) -> None:
        self.given = total_count
        super().__init__(total_count, logits=logits, validate_args=validate_args)

    @torch.distributions.constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> IntegerUpTo:
        """The numbers of successes that can be."""
        return IntegerUpTo(0, self.given)


class UnexpandedBetaBinomial(ExpandMixin, dist.BetaBinomial):
    """The beta-binomial that knows its number of trials as it was given; Pyro's validates its Beta in any case."""

    unexpanded = ("given",)
    support = UnexpandedBinomial.support

    def __init__(
        self, total_count: Tensor, concentration1: Tensor, concentration0: Tensor, validate_args: bool | None = None
    ) -> None:
        self.given = total_count
        first, second, self.total_count = broadcast_all(concentration1, concentration0, total_count)
        self._beta = dist.Beta(first, second, validate_args=validate_args)
        torch.distributions.Distribution.__init__(self, first.shape, validate_args=validate_args)


class UncachedZeroInflated(dist.ZeroInflatedDistribution):
    """Pyro's, whose gate is not kept once computed: from then on its density would be -inf behind a shut gate."""

    @property
    def gate(self) -> Tensor:
        """The probability of an extra 0."""
        return torch.sigmoid(self.gate_logits)
