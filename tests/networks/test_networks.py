"""Networks map tensors with any leading dimensions to named tensors, and know no distribution."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from helpers import cases
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.core.errors import InputError
from pyro_vae.networks import NETWORKS, InputNormalization, Network, base
from pyro_vae.networks.base import NARROW, Heads

Shape = tuple[int, ...]
Outputs = Mapping[str, Shape]

over_sizes = pytest.mark.parametrize("size", cases.SIZES, ids=lambda size: "x".join(map(str, size)))
over_networks = pytest.mark.parametrize("name", NETWORKS)


WANTED: Outputs = {"loc": (2, 4), "scale": ()}


def build(network: Network, in_shape: Shape, out_shapes: Outputs, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return network.build(in_shape, out_shapes).double()


def context(*shape: int) -> Tensor:
    return torch.randn(shape, generator=cases.seeded(), dtype=torch.float64)


# ---- laws over the table -------------------------------------------------------------------------------------


def test_table_and_cases_agree() -> None:
    assert set(cases.NETWORKS) == set(NETWORKS)
    for name, declared in NETWORKS.items():
        assert declared.__name__ == name
        assert getattr(pv, name) is declared
        assert isinstance(cases.NETWORKS[name].network, declared)


def test_table_entry_without_a_case_fails() -> None:
    with pytest.raises(LookupError, match=r"tests/helpers/cases\.py"):
        cases.NETWORKS["Unheard"]


@cases.over_maps()
def test_networks_keep_leading_dimensions(network: Network, in_shape: Shape, out_shapes: Outputs) -> None:
    module = build(network, in_shape, out_shapes)
    for leading in (*cases.LEADING, (0,), (2, 0, 3)):
        x = context(*leading, *in_shape)
        outputs, flat = module(x), module(x.reshape(int(np.prod(leading)), *in_shape))
        assert outputs.keys() == out_shapes.keys()
        for name, shape in out_shapes.items():
            assert outputs[name].shape == (*leading, *shape)
            torch.testing.assert_close(outputs[name], flat[name].reshape(outputs[name].shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [3, 5, NARROW - 3])  # of 2, 4 and more outputs than one product is made for
def test_heads_are_linear_maps_of_their_own_whether_made_at_once_or_not(width: int) -> None:
    heads, x = Heads(7, {"loc": (width,), "scale": (2, 2), "last": ()}).double(), context(5, 7).requires_grad_()
    offsets = {"scale": context(2, 2)}
    alone = {name: heads[name](x) + offsets.get(name, torch.zeros(())).flatten() for name in heads}
    found = heads(x, offsets)
    gradients = []
    for outputs in (found, alone):
        total = sum((value.flatten() * (1 + torch.arange(value.numel()))).sum() for value in outputs.values())
        gradients.append(torch.autograd.grad(total, [x, *heads.parameters()], retain_graph=True))
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value.reshape(found[name].shape), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("width", "products"), [(NARROW - 5, 1), (NARROW - 4, 3)])
def test_narrow_heads_are_one_product(width: int, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []
    monkeypatch.setattr(base, "linear", lambda x, weight: made.append(weight) or x @ weight.T)
    Heads(7, {"loc": (width,), "scale": (2, 2), "last": ()})(torch.randn(5, 7), {})
    assert len(made) == products


@cases.over_maps()
@pytest.mark.parametrize("trained", [False, True], ids=["values", "gradients"])
def test_offsets_are_added_to_what_they_name(
    network: Network, in_shape: Shape, out_shapes: Outputs, trained: bool
) -> None:
    module, x = build(network, in_shape, out_shapes), context(2, 3, *in_shape)
    offsets = {name: context(*shape) for name, shape in list(out_shapes.items())[:1]}
    kept = {name: offset.clone() for name, offset in offsets.items()}
    with torch.set_grad_enabled(trained):
        alone, moved = module(x), module(x, offsets)
    for name in out_shapes:
        expected = alone[name] + kept[name] if name in kept else alone[name]
        torch.testing.assert_close(moved[name], expected, rtol=1e-12, atol=1e-12)
        assert moved[name].requires_grad == trained
    assert all(torch.equal(offsets[name], kept[name]) for name in kept)


@dataclass(frozen=True)
class Plain(Network):
    """A network of the user's own, whose module knows nothing of offsets and keeps what it returns."""

    def build(self, in_shape: Shape, out_shapes: Outputs) -> nn.Module:
        return Keeping(in_shape[0], out_shapes)

    def mirror(self) -> "Plain":
        return self


class Keeping(nn.Module):
    def __init__(self, width: int, out_shapes: Outputs) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({name: nn.Linear(width, *shape) for name, shape in out_shapes.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.last = {name: each(x) for name, each in self.maps.items()}
        return self.last


@torch.no_grad()
def test_declared_network_of_ones_own_gets_offsets_and_keeps_its_outputs() -> None:
    vae = pv.VAE((3,), 2, encoder=Plain())
    vae.initialize(torch.randn(50, 3) + 7)
    z = torch.randn(4, 2)
    mean = vae.decode(z).mean
    in_unit = vae.likelihood.network.last["loc"] + vae.likelihood.get_buffer("offset_loc")
    torch.testing.assert_close(mean, vae.likelihood.shift + vae.likelihood.unit * in_unit)
    assert float(mean.mean()) > 5 > float(vae.likelihood.network.last["loc"].mean())


@cases.over_maps()
def test_rows_do_not_mix(network: Network, in_shape: Shape, out_shapes: Outputs) -> None:
    module, x = build(network, in_shape, out_shapes), context(4, *in_shape)
    alone = module(x[2])
    for name, together in module(x).items():
        torch.testing.assert_close(together[2], alone[name], rtol=1e-12, atol=1e-12)
        assert not torch.equal(together[2], together[3])


@cases.over_maps()
def test_gradient_reaches_every_weight(network: Network, in_shape: Shape, out_shapes: Outputs) -> None:
    module = build(network, in_shape, out_shapes)
    sum(output.square().sum() for output in module(context(8, *in_shape)).values()).backward()
    for name, weight in module.named_parameters():
        assert weight.grad is not None, name
        assert bool(torch.isfinite(weight.grad).all()), name
        assert bool((weight.grad != 0).any()), name


@over_networks
def test_every_output_depends_on_every_input(name: str) -> None:
    case = cases.NETWORKS[name]
    for in_shape, out_shapes in case.maps:
        module, x = build(case.network, in_shape, out_shapes), context(1, *in_shape).requires_grad_()
        for output in module(x).values():
            (slope,) = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
            assert bool((slope != 0).all()), "some input is not looked at"
        shifted = module(x + 1)
        for key, output in module(x).items():
            assert bool((shifted[key] != output).all()), f"some of {key} is a constant"


@cases.over_maps()
def test_weights_follow_the_seed_and_the_state_dict(network: Network, in_shape: Shape, out_shapes: Outputs) -> None:
    first, again, other = (build(network, in_shape, out_shapes, seed) for seed in (0, 0, 1))
    x = context(2, *in_shape)
    assert cases.same(first(x), again(x))
    assert not cases.same(first(x), other(x))
    other.load_state_dict(first.state_dict())
    assert cases.same(first(x), other(x))


@cases.over_maps()
def test_mirror_runs_the_other_way(network: Network, in_shape: Shape, out_shapes: Outputs) -> None:
    mirror = network.mirror()
    assert type(mirror) is type(network)
    assert mirror.mirror() == network
    output = next(iter(out_shapes.values()))
    back = build(mirror, output, {"x": in_shape})(context(2, *output))["x"]
    assert back.shape == (2, *in_shape)


# ---- MLP -------------------------------------------------------------------------------------------------------


def test_mlp_is_its_formula() -> None:
    module = build(pv.MLP(hidden=(5, 4), activation="tanh"), (3,), WANTED)
    weights = [weight.detach().numpy() for weight in module.parameters()]
    (w1, b1), (w2, b2), *heads = zip(weights[::2], weights[1::2], strict=True)
    x = context(6, 3)
    hidden = np.tanh(np.tanh(x.numpy() @ w1.T + b1) @ w2.T + b2)
    outputs = module(x)
    for (name, shape), (v, d) in zip(WANTED.items(), heads, strict=True):
        by_hand = (hidden @ v.T + d).reshape(6, *shape)
        np.testing.assert_allclose(outputs[name].detach().numpy(), by_hand, rtol=1e-12, atol=1e-12)


def nonlinearity(network: Network) -> float:
    """How far f(a x + b y) - f(0) is from a (f(x) - f(0)) + b (f(y) - f(0))."""
    module = build(network, (3,), {"loc": (1, 5, 7)})
    f: Callable[[Tensor], Tensor] = lambda rows: module(rows)["loc"]  # noqa: E731
    x, y = context(2, 10, 3)
    zero = f(torch.zeros_like(x))
    gap = f(2 * x - 3 * y) - zero - 2 * (f(x) - zero) + 3 * (f(y) - zero)
    return gap.abs().max().item()


def test_mlp_without_hidden_layers_is_linear() -> None:
    assert nonlinearity(pv.MLP(hidden=())) < 1e-12
    assert nonlinearity(pv.MLP(hidden=(4,))) > 1e-3


# ---- Conv ------------------------------------------------------------------------------------------------------


@over_sizes
def test_conv_halves_rounding_up(size: tuple[int, int]) -> None:
    sizes = pv.Conv(channels=(2, 3, 4)).sizes(*size)
    assert sizes == [tuple(-(-side // 2**level) for side in size) for level in range(4)]


@over_sizes
@pytest.mark.parametrize("channels", [(2,), (2, 3), (2, 3, 4, 5)], ids=str)
def test_conv_encodes_and_decodes_images_of_any_size(channels: Shape, size: tuple[int, int]) -> None:
    network, image = pv.Conv(channels=channels, hidden=4), (3, *size)
    assert build(network, image, {"loc": (2,)})(context(2, *image))["loc"].shape == (2, 2)
    assert build(network.mirror(), (2,), {"loc": image})(context(2, 2))["loc"].shape == (2, *image)


def pixels_of(outputs: Outputs, x: Tensor) -> Tensor:
    """The one output of a decoder with given weights; `outputs` names it."""
    return build(pv.Conv(channels=(2, 3), hidden=4, activation="tanh"), (2,), outputs)(x)[next(iter(outputs))]


@over_sizes
@pytest.mark.parametrize("trailing", [(), (4,), (2, 3)], ids=str)
def test_numbers_of_a_pixel_land_on_that_pixel(size: tuple[int, int], trailing: Shape) -> None:
    # The last layer has C * prod(trailing) channels: with equal weights, an image of that many plain channels
    # has to hold the same numbers, channel c * prod(trailing) + k for number k of channel c.
    channels, each, x = 3, int(np.prod(trailing)), context(5, 2)
    plain = pixels_of({"p": (channels * each, *size)}, x)
    numbers = pixels_of({"p": (channels, *size, *trailing)}, x).reshape(5, channels, *size, each)
    for c in range(channels):
        for k in range(each):
            assert torch.equal(numbers[:, c, :, :, k], plain[:, c * each + k])


def doubled(maps: Any, kernel: Any, bias: Any, size: tuple[int, ...]) -> Any:
    """A 3x3 transposed convolution of stride 2, stamped pixel by pixel, less its first row and column."""
    image = np.zeros((len(bias), 2 * maps.shape[1] + 1, 2 * maps.shape[2] + 1)) + bias[:, None, None]
    for channel, row, column in np.ndindex(maps.shape):
        image[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] += maps[channel, row, column] * kernel[channel]
    return image[:, 1 : 1 + size[0], 1 : 1 + size[1]]


@over_sizes
def test_decoder_is_its_formula(size: tuple[int, int]) -> None:
    module = build(pv.Conv(channels=(2, 3), hidden=4, activation="tanh"), (2,), {"loc": (1, *size)})
    w1, b1, w2, b2, *kernels = (weight.detach().numpy() for weight in module.parameters())
    half, quarter = (tuple(-(-side // 2**level) for side in size) for level in (1, 2))
    x = context(2)
    maps = np.tanh(w2 @ np.tanh(w1 @ x.numpy() + b1) + b2).reshape(3, *quarter)
    by_hand = doubled(np.tanh(doubled(maps, *kernels[:2], half)), *kernels[2:], size)
    np.testing.assert_allclose(module(x)["loc"].detach().numpy(), by_hand, rtol=1e-12, atol=1e-12)


def test_outputs_beside_the_image_do_not_change_it() -> None:
    network, x = pv.Conv(channels=(2, 3), hidden=4), context(3, 2)
    outputs: Outputs = {"loc": (1, 5, 7), "weights": (4,), "scale": ()}
    module, alone = build(network, (2,), outputs), build(network, (2,), {"loc": (1, 5, 7)})
    alone.load_state_dict({name: module.state_dict()[name] for name in alone.state_dict()})
    both = module(x)
    assert torch.equal(both["loc"], alone(x)["loc"])
    assert {name: tuple(value.shape[1:]) for name, value in both.items()} == outputs


@pytest.mark.parametrize(
    ("in_shape", "out_shapes"),
    [((3,), {"loc": (2,)}), ((1, 5, 7), {"loc": (1, 5, 7)}), ((5, 7), {"loc": (2,)})],
    ids=str,
)
def test_conv_refuses_what_has_no_image_side(in_shape: Shape, out_shapes: Outputs) -> None:
    with pytest.raises(InputError, match=r"Conv maps images .* take pv.MLP\(\)"):
        pv.Conv().build(in_shape, out_shapes)
    with pytest.raises(InputError, match=r"Conv.channels is empty"):
        pv.Conv(channels=()).build((1, 5, 7), {"loc": (2,)})


# ---- what a network sees --------------------------------------------------------------------------------------------


def test_inputs_far_from_unit_size_are_centred_and_scaled_and_others_are_left() -> None:
    pixels, thousands = torch.rand(50, 3), 5000 + 2000 * torch.rand(50, 3)
    for x in (pixels, thousands):
        inputs = InputNormalization((3,))
        assert torch.equal(inputs(x), x)
        inputs.adapt(x)
        if x is pixels:
            assert torch.equal(inputs(x), x)
        else:
            torch.testing.assert_close(inputs(x).mean(0), torch.zeros(3), rtol=0, atol=1e-4)
            torch.testing.assert_close(inputs(x).square().mean(), torch.tensor(1.0))
        again = InputNormalization((3,))
        again.load_state_dict(inputs.state_dict())
        assert torch.equal(again(x), inputs(x))
    counts = InputNormalization((3,), torch.log1p)
    assert torch.equal(counts(thousands), torch.log1p(thousands))


def test_encoder_learns_raw_units_as_well_as_standard_ones() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 1) * torch.tensor([1.0, -1.0, 0.5]) + 0.1 * torch.randn(200, 3)
    losses = []
    for rows in (x, 300 + x):
        torch.manual_seed(0)
        vae = pv.VAE((3,), 1, encoder=pv.MLP(hidden=(8,)))
        losses.append(pv.fit(vae, rows, epochs=30, optimizer=pv.Adam(1e-2), progress=False)["loss"][-1])
    assert losses[1] < losses[0] + 0.2
