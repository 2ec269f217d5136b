"""The place a family is used in, and what it becomes there.

A family in its place is a set of slots, one per parameter, and a distribution of their values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import transform_to
from torch.distributions.constraints import Constraint

from pyro_vae.families.units import Group, Motion
from pyro_vae.networks.base import Network

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class SiteSpec:
    """The place a family is used in, and what it may need to know of it.

    Args:
        role: "prior", "likelihood" or "guide", for messages.
        event_shape: shape of one draw, without N.
        context_shape: shape of what the draw depends on, without N; None where there is none.
        network: what computes parameters from the context, as declared or as the user's own module.
        inputs: prepares the context for the network; None where that takes it as it is.
        guide: for a prior that depends on the model (VampPrior): the conditional of q(z|x).
        data_shape: likewise: the shape of one datum.
    """

    role: str
    event_shape: Shape
    context_shape: Shape | None = None
    network: Network | nn.Module | None = None
    inputs: nn.Module | None = None
    guide: nn.Module | None = None
    data_shape: Shape | None = None


@dataclass(frozen=True)
class ParameterSlot:
    """A parameter in its place.

    Args:
        constraint: the values it may take.
        shape: its shape.
        source: where its value comes from; see `pyro_vae.families.Source`.
        init: its value before training, of that shape, from rows of data; None to start from a raw zero.
        scales_with_size_factor: whether a row's size factor multiplies it.
        broadcasts: whether the distribution takes one number for all elements as it is.
        init_noise: standard deviation of the noise that a trained constant starts with, on the raw scale, so that what
            would be exchangeable (the components of a mixture) is not alike.
        raw_spread: how far, on the raw scale, it moves by one unit of the network's output, from rows of data; None
            for 1.
        motion: how it moves with the unit of the data; None where it has no unit, or is fixed in the user's.
    """

    constraint: Constraint
    shape: Shape
    source: Any
    init: Callable[[Tensor], Tensor] | None = None
    scales_with_size_factor: bool = False
    broadcasts: bool = False
    init_noise: float = 0.0
    raw_spread: Callable[[Tensor], Tensor] | None = None
    motion: Motion | None = None

    def init_value(self, x: Tensor) -> Tensor:
        """Value before training, of the parameter's shape: fixed, from rows of data, or that of a raw zero.

        Args:
            x: rows (N, *event_shape); with N = 0, starting values that follow from data are those of raw zeros.
        """
        if isinstance(self.source, float | tuple):
            fixed = torch.tensor(self.source, dtype=x.dtype, device=x.device)
            return fixed.expand(torch.broadcast_shapes(fixed.shape, self.shape))
        if self.init is not None and len(x):
            return self.init(x)
        transform = transform_to(self.constraint)
        return transform(x.new_zeros(transform.inverse_shape(self.shape)))


@dataclass(frozen=True)
class BoundFamily:
    """A family in its place: its slots, and the distribution of their values.

    Args:
        slots: every parameter by name, those of a composite's parts included.
        distribution: called with the values by name; where it is a module, its weights are trained too.
        group: the changes of unit under which it is closed, with which its parameters move.
        own_unit: shift and unit under which its parameters are in the user's unit; the shift is what keeps its place
            where a change of unit has none.
        is_moved_whole: whether the distribution itself is moved, by an affine map, and no parameter.
    """

    slots: Mapping[str, ParameterSlot]
    distribution: Callable[..., Any]
    group: Group = None
    own_unit: tuple[Any, Any] = (0.0, 1.0)
    is_moved_whole: bool = False

    def init_distribution(self, x: Tensor) -> Any:
        """Distribution before training; see `ParameterSlot.init_value`."""
        return self.distribution(**{name: slot.init_value(x) for name, slot in self.slots.items()})
