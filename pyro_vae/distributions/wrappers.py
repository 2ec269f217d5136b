"""Functions of any distribution: its innermost one, its name, and itself with some elements masked."""

from typing import Any, ClassVar

import torch
from pyro.distributions import Independent, MaskedDistribution, MixtureSameFamily, TorchDistribution
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.distributions.constraints import any_element


def unwrap(distribution: Any) -> Any:
    """Innermost distribution, inside of all wrappers: `Independent`, masks, transforms."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def distribution_name(distribution: Any) -> str:
    """Name of a distribution in Pyro or torch, for messages.

    >>> import pyro.distributions as dist
    >>> distribution_name(dist.Normal(torch.zeros(2), 1.0).to_event(1))
    'Normal'
    """
    kinds = type(unwrap(distribution)).__mro__
    return next(kind.__name__ for kind in kinds if kind.__module__.startswith(("pyro.", "torch.")))


class ExpandMixin:
    """Mixin that expands a distribution as its base class does, which refuses subclasses with their own constructor."""

    unexpanded: ClassVar[tuple[str, ...]] = ()
    """Attributes that broadcast to any batch shape, and are kept as they are."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Distribution of that batch shape."""
        expanded = super().expand(batch_shape, _instance or self.__new__(type(self)))  # type: ignore[misc]
        for name in self.unexpanded:
            setattr(expanded, name, getattr(self, name))
        return expanded


class _Observed(MaskedDistribution):
    """A masked distribution in which unobserved values, NaN included, affect neither density nor gradient."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each element, 0 where it is not observed."""
        known = torch.where(torch.as_tensor(self._mask), value, any_element(self.base_dist.support))
        return super().log_prob(known)


def mask_elements(distribution: TorchDistribution, mask: Tensor) -> TorchDistribution:
    """Distribution whose density leaves out the unobserved elements of an event.

    Args:
        distribution: one whose elements are independent, given a mixture's component if it is a mixture; its batch
            shape ends with the event's where these elements are its batch.
        mask: true where an element is observed; it broadcasts to batch and event shape.

    Raises:
        InputError: the elements depend on each other.

    >>> import pyro.distributions as dist
    >>> part = mask_elements(dist.Normal(torch.zeros(2), 1.0).to_event(1), torch.tensor([True, False]))
    >>> bool(part.log_prob(torch.tensor([0.0, torch.nan])) == dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0)))
    True
    """
    if isinstance(distribution, Independent):
        rank = distribution.reinterpreted_batch_ndims
        return mask_elements(distribution.base_dist, mask).to_event(rank)
    if isinstance(distribution, MixtureSameFamily):
        component = mask_elements(
            distribution.component_distribution, mask.unsqueeze(-1 - len(distribution.event_shape))
        )
        return MixtureSameFamily(distribution.mixture_distribution, component, validate_args=False)
    if distribution.event_shape:
        raise InputError(
            f"{type(distribution).__name__} takes no mask: its elements depend on each other, so that one cannot be "
            "left out. Take a family with independent elements, such as pv.Normal(), or drop the incomplete rows."
        )
    return _Observed(distribution, mask)


def expand_right(values: Tensor, rank: int) -> Tensor:
    """One value per row, with as many trailing dimensions of size 1 as an event has."""
    return values.reshape(*values.shape, *[1] * rank)
