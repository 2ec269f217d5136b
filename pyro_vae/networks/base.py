"""Networks: HOW the parameters of a distribution follow from a context.

A network maps a tensor (*batch, *in_shape) to named tensors (*batch, *out_shape) of unbounded numbers, and
knows no distribution. It is declared like a family, and its output sizes follow from the family it
serves, so swapping a family never needs a network edit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError

Shape: TypeAlias = tuple[int, ...]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),  # of what a layer before it has just made
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Network(Config, ABC):
    """Base of every declared network."""

    @abstractmethod
    def build(self, in_shape: Shape, out_shapes: Mapping[str, Shape]) -> nn.Module:
        """Module of this declaration.

        Args:
            in_shape: shape of the context, without leading dimensions.
            out_shapes: for each output, by name, its shape without leading dimensions.

        Returns:
            A module from (*batch, *in_shape) to a dict of tensors (*batch, *out_shape), any leading dimensions.
        """

    @abstractmethod
    def mirror(self) -> "Network":
        """The network that runs the other way, for the decoder that belongs to this encoder."""


def build_network(
    network: Network | nn.Module | None, in_shape: Shape, out_shapes: Mapping[str, Shape], where: str
) -> nn.Module:
    """Module that serves a conditional, from a declaration or from the user's own module.

    Args:
        network: a declared network, or a module of the user's.
        in_shape: shape of the context.
        out_shapes: shapes of the outputs by name.
        where: whose network it is, for the message.

    Raises:
        InputError: neither, or a module with other outputs than those.
    """
    if isinstance(network, Network):
        return network.build(in_shape, out_shapes)
    if isinstance(network, nn.Module):
        own = ModuleAdapter(network, in_shape, out_shapes, where)
        own.check_outputs()
        return own
    raise InputError(
        f"{where}: {network!r} is not a network: declare one, such as pv.MLP(hidden=(400,)), or give a torch.nn.Module."
    )


def log_counts(x: Tensor) -> Tensor:
    """log(1 + x), and x below 0: no count is negative, but a trained pseudo-input may be."""
    return torch.where(x > 0, torch.log1p(x.clamp(min=0)), x)


class OfRows(nn.Module):
    """Base of modules with buffers in the type of rows of data: float64 where that of the weights rounds rows away."""

    row_buffers: ClassVar[tuple[str, str]] = ("loc", "scale")

    def set_row_type(self, dtype: torch.dtype) -> None:
        """Convert those buffers."""
        for name in self.row_buffers:
            if name in self._buffers:
                setattr(self, name, self.get_buffer(name).to(dtype))

    def take_row_type(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Convert those buffers where they are in float64 in a state dict."""
        stored = state.get(f"{prefix}{self.row_buffers[0]}")
        if stored is not None and stored.dtype == torch.float64:
            self.set_row_type(torch.float64)

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.take_row_type(state, prefix)
        super()._load_from_state_dict(state, prefix, *rest)


def set_row_type(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert what a module and its parts have in the type of rows of data, and no weight."""
    for part in module.modules():
        if isinstance(part, OfRows):
            part.set_row_type(dtype)


class InputNormalization(OfRows):
    """Normalization of the inputs of a declared network: (view(x) - m) / s.

    m and s are taken by `adapt` from rows of data: those of the data's own unit where there is a `measure` of it.
    Otherwise m is the mean of each element and s the root mean square of what is left, at least 1, for inputs far from
    0, or in thousands, train badly, and inputs of a root mean square within 1 stay as they are. Before `adapt`, x is
    only viewed. A module of the user's own sees x as it is.

    Args:
        in_shape: shape of one x.
        view: what is done to x first, element by element, such as log(1 + x) for counts.
        measure: shift and unit of rows (N, *in_shape), for data whose unit is the user's choice.
        spread: spread of each viewed element, from rows: an element whose spread is below 1 is normalized by its own.
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        in_shape: Shape,
        view: Callable[[Tensor], Tensor] | None = None,
        measure: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        spread: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.view, self.measure, self.spread = view, measure, spread
        self.register_buffer("loc", torch.zeros(in_shape))
        self.register_buffer("scale", torch.ones(in_shape))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized x, (*batch, *in_shape)."""
        return ((x if self.view is None else self.view(x)) - self.loc).div_(self.scale)

    @torch.no_grad()
    def adapt(self, x: Tensor) -> None:
        """Set m and s from rows (N, *in_shape)."""
        viewed = x if self.view is None else self.view(x)
        self.set_row_type(x.dtype)
        if self.measure is not None:
            loc, scale = self.measure(viewed)
            self.loc.copy_(loc)
            self.scale.copy_(scale)
        elif bool(viewed.square().mean() > 1):
            self.loc.copy_(viewed.mean(0))
            self.scale.copy_((viewed - self.loc).square().mean().sqrt().clamp(min=1))
        if self.spread is not None and bool((narrow := (spread := self.spread(x)) < 1).any()):
            self.loc.copy_(torch.where(narrow, viewed.mean(0), self.loc))
            self.scale.copy_(torch.where(narrow, spread, self.scale))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and then each of its parts back as it was: one may be frozen on its own."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class ModuleAdapter(nn.Module):
    """A user's own module as a network: it sees one leading dimension, and may return a tensor, tuple or dict.

    Args:
        module: maps (N, *in_shape) to a tensor (one parameter), a tuple in the family's order, or a dict; each
            tensor is (N, *out_shape), or that flattened to (N, size).
        in_shape: shape of the context.
        out_shapes: shapes of the outputs by name.
        where: whose network it is, for messages.
    """

    def __init__(self, module: nn.Module, in_shape: Shape, out_shapes: Mapping[str, Shape], where: str) -> None:
        super().__init__()
        self.module = module
        self.in_shape, self.out_shapes, self.where = in_shape, dict(out_shapes), where

    def forward(self, context: Tensor) -> dict[str, Tensor]:
        """Named tensors (*batch, *out_shape) from a context (*batch, *in_shape)."""
        batch = context.shape[: context.ndim - len(self.in_shape)]
        outputs = self._named(self.module(context.reshape(-1, *self.in_shape)))
        return {name: outputs[name].reshape((*batch, *shape)) for name, shape in self.out_shapes.items()}

    @torch.no_grad()
    def check_outputs(self) -> None:
        """Run two rows of zeros, and refuse outputs of another number, name or size than the family needs."""
        reference = next(self.module.parameters(), torch.zeros(()))
        rows = torch.zeros(2, *self.in_shape, dtype=reference.dtype, device=reference.device)
        try:
            with evaluating(self.module):
                output = self.module(rows)
        except Exception as error:  # whatever a user's own code may raise
            raise InputError(
                f"{self.where}: your network fails on rows of shape {tuple(rows.shape)}: {error}"
            ) from error
        outputs = self._named(output)
        for name, shape in self.out_shapes.items():
            value: object = outputs[name]
            size = tuple(value.shape) if isinstance(value, Tensor) else None
            if size not in ((2, *shape), (2, prod(shape))):
                given = f"of shape {size}" if size is not None else f"as a {type(value).__name__}"
                raise InputError(
                    f"{self.where}: your network returns {name} {given} for 2 rows of shape {self.in_shape}; it has "
                    f"to be {(2, *shape)}."
                )

    def _named(self, output: object) -> Mapping[str, Tensor]:
        names = list(self.out_shapes)
        if isinstance(output, Tensor):
            output = (output,)
        if isinstance(output, tuple | list) and len(output) == len(names):
            output = dict(zip(names, output, strict=True))
        if isinstance(output, Mapping) and set(names) <= set(output):
            return output
        given = list(output) if isinstance(output, Mapping) else f"{type(output).__name__}"
        if isinstance(output, tuple | list):
            given = f"{len(output)} tensor{'s' * (len(output) != 1)}"
        wanted = ", ".join(f"{name}: ({', '.join(['N', *map(str, shape)])})" for name, shape in self.out_shapes.items())
        raise InputError(
            f"{self.where}: your network returns {given}; it has to return the raw parameters {{{wanted}}} as a dict, "
            "or as a tuple in that order. Constrain nothing: the family maps them to legal values."
        )


class HeadedNetwork(nn.Module, ABC):
    """A module of a declared network, which adds what its outputs start from itself, where that costs least."""

    @abstractmethod
    def forward(self, context: Tensor, offsets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Named tensors (*batch, *out_shape) from a context (*batch, *in_shape).

        Args:
            context: what the outputs depend on.
            offsets: what is added to outputs, by name, (*out_shape).
        """


NARROW = 128
"""Number of outputs up to which one product for all heads, with weights concatenated, is faster than one each."""


class Heads(nn.ModuleDict):
    """One linear map per named output, from shared features (*batch, width)."""

    def __init__(self, width: int, out_shapes: Mapping[str, Shape]) -> None:
        super().__init__({name: Head(width, prod(shape)) for name, shape in out_shapes.items()})
        self.out_shapes = dict(out_shapes)

    def forward(self, features: Tensor, offsets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named tensors (*batch, *out_shape) from (*batch, width), each with its offset where there is one."""
        heads: dict[str, tuple[Any, Tensor | None]] = {n: (self[n], offsets.get(n)) for n in self.out_shapes}
        sizes = [head.out_features for head, _ in heads.values()]
        if len(heads) > 1 and sum(sizes) <= NARROW:
            weight = torch.cat([head.weight for head, _ in heads.values()])
            start = torch.cat([head.add_to_bias(offset) for head, offset in heads.values()])
            flat = add_offset(linear(features, weight), start).split(sizes, -1)
        else:
            flat = tuple(head(features, offset) for head, offset in heads.values())
        return {name: reshape_last(each, self.out_shapes[name]) for name, each in zip(heads, flat, strict=True)}


class Head(nn.Linear):
    """A linear map whose bias starts from an offset, in one pass over memory for both."""

    def forward(self, features: Tensor, offset: Tensor | None = None) -> Tensor:
        """Outputs (*batch, size) from features (*batch, width)."""
        return add_offset(linear(features, self.weight), self.add_to_bias(offset))

    def add_to_bias(self, offset: Tensor | None) -> Tensor:
        """Bias with the offset added, (size,)."""
        return self.bias if offset is None else self.bias + offset.flatten()


def add_offset(fresh: Tensor, offset: Tensor) -> Tensor:
    """Sum of two tensors, in place in the first without gradients; with them autograd would copy a view."""
    alike = fresh.dtype == offset.dtype  # or the sum would be of the lower precision
    return fresh.add_(offset) if alike and not fresh.requires_grad else fresh + offset


def reshape_last(flat: Tensor, shape: Shape) -> Tensor:
    """Tensor whose last dimension is given a shape; vectors stay as they are, for every view costs a step time."""
    return flat if len(shape) == 1 else flat.reshape((*flat.shape[:-1], *shape))
