"""Fully connected networks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from pyro_vae.core.config import field
from pyro_vae.networks.base import ACTIVATIONS, HeadedNetwork, Heads, Network, Shape


@dataclass(frozen=True)
class MLP(Network):
    r"""A multilayer perceptron; `MLP(hidden=())` is linear.

    $$ h_0 = c, \quad h_l = a(W_l h_{l-1} + b_l), \quad f_j(c) = V_j h_L + d_j $$

    Args:
        hidden: units of each hidden layer, from the context to the outputs.
        activation: the nonlinearity a, by name: relu, leaky_relu, elu, gelu, silu, softplus, tanh, sigmoid.

    Raises:
        InputError: a layer without units, an unknown activation.

    >>> MLP(hidden=[200, 100]).mirror()
    MLP(hidden=(100, 200), activation='relu')
    """

    hidden: tuple[int, ...] = field((400,), low=1)
    activation: str = field("relu", known=ACTIVATIONS)

    def build(self, in_shape: Shape, out_shapes: Mapping[str, Shape]) -> nn.Module:
        """Module of this declaration; see `Network.build`."""
        return _MLP(self, in_shape, out_shapes)

    def mirror(self) -> "MLP":
        """The same layers in reverse order."""
        return replace(self, hidden=self.hidden[::-1])


class _MLP(HeadedNetwork):
    def __init__(self, declared: MLP, in_shape: Shape, out_shapes: Mapping[str, Shape]) -> None:
        super().__init__()
        self.in_rank = len(in_shape)
        sizes = (prod(in_shape), *declared.hidden)
        layers = [(nn.Linear(m, n), ACTIVATIONS[declared.activation]()) for m, n in pairwise(sizes)]
        self.body = nn.Sequential(*(part for layer in layers for part in layer))
        self.heads = Heads(sizes[-1], out_shapes)

    def forward(self, context: Tensor, offsets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        flat = context.flatten(context.ndim - self.in_rank) if self.in_rank else context.unsqueeze(-1)
        return self.heads(self.body(flat), offsets or {})
