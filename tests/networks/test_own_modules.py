"""A module of the user's own as a network: what it may return, and what is refused."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from helpers import cases
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.core.errors import InputError
from pyro_vae.networks.base import build_network

Shape = tuple[int, ...]
Outputs = Mapping[str, Shape]

CONTEXT: Shape = (3,)
WANTED: Outputs = {"loc": (2, 4), "scale": ()}


class Own(nn.Module):
    """Two linear maps, whose results `pack` hands over in some way."""

    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.loc, self.scale = nn.Linear(3, 8), nn.Linear(3, 1)
        self.norm, self.frozen = nn.BatchNorm1d(3), nn.Dropout().eval()
        self.pack = pack

    def forward(self, rows: Tensor) -> Any:
        rows = self.norm(rows)
        return self.pack(self.loc(rows).reshape(-1, 2, 4), self.scale(rows).squeeze(-1))


def own(pack: Callable[[Tensor, Tensor], Any], wanted: Outputs = WANTED) -> nn.Module:
    torch.manual_seed(0)
    return build_network(Own(pack), CONTEXT, wanted, where="likelihood Normal").eval()


PACKS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "dict": lambda loc, scale: {"loc": loc, "scale": scale},
    "any order": lambda loc, scale: {"scale": scale, "loc": loc},
    "more": lambda loc, scale: {"loc": loc, "scale": scale, "attention": rest(loc)},
    "tuple": lambda loc, scale: (loc, scale),
    "list": lambda loc, scale: [loc, scale],
    "flat": lambda loc, scale: (loc.flatten(1), scale.unsqueeze(-1)),
}


def rest(loc: Tensor) -> Tensor:
    return loc.mean()


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_own_module_returns_its_outputs_by_name(pack: Callable[[Tensor, Tensor], Any]) -> None:
    module, x = own(pack), torch.randn(2, 5, 3)
    outputs = module(x)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {"loc": (2, 5, 2, 4), "scale": (2, 5)}
    rows = module.module.norm(x.reshape(-1, 3))
    torch.testing.assert_close(outputs["loc"], module.module.loc(rows).reshape(2, 5, 2, 4))
    torch.testing.assert_close(outputs["scale"], module.module.scale(rows).reshape(2, 5))


def test_own_module_may_return_one_tensor_for_one_parameter() -> None:
    module = own(lambda loc, scale: loc, {"loc": (2, 4)})
    assert module(torch.randn(3)).keys() == {"loc"}
    assert module(torch.randn(6, 3))["loc"].shape == (6, 2, 4)


WRONG: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "one tensor for two": (lambda loc, scale: loc, r"returns 1 tensor; .*loc: \(N, 2, 4\), scale: \(N\)"),
    "three for two": (lambda loc, scale: (loc, scale, scale), r"returns 3 tensors; .*loc: \(N, 2, 4\)"),
    "a name missing": (lambda loc, scale: {"loc": loc}, r"returns \['loc'\]; .*scale: \(N\)"),
    "another name": (lambda loc, scale: {"mean": loc, 0: scale}, r"returns \['mean', 0\]; .*loc: \(N, 2, 4\)"),
    "nothing": (lambda loc, scale: None, r"returns NoneType; .*loc: \(N, 2, 4\), scale: \(N\)"),
    "no tensor": (lambda loc, scale: (loc, 1.0), r"scale as a float .*\(2,\)"),
    "too few numbers": (lambda loc, scale: (loc[:, :1], scale), r"loc of shape \(2, 1, 4\) .* has to be \(2, 2, 4\)"),
    "too many numbers": (lambda loc, scale: (loc, loc), r"scale of shape \(2, 2, 4\) .* has to be \(2,\)"),
    "transposed": (lambda loc, scale: (loc.mT, scale), r"loc of shape \(2, 4, 2\) .* has to be \(2, 2, 4\)"),
    "no rows": (lambda loc, scale: (loc.mean(0), scale), r"loc of shape \(2, 4\) .* has to be \(2, 2, 4\)"),
    "one row": (lambda loc, scale: (loc, scale.mean()), r"scale of shape \(\) .* has to be \(2,\)"),
    "fails to multiply": (lambda loc, scale: loc @ loc, r"your network fails on rows of shape \(2, 3\): .*\[2, 4\]"),
    "fails to find": (lambda loc, scale: {}["loc"], r"your network fails on rows of shape \(2, 3\): .*loc"),
    "fails to call": (lambda loc, scale: loc.no_such(), r"your network fails on rows of shape \(2, 3\): .*no_such"),
}


@pytest.mark.parametrize(("pack", "message"), WRONG.values(), ids=WRONG)
def test_wrong_own_module_is_refused(pack: Callable[[Tensor, Tensor], Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^likelihood Normal: (?s:.*){message}"):
        own(pack)


@pytest.mark.parametrize(
    "network", [None, pv.MLP, "MLP", 3, lambda x: x], ids=["none", "class", "name", "number", "function"]
)
def test_network_of_another_type_is_refused(network: Any) -> None:
    with pytest.raises(InputError, match=r"is not a network: declare one, such as pv.MLP\(hidden=\(400,\)\)"):
        build_network(network, CONTEXT, WANTED, where="likelihood Normal")


@pytest.mark.parametrize("pack", [PACKS["dict"], WRONG["one row"][0], WRONG["fails to find"][0]])
def test_rehearsing_leaves_modes_and_statistics_as_they_were(pack: Callable[[Tensor, Tensor], Any]) -> None:
    module = Own(pack)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = {name: part.training for name, part in module.named_modules()}
    try:
        build_network(module, CONTEXT, WANTED, where="likelihood Normal")
    except InputError:
        assert pack is not PACKS["dict"]
    assert {name: part.training for name, part in module.named_modules()} == modes
    assert set(modes.values()) == {True, False}
    assert cases.same(before, module.state_dict())


def test_own_module_may_be_in_float64() -> None:
    module = build_network(Own(PACKS["dict"]).double(), CONTEXT, WANTED, where="likelihood Normal")
    assert module(torch.randn(4, 3, dtype=torch.float64))["loc"].dtype == torch.float64
