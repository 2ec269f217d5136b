"""Distributions of counts: numbers of successes, and counts with extra zeros."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.wrappers import ExpandMixin


class IntegerUpTo(torch.distributions.constraints.integer_interval):
    """Integers from 0 to a number of trials; empty where that number is not an integer."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is such a count."""
        return super().check(value) & (self.upper_bound % 1 == 0)


class UnexpandedBinomial(ExpandMixin, dist.Binomial):
    """Binomial that keeps its number of trials unexpanded, one for any number of rows."""

    unexpanded = ("given",)

    def __init__(self, total_count: Tensor, logits: Tensor, validate_args: bool | None = None) -> None:
        self.given = total_count
        super().__init__(total_count, logits=logits, validate_args=validate_args)

    @torch.distributions.constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> IntegerUpTo:
        """Integers from 0 to the number of trials."""
        return IntegerUpTo(0, self.given)


class UnexpandedBetaBinomial(ExpandMixin, dist.BetaBinomial):
    """Beta-binomial that keeps its number of trials unexpanded; Pyro's validates its Beta in any case."""

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
    """Zero-inflated distribution without a cached gate: behind a shut one, the density of Pyro's stays -inf."""

    @property
    def gate(self) -> Tensor:
        """The probability of an extra 0."""
        return torch.sigmoid(self.gate_logits)
