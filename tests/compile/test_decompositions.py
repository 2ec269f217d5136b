"""Fused kernels written out: optimizers' steps are torch's own, by numbers that follow time; a bias stands apart."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.compile.decompositions import DECOMPOSITIONS

SHAPES = ((3, 4), (5,), ())
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Adam": (torch.optim.Adam, {}),
    "Adam, decay": (torch.optim.Adam, {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
    "Adam, amsgrad, maximize": (torch.optim.Adam, {"amsgrad": True, "maximize": True}),
    "Adam, no memory": (torch.optim.Adam, {"betas": (0.0, 0.9)}),
    "AdamW": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "SGD": (torch.optim.SGD, {"weight_decay": 0.1}),
    "SGD, momentum": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
    "SGD, nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}


def weights() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in SHAPES]


def made(name: str) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    kind, options = OPTIMIZERS[name]
    trained = weights()
    optimizer = kind(trained, lr=0.05, fused=True, **options)
    move(optimizer, trained, slopes(0))
    return optimizer, trained


def slopes(number: int) -> list[Tensor]:
    torch.manual_seed(number + 1)
    return [torch.randn(shape, dtype=torch.float64) for shape in SHAPES]


def move(optimizer: Any, trained: list[Tensor], given: list[Tensor]) -> list[Tensor]:
    for weight, slope in zip(trained, given, strict=True):
        weight.grad = slope
    optimizer.step()
    return []


def kept(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def recorded(optimizer: torch.optim.Optimizer, trained: list[Tensor], like: list[Tensor], *more: Tensor) -> Any:
    """The graph of a step, as a function of gradients like some; recording it makes one, which is taken back."""
    held = [*trained, *kept(optimizer), *more]
    before = [tensor.detach().clone() for tensor in held]

    def step(held: list[Tensor], given: list[Tensor]) -> list[Tensor]:
        return move(optimizer, trained, given)

    graph = make_fx(step, decomposition_table=DECOMPOSITIONS)(held, like)
    assert not [node for node in graph.graph.nodes if "fused" in node.name]
    with torch.no_grad():
        for tensor, value in zip(held, before, strict=True):
            tensor.copy_(value)
    return lambda given: graph(held, given)


def require_same(first: Any, second: Any) -> None:
    for mine, other in zip([*first[1], *kept(first[0])], [*second[1], *kept(second[0])], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_fused_kernels(name: str) -> None:
    ours, theirs = made(name), made(name)
    step = recorded(*ours, slopes(9))
    with torch.no_grad():
        for number in range(1, 6):
            step(slopes(number))
            move(*theirs, slopes(number))
            require_same(ours, theirs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rate_that_is_a_tensor_may_change(name: str) -> None:
    ours, theirs = made(name), made(name)
    rate = torch.tensor(0.05, dtype=torch.float64)
    ours[0].param_groups[0]["lr"] = rate
    step = recorded(*ours, slopes(9), rate)
    with torch.no_grad():
        for number in range(1, 4):
            rate.fill_(0.01 * number)
            theirs[0].param_groups[0]["lr"] = 0.01 * number
            step(slopes(number))
            move(*theirs, slopes(number))
    require_same(ours, theirs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_is_left_out_where_it_is_said_so(name: str) -> None:
    ours, theirs = made(name), made(name)
    found = torch.zeros(())
    for optimizer in (ours[0], theirs[0]):
        vars(optimizer).update(found_inf=found, grad_scale=None)
    step = recorded(*ours, slopes(9), found)
    with torch.no_grad():
        for number, bad in enumerate((0.0, 1.0, 0.0), 1):
            found.fill_(bad)
            before = [weight.clone() for weight in ours[1]]
            step(slopes(number))
            move(*theirs, slopes(number))
            assert all(map(torch.equal, ours[1], before)) == bool(bad)
            require_same(ours, theirs)


def test_first_correction_is_not_lost_in_rounding() -> None:
    slope = [torch.full((3,), 1e-3)]  # in float32, in which 1 - 0.999 has four digits
    trained = []
    for _ in range(2):
        weight = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
        move(optimizer, [weight], slope)
        trained.append((optimizer, [weight]))
    ours, theirs = trained
    step = recorded(*ours, slope)
    with torch.no_grad():
        step(slope)
        move(*theirs, slope)
    torch.testing.assert_close(ours[1], theirs[1], rtol=2e-7, atol=0)


BIASED = {
    "float32": (torch.float32, {}, True),
    "float64": (torch.float64, {}, True),
    "bfloat16": (torch.bfloat16, {}, False),
    "integers": (torch.int64, {}, False),
    "scaled": (torch.float64, {"beta": 0.5}, False),
}


@pytest.mark.parametrize("name", BIASED)
@pytest.mark.parametrize("shape", [(4,), (5, 4), (1, 4), (5, 1)], ids=str)
def test_bias_is_added_separately_where_a_compiler_fuses_it(name: str, shape: tuple[int, ...]) -> None:
    dtype, options, apart = BIASED[name]
    bias, left, right = ((10 * torch.randn(size)).to(dtype) for size in (shape, (5, 3), (3, 4)))

    def product(bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return torch.addmm(bias, left, right, **options)

    graph = make_fx(product, decomposition_table=DECOMPOSITIONS)(bias, left, right)
    assert ("addmm" not in graph.code) is apart
    torch.testing.assert_close(graph(bias, left, right), product(bias, left, right))
