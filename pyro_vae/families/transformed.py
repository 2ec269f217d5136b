"""Families pushed through a map: a nonlinear one without parameters, or a change of unit."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import transforms
from torch.distributions.transforms import Transform

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.distributions import constraints
from pyro_vae.distributions.transformed import (
    AffineTransformedDistribution,
    OpenTransformedDistribution,
    UnitTransform,
    affine_constraint,
    is_real,
    match_tensor,
)
from pyro_vae.families.base import Composite, Family, as_nested_floats
from pyro_vae.families.normal import Normal
from pyro_vae.families.site import BoundFamily, ParameterSlot, SiteSpec

TRANSFORMS: dict[str, Transform] = {
    "exp": transforms.ExpTransform(),
    "sigmoid": transforms.SigmoidTransform(),
    "tanh": transforms.TanhTransform(),
    "softplus": transforms.SoftplusTransform(),
}
"""The maps from the real line that `Transformed` knows, by name."""


def _support(bound: BoundFamily) -> Any:
    """Support of one element of a family in its place, whatever its parameters."""
    return constraints.element_of(bound.init_distribution(torch.zeros(0)).support)


@dataclass(frozen=True)
class Transformed(Composite):
    r"""A family over the real numbers, pushed through a map of each element.

    $$ x = T(y), \qquad p(x) = f\big(T^{-1}(x)\big)\; \Big|\frac{d\,T^{-1}(x)}{dx}\Big| $$

    `Transformed(Normal(), "exp")` is `LogNormal`, `Transformed(Normal(), "sigmoid")` is `LogitNormal`; around
    `StudentT` or `MultivariateNormal` they have no other name. Its parameters are those of the family, on the real
    scale, and start from the data mapped there. Of most maps the mean has no closed form, so it has none here.

    References:
        Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference, 2021 [papamakarios2021],
            https://arxiv.org/abs/1912.02762.

    Args:
        family: the family of y, over the real numbers.
        transform: the map T: "exp" and "softplus" onto the positive numbers, "sigmoid" onto (0, 1), "tanh" onto
            (-1, 1).

    Raises:
        InputError: an unknown map, or a family over other than the real numbers.

    >>> Transformed(Normal(0, 1), "softplus")
    Transformed(family=Normal(loc=0.0, scale=1.0), transform='softplus')
    """

    family: Family = Normal()
    transform: str = field("exp", known=TRANSFORMS)
    support_text = "positive numbers by default"

    @property
    def data_support(self) -> Any:
        """The numbers that the map reaches, without the ends that it does not."""
        image: Any = TRANSFORMS[self.transform].codomain
        return (
            constraints.OpenInterval(image.lower_bound, image.upper_bound) if hasattr(image, "upper_bound") else image
        )

    @property
    def fix_hint(self) -> str:
        """Advice for data outside of the image of the map."""
        if hasattr(TRANSFORMS[self.transform].codomain, "upper_bound"):
            return (
                "squeeze N rows away from the ends of an interval [a, b], x = a + ((x - a) * (N - 1) + (b - a) / 2) / N"
            )
        return "add an offset to zeros, or let them have a probability of their own: Censored(low=0)"

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, its parameters initialised on the real scale, its distribution mapped."""
        inner, transform = self.family.bind(site), TRANSFORMS[self.transform]
        slots = {
            name: replace(slot, init=slot.init and partial(_before, transform, slot.init))
            for name, slot in self.slots_of(inner, _log_unit).items()
        }
        if not is_real(support := _support(inner)):
            raise InputError(
                f"{site.role}: {self!r} maps {constraints.describe(support)}, and {self.transform} wants the real "
                "numbers: take a family over these, such as Normal(), or Scaled for a change of unit."
            )
        distribution, group = partial(_push, inner, transform), inner.group and "scale"
        if self.transform == "exp":
            return BoundFamily(slots, distribution, group)
        slots = {name: replace(slot, motion=None) for name, slot in slots.items()}
        is_fixed = any(isinstance(slot.source, float | tuple) for slot in slots.values())
        if self.transform == "softplus" and not is_fixed:
            return BoundFamily(slots, distribution, "scale", is_moved_whole=True)
        return BoundFamily(slots, distribution)


def _log_unit(shift: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and unit of log x, which a change of the unit of x moves."""
    return unit.log(), torch.ones_like(unit)


def _push(inner: BoundFamily, transform: Transform, **values: Tensor) -> OpenTransformedDistribution:
    return OpenTransformedDistribution(inner.distribution(**values), transform, validate_args=False)


def _before(transform: Transform, start: Any, x: Tensor) -> Any:
    return start(transform.inv(x))


@dataclass(frozen=True)
class Scaled(Composite):
    r"""A family in another unit: the same draws, moved and stretched by fixed numbers.

    $$ x = a + b\,y, \qquad p(x) = \frac{1}{b}\, f\Big(\frac{x - a}{b}\Big), \qquad b > 0 $$

    `Scaled(Beta(), loc=0, scale=10)` describes grades from 0 to 10. The parameters are those of the family, in its
    own unit, and its support moves along; the density has the Jacobian 1/b and is on the data's own scale.

    References:
        Casella and Berger, Statistical Inference, 2002 [casella2002] (location and scale families).

    Args:
        family: the continuous family of y.
        loc: where its 0 goes, a: a number, or an array of the event's shape, in the data's unit.
        scale: its unit, b > 0: a number, or an array of the event's shape, in the data's unit.

    Raises:
        InputError: a unit that is not positive or does not fit the event, or a family that is discrete or whose
            elements depend on each other by their support (a simplex).

    >>> Scaled(Normal(), loc=20, scale=[5, 0.1])
    Scaled(family=Normal(loc=None, scale=None), loc=20.0, scale=(5.0, 0.1))
    """

    family: Family = Normal()
    loc: float | tuple[Any, ...] = 0.0
    scale: float | tuple[Any, ...] = 1.0
    fix_hint = "choose loc and scale so that (x - loc) / scale lies where the family does, with data within its ends"

    def check_field(self, name: str, where: str, hint: Any, value: Any) -> Any:
        """Canonical form of a unit, like that of a fixed parameter."""
        if name == "family":
            return super().check_field(name, where, hint, value)
        try:
            numbers = as_nested_floats(where, value)
        except InputError:
            raise InputError(f"{where} = {value!r} is not a unit: write a finite number, or a list of them.") from None
        if name == "scale" and not bool((torch.tensor(numbers, dtype=torch.float64) > 0).all()):
            raise InputError(f"{where} = {numbers!r} has to be positive: it is the size of a unit.")
        return numbers

    @property
    def data_support(self) -> Any:
        """Data support of the family, in the new unit."""
        loc, scale = (n if isinstance(n, float) else torch.tensor(n) for n in (self.loc, self.scale))
        return None if self.family.data_support is None else affine_constraint(self.family.data_support, loc, scale)

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, its parameters initialised in its own unit, its distribution rescaled."""
        inner = self.family.bind(site)
        unit = {"unit_loc": self._unit("loc", site), "unit_scale": self._unit("scale", site)}
        slots = self.slots_of(inner, self._own_unit)
        if inner.group is None:
            slots = {
                name: replace(slot, init=slot.init and partial(self._start, slot.init)) for name, slot in slots.items()
            }
        if not unit.keys().isdisjoint(slots):
            raise InputError(f"{site.role}: {self!r} changes the unit twice: write one Scaled of the product.")
        support = _support(inner)
        if support.is_discrete or support.event_dim:
            raise InputError(
                f"{site.role}: {self.family!r} describes {constraints.describe(support)}, which have no other unit: "
                "take that family alone, or one of real numbers, such as Scaled(Normal())."
            )
        own_unit = (self.loc, self.scale) if inner.group else (0.0, 1.0)
        return BoundFamily({**slots, **unit}, partial(_rescale, inner), inner.group, own_unit)

    def _unit(self, name: str, site: SiteSpec) -> ParameterSlot:
        """A fixed slot, so that it follows the device and the floating type."""
        value, event = getattr(self, name), site.event_shape
        shape = tuple(torch.tensor(value).shape)
        pairs = zip(shape[::-1], event[::-1], strict=False)
        if len(shape) > len(event) or any(size not in (1, full) for size, full in pairs):
            raise InputError(f"{site.role}: Scaled.{name} has shape {shape}, which does not broadcast to {event}.")
        return ParameterSlot(constraints.real, event, value, broadcasts=True)

    def _own_unit(self, shift: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        scale = match_tensor(self.scale, unit)
        return (shift - match_tensor(self.loc, shift)) / scale, unit / scale

    def _start(self, start: Any, x: Tensor) -> Any:
        return start((x - match_tensor(self.loc, x)) / match_tensor(self.scale, x))


def _rescale(
    inner: BoundFamily, unit_loc: Tensor, unit_scale: Tensor, **values: Tensor
) -> AffineTransformedDistribution:
    base = inner.distribution(**values)
    return AffineTransformedDistribution(base, UnitTransform(unit_loc, unit_scale, base.support), validate_args=False)
