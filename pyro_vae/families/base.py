"""A family names a distribution and declares its parameters as data.

The same family serves as a prior p(z), a likelihood p(x|z) and a guide q(z|x). What a parameter *is* in a
given place follows from one rule (`Source`), and the map from what a network emits to a legal value follows
from the parameter's constraint. `pyro_vae.families.conditional` turns both into a module; nothing here computes.
"""

import dataclasses
import math
import operator
from abc import ABC
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.distributions import constraints
from pyro_vae.families.site import BoundFamily, ParameterSlot, Shape, SiteSpec
from pyro_vae.families.units import Motion, View, group_of

Source: TypeAlias = float | tuple[Any, ...] | Literal["learned", "per_feature"] | None
"""Where a parameter comes from.

| written | the parameter is |
|---|---|
| a number, or a nested list of numbers | fixed |
| `"learned"` | one trained constant |
| `"per_feature"` | one trained constant per element of the event |
| nothing | computed from the context by the network; without a context (a prior), `"per_feature"` |
"""


def event_shaped(event: Shape, family: "Family") -> Shape:
    """Shape of a parameter with one number per element of the event."""
    return event


@dataclass(frozen=True)
class Parameter:
    """One parameter of a family.

    Args:
        constraint: the values it may take.
        shape: its shape, from the event shape and the family.
        init: its value before training, of that shape, from data rows `x` of shape (N, *event); without
            it, or without data, the value the constraint gives to a raw zero.
        allows_scalar: whether `"learned"`, one value for all elements, has a meaning.
        scales_with_size_factor: whether a row's size factor multiplies it: a rate, a number of trials.
        init_noise: standard deviation of the noise, on the raw scale, that its trained constants start with.
        raw_spread: how far, on the raw scale, it moves by one unit of what a network computes, of its shape, from data
            rows; 1 without it.
        unit: how it moves with the unit of the data, a key of `pyro_vae.families.units.MOVES`; None without a unit.
    """

    constraint: Constraint
    shape: Callable[[Shape, Any], Shape] = event_shaped
    init: Callable[[Tensor, Any], Tensor] | None = None
    allows_scalar: bool = True
    scales_with_size_factor: bool = False
    init_noise: float = 0.0
    raw_spread: Callable[[Tensor, Any], Tensor] | None = None
    unit: str | None = None

    @property
    def of_fixed_numbers(self) -> Constraint:
        """Constraint of numbers that a user fixes: bounds that are relative to the data's unit do not apply to them."""
        return self.constraint if self.unit is None else constraints.unbounded(self.constraint)

    @property
    def trainable(self) -> bool:
        """Whether it can be trained; an integer cannot."""
        return not self.constraint.is_discrete


def parameter(constraint: Constraint, default: Source = None, **options: Any) -> Any:
    """Dataclass field of a `Family` that is one of its parameters.

    Args:
        constraint: the values it may take.
        default: the source that it has unless another one is given.
        options: the other arguments of `Parameter`.
    """
    return dataclasses.field(default=default, metadata={"parameter": Parameter(constraint, **options)})


class Family(Config, ABC):
    """Base of every family. A new one is a frozen dataclass of `parameter` fields beside the class data below.

    One whose parameters are not only its own fields (a mixture, a flow, a VampPrior) overrides `bind` and nothing
    else.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {}
    """Every parameter that is a field, trainable ones first, by its name: that of the distribution's argument."""

    distribution: ClassVar[Callable[..., Distribution]]
    """The Pyro distribution, called with the parameters by name."""

    roles: ClassVar[tuple[str, ...]] = ("prior", "likelihood", "guide")
    """Roles it can have with its defaults; a guide is reparameterised, and a prior has the support of some guide."""

    data_kind: ClassVar[str] = "Real numbers"
    """Kind of data it describes: a heading of the catalogue, one of `pyro_vae.families.catalogue.KINDS`."""

    support_text: ClassVar[str] = "real numbers"
    """Values it describes, for the catalogue; of a composite, those with its default family."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        fields = {name: value.metadata for name, value in vars(cls).items() if isinstance(value, dataclasses.Field)}
        own = {name: metadata["parameter"] for name, metadata in fields.items() if "parameter" in metadata}
        cls.parameters = dict(sorted({**cls.parameters, **own}.items(), key=lambda item: not item[1].trainable))

    # What follows are traits: a family sets one as a class value, or as a property where it depends on a field.

    @property
    def event_ranks(self) -> tuple[int, ...] | None:
        """Ranks of the events it describes (0 scalar, 1 vector, 3 image); None for any."""
        return None

    @property
    def data_support(self) -> Constraint | None:
        """Support of each element of its data, where that is smaller than the distribution's support."""
        return None

    @property
    def fix_hint(self) -> str:
        """Advice for data outside of its support, for messages."""
        return ""

    @property
    def is_heavy_tailed(self) -> bool:
        """Whether it has tails so heavy that the unit of its data follows from their quartiles."""
        return False

    @property
    def is_count(self) -> bool:
        """Whether its data are counts without a bound, of which an encoder sees log(1 + x)."""
        return False

    @property
    def has_point_masses(self) -> bool:
        """Whether it has point masses beside a density, which no guide follows: it is a likelihood only."""
        return False

    @property
    def is_pixel(self) -> bool:
        """Whether its data are pixel levels, so that log-likelihoods are also reported in bits per dimension."""
        return False

    @property
    def caveat(self) -> str:
        """Caveat for every report of its likelihood; empty for a density."""
        return ""

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in a place: its parameters there, and the distribution of their values."""
        group = group_of(parameter.unit for parameter in self.parameters.values())
        return BoundFamily(self.own_slots(site), partial(self.distribution, validate_args=False), group)

    def own_slots(self, site: SiteSpec) -> dict[str, ParameterSlot]:
        """Slots of the parameters that are fields, with their shapes, sources and starting values."""
        slots = {}
        for name, parameter in self.parameters.items():
            slots[name] = ParameterSlot(
                parameter.constraint,
                tuple(parameter.shape(site.event_shape, self)),
                getattr(self, name),
                init=parameter.init and partial(self._from_rows, name, "init"),
                scales_with_size_factor=parameter.scales_with_size_factor,
                broadcasts=self.event_ranks is None and parameter.shape is event_shaped,
                init_noise=parameter.init_noise,
                raw_spread=parameter.raw_spread and partial(self._from_rows, name, "raw_spread"),
                motion=None if parameter.unit is None else Motion(parameter.unit),
            )
        return slots

    def _from_rows(self, name: str, what: str, x: Tensor) -> Tensor:
        value: Tensor = getattr(self.parameters[name], what)(x, self)  # by name, since a lambda cannot be pickled
        return value

    def check_field(self, name: str, where: str, hint: Any, value: Any) -> Any:
        """Canonical form of a source: numbers become floats and arrays nested tuples, so that a family hashes."""
        if name not in self.parameters:
            return super().check_field(name, where, hint, value)
        if isinstance(value, str):
            if value not in ("learned", "per_feature"):
                raise unknown_name_error(f"source of {where},", value, ["learned", "per_feature", "a number"])
            if not self.parameters[name].trainable:
                raise InputError(f"{where} = {value!r} would be trained, and it is an integer: write {name}=10.")
            if value == "learned" and not self.parameters[name].allows_scalar:
                raise InputError(
                    f"{where} = 'learned' would be one number for the whole array, which has no meaning here: "
                    f"write {name}='per_feature'."
                )
            return value
        constraint = self.parameters[name].of_fixed_numbers
        if value is None and self.parameters[name].trainable:
            return None
        numbers = as_nested_floats(where, value)
        tensor = torch.tensor(numbers, dtype=torch.float64)
        if tensor.ndim < constraint.event_dim or not bool(constraint.check(tensor).all()):
            raise InputError(f"{where} = {_short(numbers)} is outside of its range: {constraint!r}.")
        return numbers


def _of_the_part(trait: str) -> Any:
    return property(operator.attrgetter(f"family.{trait}"))


class Composite(Family, ABC):
    """Base of a family that is made of another one: a frozen dataclass with a field `family`.

    Traits are those of that family unless overridden. It overrides `bind`, and calls that of its part.
    """

    data_kind = "Made of another family"
    support_text = "real numbers by default"
    family: Family
    event_ranks = _of_the_part("event_ranks")
    data_support = _of_the_part("data_support")
    fix_hint = _of_the_part("fix_hint")
    is_heavy_tailed = _of_the_part("is_heavy_tailed")
    is_count = _of_the_part("is_count")
    has_point_masses = _of_the_part("has_point_masses")
    is_pixel = _of_the_part("is_pixel")
    caveat = _of_the_part("caveat")

    def slots_of(self, bound: BoundFamily, view: View | None = None) -> dict[str, ParameterSlot]:
        """Slots of the part.

        Args:
            bound: the part in its place.
            view: the shift and unit that the part sees, of those of the event; the same without it.

        Raises:
            InputError: the part has a parameter of the same name as one of its own, or weights of its own.
        """
        if isinstance(bound.distribution, nn.Module):
            raise InputError(
                f"{self.family!r} has networks of its own, so {type(self).__name__} cannot be made of it: take a "
                "family of parameters, such as pv.MultivariateNormal()."
            )
        if both := [name for name in bound.slots if name in self.parameters]:
            raise InputError(
                f"{type(self).__name__} and {self.family!r} both have a parameter {both[0]!r}: one of the kind inside "
                "the other has no meaning here, so take the inner family alone."
            )
        return {
            name: replace(
                slot, broadcasts=False, motion=slot.motion.within(view) if view and slot.motion else slot.motion
            )
            for name, slot in bound.slots.items()
        }


def as_nested_floats(where: str, value: Any) -> Any:
    """Nested tuples of floats from an array of any kind; a float from a number."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        rows = tuple(as_nested_floats(where, item) for item in value)
        shapes = {torch.tensor(row).shape for row in rows}
        if len(shapes) == 1:
            return rows
        raise InputError(f"{where} = {_short(value)} is ragged or empty: its rows have to have equal lengths.")
    raise InputError(
        f"{where} = {_short(value)} is not a source of a parameter: write a finite number or a list of them (fixed), "
        "'learned', 'per_feature', or leave it out (computed by the network)."
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def init_mean(x: Tensor, family: Family) -> Tensor:
    """Starting value of a location: the mean of each element."""
    return x.mean(0)


def init_std(x: Tensor, family: Family) -> Tensor:
    """Starting value of a scale: the standard deviation of each element, at least a tenth of its mean over elements.

    An untrained network misses the mean by more than the spread of a nearly constant element (a corner pixel); a
    scale started at that spread would make the first gradients enormous.
    """
    constant = x.amax(0) == x.amin(0)  # exact, for rounding gives equal numbers a spread of its own size
    spread = x.std(0, correction=0).masked_fill(constant, 0)
    typical = spread.mean()
    return spread.clamp(min=0.1 * typical) if bool(typical > 0) else torch.ones_like(spread)
