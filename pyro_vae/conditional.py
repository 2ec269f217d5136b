"""A family and a network make a conditional: context -> distribution.

For each parameter of a family the conditional knows its source (fixed, one trained constant, one per
feature, or the network's output), adds the raw value it starts from, and maps the sum through the
constraint's transform. It is the one module behind p(z), p(x|z) and q(z|x): in a prior the context is
nothing, in a likelihood z, in a guide x.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import transform_to

from pyro_vae.errors import InputError
from pyro_vae.networks.base import Network, attach, evaluating

if TYPE_CHECKING:
    from pyro_vae.families.base import Family

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Site:
    """The place a family is used in, and what it may need to know of it.

    Args:
        role: "prior", "likelihood" or "guide", for messages.
        event_shape: shape of one draw, without N.
        context_shape: shape of what the draw depends on, without N; None where there is none.
        network: what computes parameters from the context, as declared or as the user's own module.
        guide: for a prior that looks at the model (VampPrior): the conditional of q(z|x).
        data_shape: likewise: the shape of one datum.
    """

    role: str
    event_shape: Shape
    context_shape: Shape | None = None
    network: Network | nn.Module | None = None
    guide: nn.Module | None = None
    data_shape: Shape | None = None


class Conditional(nn.Module):
    r"""The map from a context $c$ to a distribution over events, $c \mapsto p(\cdot \mid \theta(c))$.

    Each parameter is $\theta_j = T_j(o_j + f_j(c))$ with $T_j$ the transform of its constraint, $f_j$ the
    network's output (0 for a trained constant) and $o_j$ the raw value it starts from.

    Args:
        family: which distribution, and the source of each parameter.
        site: where it is used.

    Raises:
        InputError: the family does not allow the event's rank, a fixed value does not broadcast to its
            parameter, or nothing would depend on the context.
    """

    initialized: Tensor

    def __init__(self, family: "Family", site: Site) -> None:
        super().__init__()
        self.family, self.site = family, site
        self._check_rank()
        self._transforms = {name: transform_to(p.constraint) for name, p in family.parameters.items()}
        self._shapes = {name: p.shape(site.event_shape, family) for name, p in family.parameters.items()}
        self.constants = nn.ParameterDict()
        from_network: dict[str, Shape] = {}
        for name in family.parameters:
            source = getattr(family, name)
            if source is None and site.context_shape is not None:
                from_network[name] = self._raw_shape(name)
            elif source is None or source == "per_feature":
                self.constants[name] = nn.Parameter(torch.zeros(self._raw_shape(name)))
            elif source == "learned":
                self.constants[name] = nn.Parameter(torch.zeros(()))
            else:
                self.register_buffer(f"fixed_{name}", self._fixed(name, source), persistent=False)
        self.network: nn.Module | None = None
        if site.context_shape is not None:
            self.network = self._attach(from_network, site.context_shape)
        for name, shape in from_network.items():
            self.register_buffer(f"offset_{name}", torch.zeros(shape))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, context: Tensor | None = None) -> TorchDistribution:
        """Return the distribution given a context.

        Args:
            context: (*batch, *context_shape), with any leading dimensions; None for a prior.

        Returns:
            A Pyro distribution with that batch shape (`()` with no context) and the site's event shape.
        """
        batch: Shape = ()
        raw: Mapping[str, Tensor] = {}
        if self.network is not None:
            if context is None:
                raise InputError(
                    f"the {self.site.role} needs a context of shape {self.site.context_shape}, after any leading "
                    "dimensions: give z to a likelihood, x to a guide."
                )
            batch = tuple(context.shape[: context.ndim - len(self.site.context_shape or ())])
            raw = self.network(context)
        values = {name: self._value(name, raw) for name in self.family.parameters}
        distribution: Any = self.family.distribution(**values, validate_args=False)
        rank = len(self.site.event_shape) - len(distribution.event_shape)
        missing = len(batch) + rank - len(distribution.batch_shape)
        if missing > 0:
            distribution = distribution.expand(batch + distribution.batch_shape[len(batch) - missing :])
        return distribution.to_event(rank) if rank else distribution

    @property
    def support(self) -> Any:
        """The set of events that can happen, as a torch constraint."""
        return self.example().support

    @property
    def reference(self) -> Tensor:
        """A tensor of this module: on its device, of its floating type."""
        return next(t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())

    def example(self) -> TorchDistribution:
        """The distribution at one arbitrary context (zeros), as a dry run."""
        with torch.no_grad():
            if self.site.context_shape is None:
                return self()
            with evaluating(self):
                return self(self.reference.new_zeros(2, *self.site.context_shape))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set starting values from data, once; later calls change nothing, so training is never undone.

        Args:
            x: rows (N, *event_shape) of what this conditional describes.
        """
        if bool(self.initialized):
            return
        for name, parameter in self.family.parameters.items():
            if parameter.start is None or f"fixed_{name}" in self._buffers:
                continue
            value = parameter.start(x, self.family)
            if name in self.constants and self.constants[name].ndim == 0:
                value = value.mean()
            raw = self._transforms[name].inv(value)
            target = self.constants[name] if name in self.constants else self.get_buffer(f"offset_{name}")
            target.copy_(raw)
        self.initialized.fill_(True)

    @torch.no_grad()
    def constant(self, name: str) -> Tensor:
        """The present value of a trained constant: a scalar if it is "learned", else of the parameter's shape."""
        value: Tensor = self._transforms[name](self.constants[name])
        return value

    def extra_repr(self) -> str:
        """Show the family."""
        return repr(self.family)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Conditional":
        """Move or convert the module, and write its fixed values anew: 0.1 in float32 is not 0.1 in float64."""
        super()._apply(fn, recurse)
        for name in self.family.parameters:
            if f"fixed_{name}" in self._buffers:
                self.get_buffer(f"fixed_{name}").copy_(torch.tensor(getattr(self.family, name), dtype=torch.float64))
        return self

    def _value(self, name: str, raw: Mapping[str, Tensor]) -> Tensor:
        if name in raw:
            return self._transforms[name](raw[name] + self.get_buffer(f"offset_{name}"))
        if name in self.constants:
            return self._transforms[name](self.constants[name]).expand(self._shapes[name])
        return self.get_buffer(f"fixed_{name}")

    def _raw_shape(self, name: str) -> Shape:
        return tuple(self._transforms[name].inverse_shape(self._shapes[name]))

    def _fixed(self, name: str, value: Any) -> Tensor:
        tensor, shape = torch.tensor(value, dtype=torch.get_default_dtype()), self._shapes[name]
        try:
            return tensor.expand(shape).clone()
        except RuntimeError:
            raise InputError(
                f"{self.site.role}: {type(self.family).__name__}.{name} has shape {tuple(tensor.shape)}, which does "
                f"not broadcast to the parameter's shape {tuple(shape)}: give one number, or an array of that shape."
            ) from None

    def _attach(self, outputs: dict[str, Shape], context_shape: Shape) -> nn.Module:
        name, role = type(self.family).__name__, self.site.role
        if not outputs:
            free = next(iter(self.family.parameters))
            context = "z" if role == "likelihood" else "x"
            raise InputError(
                f"{role}: every parameter of {self.family!r} is a constant, so nothing would depend on {context}: "
                f"leave {free} out, as in {name}({', '.join(f'{k}=...' for k in list(self.family.parameters)[1:])})."
            )
        return attach(self.site.network, context_shape, outputs, where=f"{role} {name}")

    def _check_rank(self) -> None:
        ranks, shape = self.family.event_ranks, self.site.event_shape
        if ranks is not None and len(shape) not in ranks:
            raise InputError(
                f"{self.site.role}: {type(self.family).__name__} describes events of rank "
                f"{' or '.join(map(str, ranks))}, and {shape} has rank {len(shape)}: flatten the data to vectors "
                "with x.flatten(1), or take a family with independent elements, such as Normal()."
            )
