"""Convolutional networks, for images of any size."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.networks.base import ACTIVATIONS, HeadedNetwork, Heads, Network, Shape, add_offset


@dataclass(frozen=True)
class Conv(Network):
    """A convolutional encoder or its mirrored decoder, by which side the images are on.

    The encoder halves height and width with a 3x3 convolution of stride 2 for each entry of `channels`
    (rounding up), then has one hidden layer; the decoder runs the same sizes backwards with transposed
    convolutions. Outputs of a decoder that are not images (mixture weights, say) are linear in its hidden
    layer; outputs with one vector per pixel (class logits) are channels that are moved last.

    Args:
        channels: channels after each halving, from the image to the latent.
        hidden: units of the hidden layer between convolutions and vector.
        activation: the nonlinearity, by name; see `MLP`.

    Raises:
        InputError: neither side is an image (channels, height, width), or both are.

    >>> Conv(channels=[16, 32])
    Conv(channels=(16, 32), hidden=128, activation='relu')
    """

    channels: tuple[int, ...] = field((32, 64), low=1)
    hidden: int = field(128, low=1)
    activation: str = field("relu", known=ACTIVATIONS)

    def build(self, in_shape: Shape, out_shapes: Mapping[str, Shape]) -> nn.Module:
        """Module of this declaration; see `Network.build`."""
        if not self.channels:
            raise InputError("Conv.channels is empty: give at least one, as in Conv(channels=(32,)), or take pv.MLP().")
        image = next((shape[:3] for shape in out_shapes.values() if len(shape) >= 3), None)
        if len(in_shape) == 3 and image is None:
            return _Encoder(self, in_shape, out_shapes)
        if len(in_shape) != 3 and image is not None:
            return _Decoder(self, in_shape, image, out_shapes)
        raise InputError(
            f"Conv maps images (channels, height, width) to vectors or back, and not {in_shape} to "
            f"{dict(out_shapes)}: take pv.MLP(), or reshape the data to images."
        )

    def mirror(self) -> "Conv":
        """Itself: its layers are named from the image's side in both directions."""
        return self

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Heights and widths from the image inwards: halved and rounded up for each entry of `channels`.

        >>> Conv().sizes(5, 7)
        [(5, 7), (3, 4), (2, 2)]
        """
        sizes = [(height, width)]
        for _ in self.channels:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        return sizes


class _Encoder(HeadedNetwork):
    def __init__(self, declared: Conv, in_shape: Shape, out_shapes: Mapping[str, Shape]) -> None:
        super().__init__()
        self.in_shape = in_shape
        channels = (in_shape[0], *declared.channels)
        inner = declared.sizes(in_shape[1], in_shape[2])[-1]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), ACTIVATIONS[declared.activation]()]
        width = channels[-1] * prod(inner)
        layers += [nn.Flatten(), nn.Linear(width, declared.hidden), ACTIVATIONS[declared.activation]()]
        self.body = nn.Sequential(*layers)
        self.heads = Heads(declared.hidden, out_shapes)

    def forward(self, context: Tensor, offsets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        offsets, batch = offsets or {}, context.shape[:-3]
        features = self.body(context.reshape(-1, *self.in_shape))
        return self.heads(features.reshape(*batch, features.shape[-1]), offsets)


class _Decoder(HeadedNetwork):
    def __init__(self, declared: Conv, in_shape: Shape, image: Shape, out_shapes: Mapping[str, Shape]) -> None:
        super().__init__()
        self.in_rank, self.in_size = len(in_shape), prod(in_shape)
        sizes = declared.sizes(image[1], image[2])[::-1]
        inner = (declared.channels[-1], *sizes[0])
        self.images = {name: shape for name, shape in out_shapes.items() if shape[:3] == image}
        self.hidden = nn.Sequential(nn.Linear(self.in_size, declared.hidden), ACTIVATIONS[declared.activation]())
        self.heads = Heads(declared.hidden, {name: s for name, s in out_shapes.items() if name not in self.images})
        layers: list[nn.Module] = [nn.Linear(declared.hidden, prod(inner)), nn.Unflatten(1, inner)]
        for (before, after), size in zip(pairwise(declared.channels[::-1]), sizes[1:], strict=False):
            layers += [ACTIVATIONS[declared.activation](), _upsample(before, after, size)]
        self.body = nn.Sequential(*layers, ACTIVATIONS[declared.activation]())
        self.pixels = nn.ModuleDict(
            {
                name: _upsample(declared.channels[0], prod(shape) // prod(image[1:]), sizes[-1])
                for name, shape in self.images.items()
            }
        )

    def forward(self, context: Tensor, offsets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        offsets, batch = offsets or {}, context.shape[: context.ndim - self.in_rank]
        hidden = self.hidden(context.reshape(-1, self.in_size))
        maps = self.body(hidden)
        outputs: dict[str, Tensor] = self.heads(hidden.reshape(*batch, hidden.shape[-1]), offsets)
        for name, shape in self.images.items():
            pixels = self.pixels[name](maps)
            channels, height, width, *rest = shape
            pixels = pixels.reshape(-1, channels, prod(rest), height, width).movedim(2, -1)
            pixels = pixels.reshape((*batch, *shape))
            outputs[name] = add_offset(pixels, offsets[name]) if name in offsets else pixels
        return outputs


def _upsample(before: int, after: int, size: tuple[int, int]) -> nn.Module:
    """Layer that doubles height and width, less the row or column that rounding up had added."""
    padding = (1 - size[0] % 2, 1 - size[1] % 2)
    return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=padding)
