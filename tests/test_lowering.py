"""Lowering: the same function by the same draws, or a reason why not; evidence and training that are compiled."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from measured import estimate, exact, rows, truth
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.criticism import Importance
from pyro_vae.lowering import CannotLower, difference, lowered

# Evidence


@pytest.mark.slow  # a compiler runs for half a minute
def test_compiled_evidence_is_the_same_by_the_same_draws() -> None:
    x = rows(25)
    options = {"draws": 200, "draws_at_once": 60, "batch_size": 10}  # with rests of draws and of rows
    vae = exact(spread=1.5)
    plain, compiled = (estimate(vae, x, **options, compiled=compiled) for compiled in (False, True))
    torch.testing.assert_close(plain.pointwise, compiled.pointwise, rtol=0, atol=1e-8)
    torch.testing.assert_close(plain.error, compiled.error, rtol=1e-6, atol=1e-10)
    assert float(((compiled.pointwise - truth(x)) / compiled.error).abs().max()) < 4.5


def without_compiler(monkeypatch: pytest.MonkeyPatch, change: Any = lambda recorded: recorded) -> None:
    """Stand in for the compiler, which takes long: what was recorded, changed."""
    monkeypatch.setattr(torch, "compile", lambda recorded, options: change(recorded))


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    without_compiler(monkeypatch)
    return


@pytest.mark.usefixtures("recording")
def test_what_is_recorded_is_the_function_with_its_random_numbers() -> None:
    x = rows(25)
    options = {"draws": 200, "draws_at_once": 60, "batch_size": 10, "proposal": "defensive"}
    vae = exact(spread=1.5)
    plain, compiled = (estimate(vae, x, **options, compiled=compiled) for compiled in (False, True))
    torch.testing.assert_close(plain.pointwise, compiled.pointwise, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("recording")
def test_a_fresh_model_is_recorded_at_once_and_held_to_the_precision_of_its_weights() -> None:
    vae = pv.VAE((5,), 2, encoder=pv.MLP(hidden=(6,)))  # in float32, whose log weights are summed in float64
    found = estimate(vae, 100 * rows(8).float(), draws=40, draws_at_once=20, batch_size=8, compiled=True)
    assert len(found.pointwise) == 8  # and no warning, which would be an error here


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda recorded: lambda batch: recorded(batch) + 0.01, "value 0 differs by 0.1"),
        (lambda recorded: 1 / 0, "ZeroDivisionError"),
    ],
    ids=["other values", "no compiler"],
)
def test_what_fails_is_told_and_runs_as_it_is(change: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch, change)
    vae, x = exact(spread=1.5), rows(5)
    plain = estimate(vae, x, draws=50)
    with pytest.warns(UserWarning, match=f"evidence runs uncompiled, .*{said}"):
        found = estimate(vae, x, draws=50, draws_at_once=50, compiled=True)
    torch.testing.assert_close(found.pointwise, plain.pointwise, rtol=0, atol=1e-12)


def test_a_refined_proposal_is_not_compiled() -> None:
    with pytest.raises(pv.InputError, match="leave one of the two out"):
        Importance(proposal="refined", compiled=True)


# What cannot be lowered


class Held(nn.Module):
    """Something with a weight, a buffer and a count."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0


class Forgetting(torch.autograd.Function):
    """A function whose own backward pass is not that of its forward pass."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.exp()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * gradient


def waits(held: Held, batch: Any) -> Tensor:
    return held.weight if float(batch["x"].sum()) > 0 else -held.weight


def counts(held: Held, batch: Any) -> Tensor:
    held.calls += 1
    return held.weight * batch["x"] * held.calls


def branches(held: Held, batch: Any) -> Tensor:
    held.calls += 1
    return held.weight.exp() if held.calls % 2 else held.weight * batch["x"]


def python_draws(held: Held, batch: Any) -> Tensor:
    return held.weight * batch["x"] * random.random()


def numpy_draws(held: Held, batch: Any) -> Tensor:
    return held.weight * batch["x"] * torch.tensor(np.random.rand())  # noqa: NPY002


def own_backward(held: Held, batch: Any) -> Tensor:
    return Forgetting.apply(held.weight) * batch["x"]


CANNOT = {
    "waits for a value": (waits, "GuardOnDataDependent|data-dependent"),
    "counts its calls": (counts, "value 0 differs"),
    "changes its structure": (branches, "value 0 differs"),
    "draws from Python": (python_draws, "change from run to run"),
    "draws from numpy": (numpy_draws, "change from run to run"),
    "has a backward pass of its own": (own_backward, "the gradient to weight differs"),
}


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("name", CANNOT)
def test_a_function_that_is_no_one_graph_is_refused_and_nothing_is_changed(name: str) -> None:
    function, said = CANNOT[name]
    held = Held()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with pytest.raises(CannotLower, match=said):
        lowered(lambda batch: function(held, batch), held, {"x": torch.ones(3)})
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert held.weight.grad is None
    assert float(held.seen) == 0


@pytest.mark.usefixtures("recording")
def test_a_buffer_that_a_function_changes_is_changed_by_the_graph_too() -> None:
    held = Held()

    def function(batch: Any) -> Tensor:
        held.seen.add_(batch["x"].sum())
        return held.weight * held.seen

    graph = lowered(function, held, {"x": torch.ones(3)})
    assert float(held.seen) == 0
    for number in (1, 2):
        torch.testing.assert_close(graph({"x": torch.ones(3)}), held.weight * 3 * number)
    assert float(held.seen) == 6


@pytest.mark.usefixtures("recording")
def test_programs_that_become_others_later_are_noticed() -> None:
    held, sign = Held(), [1.0]

    def function(batch: Any) -> Tensor:
        return sign[0] * held.weight * batch["x"]

    graph = lowered(function, held, {"x": torch.ones(3)})
    assert difference(graph, function, held, {"x": torch.full((3,), 2.0)}) == ""
    sign[0] = 1.01
    assert difference(graph, function, held, {"x": torch.ones(3)}).startswith("value 0 differs by 0.0")


@pytest.mark.usefixtures("recording")
def test_a_program_that_registers_modules_leaves_no_trace_in_pyros_store() -> None:
    decoder = nn.Linear(2, 3)

    def function(batch: Any) -> Tensor:
        pyro.module("decoder", decoder)
        z = pyro.sample("z", dist.Normal(torch.zeros(len(batch["x"]), 2), 1.0).to_event(1))
        return (decoder(z) - batch["x"]).square().sum(-1)

    pyro.clear_param_store()
    graph = lowered(function, decoder, {"x": torch.ones(4, 3)})
    assert not [name for name in pyro.get_param_store() if "FakeTensor" in repr(pyro.param(name))]
    torch.manual_seed(0)
    found = graph({"x": torch.ones(4, 3)})
    torch.manual_seed(0)
    torch.testing.assert_close(found, function({"x": torch.ones(4, 3)}))
    pyro.clear_param_store()
