"""A family and a network make a conditional: context -> distribution.

A family in its place is a set of slots, one per parameter, and a distribution of their values. For each slot the
conditional knows its source (fixed, one trained constant, one per feature, or the network's output), adds the raw
value it starts from, and maps the sum through the constraint's transform. It is the one module behind p(z), p(x|z)
and q(z|x): in a prior the context is nothing, in a likelihood z, in a guide x.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import transform_to

from pyro_vae.core.errors import InputError
from pyro_vae.distributions.transformed import AffineTransformedDistribution, UnitTransform
from pyro_vae.distributions.wrappers import expand_right, mask_elements
from pyro_vae.families import units
from pyro_vae.families.base import Family
from pyro_vae.families.site import ParameterSlot, Shape, SiteSpec
from pyro_vae.networks.base import HeadedNetwork, OfRows, build_network, evaluating


class Conditional(OfRows):
    r"""The map from a context $c$ to a distribution over events, $c \mapsto p(\cdot \mid \theta(c))$.

    Each parameter is $\theta_j = M_j(T_j(o_j + g_j f_j(c)))$ with $T_j$ the transform of its constraint, $f_j$ the
    network's output (0 for a trained constant), $o_j$ the raw value it starts from, $g_j$ its spread there in data
    (1 where a family declares none), and $M_j$ the motion from the
    canonical unit of the data to the user's (`pyro_vae.families.units`), in a likelihood; elsewhere it is the identity.

    Args:
        family: which distribution, and the source of each parameter.
        site: where it is used.

    Raises:
        InputError: the family does not allow the event's rank, a fixed value does not broadcast to its
            parameter, or nothing would depend on the context.
    """

    row_buffers = ("shift", "unit")
    initialized: Tensor
    shift: Tensor
    unit: Tensor

    def __init__(self, family: Family, site: SiteSpec) -> None:
        super().__init__()
        self.family, self.site = family, site
        self._check_rank()
        bound = family.bind(site)
        self.slots, self.distribution = bound.slots, bound.distribution
        self._transforms = {name: transform_to(slot.constraint) for name, slot in self.slots.items()}
        self.constants = nn.ParameterDict()
        from_network: dict[str, Shape] = {}
        for name, slot in self.slots.items():
            if slot.source is None and site.context_shape is not None:
                from_network[name] = self._raw_shape(name)
            elif slot.source in (None, "per_feature", "learned"):
                shape = () if slot.source == "learned" else self._raw_shape(name)
                start = slot.init_noise * torch.randn(shape) if slot.init_noise else torch.zeros(shape)
                self.constants[name] = nn.Parameter(start)
            else:
                self.register_buffer(f"fixed_{name}", self._fixed(name, slot), persistent=False)
        self.network: nn.Module | None = None
        self.inputs = site.inputs
        if site.context_shape is not None:
            self.network = self._attach(from_network, site.context_shape)
        self.from_network = tuple(from_network)
        for name, shape in from_network.items():
            self.register_buffer(f"offset_{name}", torch.zeros(shape))
            if self.slots[name].raw_spread is not None:
                self.register_buffer(f"raw_spread_{name}", torch.ones(shape))
        self.register_buffer("initialized", torch.tensor(False))
        self.group = bound.group if site.role == "likelihood" else None
        self.own_unit, self.is_moved_whole = bound.own_unit, bound.is_moved_whole
        if self.group is not None:
            shift, unit = (torch.as_tensor(number, dtype=torch.get_default_dtype()) for number in bound.own_unit)
            self.register_buffer("shift", shift.expand(site.event_shape).clone())
            self.register_buffer(
                "unit", unit.mean() if self._has_common_unit else unit.expand(site.event_shape).clone()
            )

    def forward(
        self,
        context: Tensor | None = None,
        *,
        seen: Tensor | None = None,
        mask: Tensor | None = None,
        size_factor: Tensor | None = None,
    ) -> TorchDistribution:
        """Distribution given a context.

        Args:
            context: (*batch, *context_shape), with any leading dimensions; None for a prior.
            seen: (*batch, *context_shape), true where the context is known; the network takes the others for average.
            mask: (*batch, *event_shape), true where an element of the event is observed; the density leaves the
                others out.
            size_factor: (*batch,), what multiplies the family's size (a rate, a number of trials) in each row.

        Returns:
            A Pyro distribution with that batch shape (`()` with no context) and the site's event shape.
        """
        batch: Shape = ()
        if context is not None and self.site.context_shape is not None:
            batch = tuple(context.shape[: context.ndim - len(self.site.context_shape)])
        return self.from_raw(self.raw_parameters(context, seen=seen), batch, mask=mask, size_factor=size_factor)

    def from_raw(
        self, raw: Mapping[str, Tensor], batch: Shape, *, mask: Tensor | None = None, size_factor: Tensor | None = None
    ) -> TorchDistribution:
        """Distribution at given raw parameters.

        Args:
            raw: as `raw_parameters` returns them: what depends on the context, (*batch, *raw shape), unconstrained.
            batch: the batch shape.
            mask: as for `forward`.
            size_factor: as for `forward`.

        Returns:
            A Pyro distribution with that batch shape and the site's event shape.
        """
        distribution: Any = self.distribution(**self._constrained(raw, size_factor))
        if self.group is not None and self.is_moved_whole:
            unit = UnitTransform(self.shift, self.unit, distribution.support)
            distribution = AffineTransformedDistribution(distribution, unit, validate_args=False)
        rank = len(self.site.event_shape) - len(distribution.event_shape)
        target = batch + self.site.event_shape[:rank]
        if distribution.batch_shape != target:
            distribution = distribution.expand(target)
        if mask is not None:
            distribution = mask_elements(distribution, mask)
        return distribution.to_event(rank) if rank else distribution

    def values(
        self, context: Tensor | None = None, *, seen: Tensor | None = None, size_factor: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The parameters given a context, by name: what a network computed has the batch shape before its own."""
        return self._constrained(self.raw_parameters(context, seen=seen), size_factor)

    def raw_parameters(self, context: Tensor | None = None, *, seen: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters that depend on the context, by name, unconstrained: before the transforms of their constraints.

        Args:
            context: (*batch, *context_shape); None for a prior.
            seen: as for `forward`.

        Returns:
            What the network emits with the offset it starts from, (*batch, *raw shape); nothing for a prior.
        """
        if self.network is None:
            return {}
        if context is None:
            raise InputError(
                f"the {self.site.role} needs a context of shape {self.site.context_shape}, after any leading "
                "dimensions: give z to a likelihood, x to a guide."
            )
        prepared = context if self.inputs is None else self.inputs(context)
        if prepared.dtype is torch.float64:  # of rows that the type of the weights rounds away
            prepared = prepared.to(self.device_tensor.dtype)
        known = prepared if seen is None else torch.where(seen, prepared, 0)
        offsets = {name: self.get_buffer(f"offset_{name}") for name in self.from_network}
        spreads = {name: self.get_buffer(f"raw_spread_{name}") for name in offsets if self.slots[name].raw_spread}
        if isinstance(self.network, HeadedNetwork):
            emitted = self.network(known, {name: offset for name, offset in offsets.items() if name not in spreads})
            return {
                name: torch.addcmul(offsets[name], value, spreads[name]) if name in spreads else value
                for name, value in emitted.items()
            }
        emitted = self.network(known)
        return {name: emitted[name] * spreads.get(name, 1) + offset for name, offset in offsets.items()}

    @property
    def support(self) -> Any:
        """The set of events that can happen, as a torch constraint."""
        return self.dummy_distribution().support

    @property
    def device_tensor(self) -> Tensor:
        """Tensor of this module, for its device and floating type."""
        return next(t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())

    @property
    def row_type(self) -> torch.dtype:
        """Floating type of the events: that of the weights, or float64 where that rounds rows of data away."""
        return self.device_tensor.dtype if self.group is None else self.unit.dtype

    def dummy_distribution(self, **given: Tensor) -> TorchDistribution:
        """The distribution at arbitrary contexts (zeros), as a dry run.

        Args:
            given: named tensors of a batch, as for `forward`; their number of rows is that of contexts, 2 without them.
        """
        with torch.no_grad():
            if self.site.context_shape is None:
                return self()
            rows = next((len(tensor) for tensor in given.values()), 2)
            with evaluating(self):
                return self(self.device_tensor.new_zeros(rows, *self.site.context_shape), **given)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set starting values from data, once; later calls change nothing, so training is never undone.

        Args:
            x: rows (N, *event_shape) of what this conditional describes, in the type in which it will get them.
        """
        if bool(self.initialized):
            return
        self.set_row_type(x.dtype)
        shift, unit = self._measure(x) if self.group is not None else self.own_unit
        x = units.canonical(x, shift, unit).to(self.device_tensor.dtype)
        for name, slot in self.slots.items():
            if slot.init is None or f"fixed_{name}" in self._buffers:
                continue
            value = slot.init(x)
            if name in self.constants and self.constants[name].ndim == 0:
                value = value.mean()
            raw = self._transforms[name].inv(value)
            target = self.constants[name] if name in self.constants else self.get_buffer(f"offset_{name}")
            target.copy_(raw)
            if f"raw_spread_{name}" in self._buffers and slot.raw_spread is not None:
                self.get_buffer(f"raw_spread_{name}").copy_(slot.raw_spread(x))
        self.initialized.fill_(True)

    def check_fixed_numbers(self, x: Tensor) -> None:
        """Check fixed scales against the spread of rows (N, *event_shape), whose unit they share.

        Raises:
            InputError: a squared distance in units of one is no number in the type of the weights.

        Warns:
            UserWarning: one is 1,000 times smaller or larger than the spread.
        """
        motions = {
            name: slot.motion
            for name, slot in self.slots.items()
            if slot.motion is not None and slot.motion.word != "location" and f"fixed_{name}" in self._buffers
        }
        if self.group is None or not motions:
            return
        _, unit = units.measure(x, is_common=self._has_common_unit, is_image=self._is_image)
        one = torch.ones((), dtype=torch.float64, device=x.device)
        for name, motion in motions.items():
            ratio = (self.get_buffer(f"fixed_{name}").double() / motion(one, 0 * one, unit)).abs()
            ratio = ratio[ratio > 0]
            if not len(ratio) or bool(((ratio > 1e-3) & (ratio < 1e3)).all()):
                continue
            said = (
                f"{self.site.role}: {name} of {self.family!r} is fixed in the data's unit, and x spreads by "
                f"{float(unit.max()):.3g}"
            )
            fix = f"give it in that unit, or let it follow from the data, {name}='per_feature'."
            if bool((ratio < 1e-15).any()) or bool((ratio > 1e15).any()):
                raise InputError(f"{said}, which the square of the one divided by the other cannot hold: {fix}")
            warnings.warn(f"{said}: {fix}", stacklevel=3)

    @torch.no_grad()
    def adapt(self, x: Tensor) -> None:
        """Adapt the parts that depend on data, once: the inputs of a guide's network, pseudo-inputs of a prior.

        Args:
            x: rows (N, *data_shape) of the data.
        """
        if bool(self.initialized):
            return
        part: Any
        for part in (self.inputs, self.distribution):
            if hasattr(part, "adapt"):
                part.adapt(x)
        self.initialized.fill_(True)

    @torch.no_grad()
    def trained_value(self, name: str) -> Tensor:
        """The present value of a trained constant: a scalar if it is "learned", else of the parameter's shape."""
        return self._moved(name, self._transforms[name](self.constants[name]))

    def extra_repr(self) -> str:
        """Declaration of the family, for `repr`."""
        return repr(self.family)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Conditional":
        """Move or convert the module, and write its fixed values anew: 0.1 in float32 is not 0.1 in float64."""
        super()._apply(fn, recurse)
        for name, slot in self.slots.items():
            if f"fixed_{name}" in self._buffers:
                self.get_buffer(f"fixed_{name}").copy_(torch.tensor(slot.source, dtype=torch.float64))
        return self

    def _constrained(self, raw: Mapping[str, Tensor], size_factor: Tensor | None) -> dict[str, Tensor]:
        values = {name: self._moved(name, self._transforms[name](value)) for name, value in raw.items()}
        for name, slot in self.slots.items():
            if name not in values:
                values[name] = self._constant(name, slot)
            if slot.scales_with_size_factor and size_factor is not None:
                values[name] = values[name] * expand_right(size_factor, len(slot.shape))
        return values

    def _constant(self, name: str, slot: ParameterSlot) -> Tensor:
        if f"fixed_{name}" in self._buffers:
            return self.get_buffer(f"fixed_{name}")
        value = self._moved(name, self._transforms[name](self.constants[name]))
        return value if slot.broadcasts else value.expand(slot.shape)

    def _moved(self, name: str, value: Tensor) -> Tensor:
        """Value in the user's unit, of one in the canonical unit."""
        slot = self.slots[name]
        if self.group is None or slot.motion is None:
            return value
        return slot.motion(value, self.shift.mean() if slot.source == "learned" else self.shift, self.unit)

    @property
    def _has_common_unit(self) -> bool:
        """Whether all elements have one unit: pixels do, and those that share a trained constant."""
        shared = any(slot.source == "learned" and slot.motion is not None for slot in self.slots.values())
        return shared or self._is_image

    @property
    def _is_image(self) -> bool:
        return len(self.site.event_shape) == 3

    def _measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and unit of rows, which become those of this conditional."""
        heavy = self.family.is_heavy_tailed
        shift, unit = units.measure(x, is_common=self._has_common_unit, is_heavy=heavy, is_image=self._is_image)
        if self.group == "scale":
            shift = torch.as_tensor(self.own_unit[0], dtype=torch.float64, device=x.device).expand(
                self.site.event_shape
            )
        self.shift.copy_(shift)
        self.unit.copy_(unit)
        return shift, unit

    def _raw_shape(self, name: str) -> Shape:
        return tuple(self._transforms[name].inverse_shape(self.slots[name].shape))

    def _fixed(self, name: str, slot: ParameterSlot) -> Tensor:
        tensor = torch.tensor(slot.source, dtype=torch.get_default_dtype())
        try:
            full = tensor.expand(slot.shape).clone()
        except RuntimeError:
            raise InputError(
                f"{self.site.role}: {type(self.family).__name__}.{name} has shape {tuple(tensor.shape)}, which does "
                f"not broadcast to the parameter's shape {tuple(slot.shape)}: give one number, or an array of that "
                "shape."
            ) from None
        return tensor if slot.broadcasts else full

    def _attach(self, outputs: dict[str, Shape], context_shape: Shape) -> nn.Module:
        name, role = type(self.family).__name__, self.site.role
        if not outputs:
            own = [key for key in self.family.parameters if key in self.slots] or list(self.slots)
            context = "z" if role == "likelihood" else "x"
            raise InputError(
                f"{role}: every parameter of {self.family!r} is a constant, so nothing would depend on {context}: "
                f"leave {own[0]} out, as in {name}({', '.join(f'{k}=...' for k in own[1:])})."
            )
        return build_network(self.site.network, context_shape, outputs, where=f"{role} {name}")

    def _check_rank(self) -> None:
        ranks, shape = self.family.event_ranks, self.site.event_shape
        if ranks is not None and len(shape) not in ranks:
            raise InputError(
                f"{self.site.role}: {type(self.family).__name__} describes events of rank "
                f"{' or '.join(map(str, ranks))}, and {shape} has rank {len(shape)}: flatten the data to vectors "
                "with x.flatten(1), or take a family with independent elements, such as Normal()."
            )
