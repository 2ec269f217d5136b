"""Densities of normalizing flows as Pyro distributions."""

import functools
from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution
from torch.distributions.constraints import real_vector

if TYPE_CHECKING:
    import zuko


@functools.cache
def import_zuko() -> Any:
    """The module zuko, with the global validation of distributions, which its import disables, restored."""
    before = Distribution._validate_args
    import zuko.flows

    Distribution._validate_args = before
    zuko.distributions.NormalizingFlow._validate_args = False
    return zuko


class FlowDistribution(ZukoToPyro):
    """A flow's density as a Pyro distribution over real vectors."""

    dist: Any
    support = real_vector

    @property
    def event_shape(self) -> torch.Size:
        """Event shape of the base, whose dimension every transform keeps."""
        return self.dist.base.event_shape

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, cached for draws of this distribution."""
        if value not in self.cache:  # a transform with a context wants all of its batch dimensions
            value = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape))
        return super().log_prob(value)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws, whose log density is cached."""
        return self(torch.Size(sample_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws without a gradient."""
        with torch.no_grad():
            return self.dist.sample(torch.Size(sample_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "FlowDistribution":
        """Distribution of that batch shape: the base is expanded, and the transform broadcasts."""
        return FlowDistribution(self.dist.expand(torch.Size(batch_shape)))


class _Unit(AffineTransform):
    """A change of unit of vectors, from a floating type that may be narrower than that of the unit."""

    def __init__(self, loc: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
        super().__init__(loc, scale, event_dim=1)
        self.dtype = dtype

    def _inverse(self, y: Tensor) -> Tensor:
        return super()._inverse(y).to(self.dtype)


class FlowKernel(nn.Module):
    """The weights of a flow: from a location, a scale and a context vector to a distribution."""

    def __init__(self, flow: "zuko.flows.Flow", features: int) -> None:
        super().__init__()
        self.transform, self.features = flow.transform, features

    def forward(self, loc: Tensor, scale: Tensor, context: Tensor | None = None) -> FlowDistribution:
        """Distribution whose batch shape is that of the context, the location and the scale."""
        zuko = import_zuko()
        shapes = (loc.shape[:-1], scale.shape[:-1], () if context is None else context.shape[:-1])
        zeros = torch.zeros_like(loc, dtype=next(self.parameters()).dtype)
        base = dist.Normal(zeros, torch.ones_like(zeros), validate_args=False)
        standardise = _Unit(loc, scale, zeros.dtype).inv
        transform = zuko.transforms.ComposedTransform(standardise, self.transform(context))
        batch = torch.broadcast_shapes(*shapes)
        return FlowDistribution(
            zuko.distributions.NormalizingFlow(transform, base.expand((*batch, self.features)).to_event(1))
        )
