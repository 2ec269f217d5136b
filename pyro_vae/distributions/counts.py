"""Distributions of counts, exact at any size: events, numbers of successes, and counts with extra zeros."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.stirling import (
    LOG_ROOT_TAU,
    deviance,
    log_beta,
    log_gamma_ratio,
    log_quotient,
    stirling_error,
)
from pyro_vae.distributions.wrappers import ExpandMixin


class IntegerUpTo(torch.distributions.constraints.integer_interval):
    """Integers from 0 to a number of trials; empty where that number is not an integer."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is such a count."""
        return super().check(value) & (self.upper_bound % 1 == 0)


class ExactPoisson(dist.Poisson):
    """Poisson whose log-probabilities are exact for large counts."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each count, (*batch_shape)."""
        rate, x = torch.broadcast_tensors(self.rate, value)
        some = x.clamp(min=1)
        positive = -deviance(some, rate, rate.log()) - 0.5 * some.log() - LOG_ROOT_TAU - stirling_error(some)
        return torch.where(x > 0, positive, -rate)


class ExactNegativeBinomial(ExpandMixin, dist.NegativeBinomial):
    r"""Negative binomial of mean m and dispersion a, whose log-probabilities are exact for large counts.

    With r = 1/a, y = x + r and s = m + r the terms of size $y \log y$ cancel to

    $$ \log p(x) = r \log(y / s) + r - x \log(1 + r / m) - \log(y) + \tfrac12 \log r - \tfrac12 \log 2\pi - \delta(r)
       + R(x + 1, r - 1). $$
    """

    unexpanded = ("given_mean", "dispersion")

    def __init__(self, mean: Tensor, dispersion: Tensor, validate_args: bool | None = None) -> None:
        self.given_mean, self.dispersion = broadcast_all(mean, dispersion)
        odds = torch.log(self.given_mean * self.dispersion)
        super().__init__(1 / self.dispersion, logits=odds, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each count, (*batch_shape)."""
        mean, r = self.given_mean, 1 / self.dispersion
        of_r = r + 0.5 * r.log() - LOG_ROOT_TAU - stirling_error(r)
        y = value + r
        bulk = r * log_quotient(y, mean + r, value - mean) - value * torch.log1p(r / mean) - y.log()
        positive = bulk + of_r + log_gamma_ratio(value + 1, r - 1)
        return torch.where(value > 0, positive, -r * torch.log1p(mean / r))


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

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each number of successes, (*batch_shape)."""
        n, logits, x = torch.broadcast_tensors(self.given, self.logits, value)
        inside = (x > 0) & (x < n)
        some = torch.where(inside, x, torch.ones_like(x))
        trials = torch.where(inside, n, torch.full_like(n, 2.0))
        rest = trials - some
        off = self._deviance(some, trials, logits) + self._deviance(rest, trials, -logits)
        scale = 0.5 * torch.log(trials / some / rest) - LOG_ROOT_TAU
        between = scale - off + stirling_error(trials) - stirling_error(some) - stirling_error(rest)
        return torch.where(inside, between, n * logsigmoid(torch.where(x > 0, logits, -logits)))

    @staticmethod
    def _deviance(x: Tensor, trials: Tensor, logits: Tensor) -> Tensor:
        return deviance(x, trials * torch.sigmoid(logits), trials.log() + logsigmoid(logits))


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

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each number of successes, (*batch_shape)."""
        a, b, n = self.concentration1, self.concentration0, self.given
        total, rest = n + a + b, n - value
        shares = (a - 1) * torch.log((value + a) / total) + (b - 1) * torch.log((rest + b) / total) - total.log()
        ratios = log_gamma_ratio(value + 1, a - 1) + log_gamma_ratio(rest + 1, b - 1)
        return shares + ratios - log_gamma_ratio(n + 1, a + b - 1) - log_beta(a, b)


class UncachedZeroInflated(dist.ZeroInflatedDistribution):
    """Zero-inflated distribution without a cached gate: behind a shut one, the density of Pyro's stays -inf."""

    @property
    def gate(self) -> Tensor:
        """The probability of an extra 0."""
        return torch.sigmoid(self.gate_logits)
