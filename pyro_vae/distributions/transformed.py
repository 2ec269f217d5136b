"""Transformed distributions whose draws lie in their support, and changes of unit."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    biject_to,
    constraints as torch_constraints,
    transform_to,
)

from pyro_vae.distributions import constraints


class AffineConstraint(torch_constraints.Constraint):
    """A set of numbers in another unit, loc + scale * base."""

    def __init__(self, base: Any, loc: Any, scale: Any) -> None:
        self.base, self.loc, self.scale = base, loc, scale
        for end in ("lower_bound", "upper_bound"):
            if hasattr(base, end):
                setattr(self, end, loc + scale * getattr(base, end))

    def __repr__(self) -> str:
        return f"{self.loc} + {self.scale} * {self.base!r}"

    def check(self, value: Tensor) -> Tensor:
        """Whether each value, in the unit of the base, lies in it."""
        return self.base.check((value - match_tensor(self.loc, value)) / match_tensor(self.scale, value))


for _registry in (biject_to, transform_to):
    _registry.register(
        AffineConstraint,
        lambda moved: ComposeTransform([biject_to(moved.base), AffineTransform(moved.loc, moved.scale)]),
    )


class UnitTransform(AffineTransform):
    """A change of unit, whose inverse never rounds to an end of what it came from."""

    def __init__(self, loc: Any, scale: Any, base: Any) -> None:
        super().__init__(loc, scale)
        self.base = base

    def _inverse(self, y: Tensor) -> Tensor:
        return clamp_inside((y - self.loc) / self.scale, self.base)


class OpenTransformedDistribution(dist.TransformedDistribution):
    """A transformed distribution whose draws lie in its support though floating numbers round to its ends."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws with a gradient, away from the ends."""
        return clamp_inside(super().rsample(torch.Size(sample_shape)), self.support)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws, away from the ends."""
        return clamp_inside(super().sample(torch.Size(sample_shape)), self.support)


class AffineTransformedDistribution(OpenTransformedDistribution):
    """A distribution in another unit."""

    @property
    def unit(self) -> UnitTransform:
        """The change of unit."""
        return self.transforms[0]

    @property
    def support(self) -> Any:
        """The support of the base distribution, in the new unit."""
        return affine_constraint(self.base_dist.support, self.unit.loc, self.unit.scale)

    @property
    def mean(self) -> Tensor:
        """The mean, in the new unit."""
        return self.unit.loc + self.unit.scale * self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        """The variance, in the new unit."""
        return self.unit.scale**2 * self.base_dist.variance


def is_real(constraint: Any) -> bool:
    """Whether each element of a support is any real number."""
    return constraints.element_of(constraint) is torch_constraints.real


def affine_constraint(constraint: Any, loc: Any, scale: Any) -> Any:
    """A set of numbers in another unit; the real numbers are the same in all."""
    return constraint if is_real(constraint) else AffineConstraint(constraint, loc, scale)


def clamp_inside(x: Tensor, support: Any) -> Tensor:
    """Numbers, those at an end of a set moved inside by what their floating type resolves."""
    support = constraints.element_of(support)
    precision, about = torch.finfo(x.dtype), abs(getattr(support, "loc", 0.0))
    if hasattr(support, "lower_bound"):
        low = support.lower_bound
        x = x.clamp(min=low + (precision.eps * (abs(low) + about) + precision.tiny))
    if hasattr(support, "upper_bound"):
        high = support.upper_bound
        return x.clamp(max=high - (precision.eps * (abs(high) + about) + precision.tiny))
    return x.clamp(max=precision.max)


def match_tensor(number: Any, value: Tensor) -> Any:
    """A number or array in the floating type and on the device of a tensor; a float as it is."""
    return number if isinstance(number, float) else torch.as_tensor(number, dtype=value.dtype, device=value.device)
