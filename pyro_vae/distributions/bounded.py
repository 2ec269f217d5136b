"""Location-scale distributions truncated or censored at bounds."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import biject_to, constraints as torch_constraints, transform_to
from torch.distributions.utils import broadcast_all, clamp_probs

from pyro_vae.distributions.tails import CAUCHY, NORMAL, UNBOUNDED, Interval, Standard


class LessThanEq(torch_constraints.less_than):
    """Numbers up to a bound, that bound included."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is no more than the bound."""
        return value <= self.upper_bound


for _registry in (biject_to, transform_to):
    _registry.register(LessThanEq, lambda constraint: biject_to(torch_constraints.less_than(constraint.upper_bound)))


class BoundedDistribution(dist.TorchDistribution):
    """Base of location-scale distributions with a lower bound, an upper bound or both."""

    arg_constraints: dict[str, Any] = {}

    def __init__(
        self,
        standard: Standard,
        low: float | None,
        high: float | None,
        uncut: Callable[..., Any],
        *,
        loc: Tensor,
        scale: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        self.standard, self.uncut = standard, uncut
        self.low: Any = low
        self.high: Any = high
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Closed interval between the bounds."""
        if self.low is None:
            return LessThanEq(self.high)
        if self.high is None:
            return torch_constraints.greater_than_eq(self.low)
        return torch_constraints.interval(self.low, self.high)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "BoundedDistribution":
        """Distribution of that batch shape."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return type(self)(self.standard, self.low, self.high, self.uncut, loc=loc, scale=scale, validate_args=False)


class TruncatedDistribution(BoundedDistribution):
    """A location-scale distribution, given that the draw lies between the bounds."""

    has_rsample = True

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, relative to its peak between the bounds; -inf beyond them."""
        interval, sign, bound = self._orient()
        inward = torch.where(interval.high > 0, self.loc - value, bound - value) * sign / self.scale
        density = self.standard.log_density(interval.top, inward)
        log_prob = density - self.standard.log_mass(interval) - torch.log(self.scale)
        return log_prob.where(self.support.check(value), -torch.inf)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws by the inverse of the cdf, with a gradient to location and scale."""
        interval, sign, bound = self._orient()
        shape = self._extended_shape(torch.Size(sample_shape))
        share = clamp_probs(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device))
        inward = self.standard.quantile(interval, share)
        draw = torch.where(interval.high > 0, self.loc, bound) - sign * self.scale * inward
        return draw.clamp(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """Mean in closed form, for a Gaussian."""
        if self.standard is not NORMAL:
            raise NotImplementedError
        interval, sign, _ = self._orient()
        top, density = interval.top, self.standard.log_density
        lower, upper = density(top, top - interval.low), density(top, top - interval.high)
        centre = (torch.expm1(lower) - torch.expm1(upper)) / self.standard.log_mass(interval).exp()
        return (self.loc + sign * self.scale * centre).clamp(self.low, self.high)

    def _orient(self) -> tuple[Interval, Tensor, Tensor]:
        """The interval, its middle not positive, the sign that turns it, and the bound that becomes its high end."""
        if None in (self.low, self.high):
            bound = torch.full_like(self.loc, self.high if self.low is None else self.low)
            sign = torch.full_like(self.loc, 1 if self.low is None else -1)
            end = sign * (bound - self.loc) / self.scale
            return Interval(end - UNBOUNDED, end, torch.full_like(end, UNBOUNDED)), sign, bound
        low, high = ((end - self.loc) / self.scale for end in (self.low, self.high))
        turn = low + high > 0
        bound = torch.where(turn, torch.full_like(self.loc, self.low), torch.full_like(self.loc, self.high))
        ends = torch.where(turn, -high, low), torch.where(turn, -low, high)
        return Interval(*ends, (self.high - self.low) / self.scale), torch.where(turn, -1.0, 1.0).to(self.loc), bound


class CensoredDistribution(BoundedDistribution):
    """A location-scale distribution whose draws beyond a bound are recorded as that bound."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density between the bounds, the log mass at them, and -inf beyond."""
        log_prob: Tensor = self.uncut(loc=self.loc, scale=self.scale).log_prob(value)
        for bound, sign in ((self.low, 1), (self.high, -1)):
            if bound is not None:
                mass = self.standard.log_cdf(sign * (bound - self.loc) / self.scale)
                log_prob = torch.where(value == bound, mass, log_prob)
        return log_prob.where(self.support.check(value), -torch.inf)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws, clamped to the bounds."""
        with torch.no_grad():
            draw: Tensor = self.uncut(loc=self.loc, scale=self.scale).sample(torch.Size(sample_shape))
        return draw.clamp(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """The mean of censored draws, in closed form."""
        if self.standard is CAUCHY and None in (self.low, self.high):  # the tail that is left has none
            raise NotImplementedError
        beyond = self.standard.overshoot
        if self.low is None:
            mean = self.high - self.scale * beyond((self.high - self.loc) / self.scale)
        else:
            mean = self.low + self.scale * beyond((self.loc - self.low) / self.scale)
            if self.high is not None:
                mean = mean - self.scale * beyond((self.loc - self.high) / self.scale)
        return mean.clamp(self.low, self.high)
