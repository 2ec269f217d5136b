"""Lowering: the same function by the same draws, or a reason why not; evidence and training that are compiled."""

import math
import random
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.exact_models import estimate, exact, rows, truth
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.compile import tracing
from pyro_vae.compile.tracing import NotCompilable, compile_function
from pyro_vae.criticism import Importance

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
    monkeypatch.setattr(tracing, "compile_graph", lambda recorded, inputs: change(recorded))


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    without_compiler(monkeypatch)
    return


@pytest.mark.usefixtures("recording")
def test_graph_is_the_function_with_its_random_numbers() -> None:
    x = rows(25)
    options = {"draws": 200, "draws_at_once": 60, "batch_size": 10, "proposal": "defensive"}
    vae = exact(spread=1.5)
    plain, compiled = (estimate(vae, x, **options, compiled=compiled) for compiled in (False, True))
    torch.testing.assert_close(plain.pointwise, compiled.pointwise, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("recording")
def test_fresh_model_is_recorded_at_once_and_held_to_the_precision_of_its_weights() -> None:
    vae = pv.VAE((5,), 2, encoder=pv.MLP(hidden=(6,)))  # in float32, whose log weights are summed in float64
    found = estimate(vae, 100 * rows(8).float(), draws=40, draws_at_once=20, batch_size=8, compiled=True)
    assert len(found.pointwise) == 8  # and no warning, which would be an error here


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda recorded: lambda *tensors: [value + 0.01 for value in recorded(*tensors)], "value 0 differs by 0.1"),
        (lambda recorded: 1 / 0, "ZeroDivisionError"),
    ],
    ids=["other values", "no compiler"],
)
def test_failed_compilation_is_reported_and_runs_uncompiled(
    change: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_compiler(monkeypatch, change)
    vae, x = exact(spread=1.5), rows(5)
    plain = estimate(vae, x, draws=50)
    with pytest.warns(UserWarning, match=f"evidence runs uncompiled, .*{said}"):
        found = estimate(vae, x, draws=50, draws_at_once=50, compiled=True)
    torch.testing.assert_close(found.pointwise, plain.pointwise, rtol=0, atol=1e-12)


def test_refined_proposal_is_not_compiled() -> None:
    with pytest.raises(pv.InputError, match="leave one of the two out"):
        Importance(proposal="refined", compiled=True)


# What cannot be compiled


class Held(nn.Module):
    """Something with a weight, a buffer and a count."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    @property
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {"tensors": {"weight": self.weight, "seen": self.seen}}


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


def waits_for_a_weight(held: Held, batch: Any) -> Tensor:
    return batch["x"] * held.weight[0].item()


def reads_rows(held: Held, batch: Any) -> Tensor:
    return held.weight * sum(batch["x"].tolist())


def reads_weights(held: Held, batch: Any) -> Tensor:
    return batch["x"] * float(held.weight.detach().numpy().sum())


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


CHANGES = "its structure or its constants change from run to run"
CANNOT = {
    "waits for a row": (waits, "it needs a value on the host"),
    "waits for a weight": (waits_for_a_weight, "it needs a value on the host"),
    "reads rows": (reads_rows, CHANGES),
    "reads weights": (reads_weights, CHANGES),
    "counts its calls": (counts, CHANGES),
    "changes its structure": (branches, CHANGES),
    "draws from Python": (python_draws, CHANGES),
    "draws from numpy": (numpy_draws, CHANGES),
}
X = torch.tensor([1.0, 2.0, 4.0])


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("name", CANNOT)
def test_function_of_several_graphs_is_refused_and_nothing_is_changed(name: str) -> None:
    function, said = CANNOT[name]
    held = Held()
    weight = held.weight.detach().clone()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with pytest.raises(NotCompilable, match=said):
        compile_function(lambda batch: function(held, batch), held.tensors, {"x": X})
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert held.weight.grad is None
    assert torch.equal(held.weight, weight)
    assert float(held.seen) == 0


@pytest.mark.usefixtures("recording")
def test_graph_changes_what_the_function_changes() -> None:
    held = Held()

    def function(batch: Any) -> Tensor:
        held.seen.add_(batch["x"].sum())
        return held.weight * held.seen

    graph = compile_function(function, held.tensors, {"x": torch.ones(3)})
    assert float(held.seen) == 0
    for number in (1, 2):
        torch.testing.assert_close(graph({"x": torch.ones(3)}), held.weight * 3 * number)
    assert float(held.seen) == 6


@pytest.mark.usefixtures("recording")
def test_gradient_is_what_the_function_says_it_is() -> None:
    held = Held()

    def slope(batch: Any) -> Tensor:
        return torch.autograd.grad((Forgetting.apply(held.weight) * batch["x"]).sum(), held.weight)[0]

    torch.testing.assert_close(compile_function(slope, held.tensors, {"x": X})({"x": 2 * X}), 6 * X)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda held: held.weight.mul_(1.05), "its change of weight (tensors) differs by"),
        (lambda held: held.seen.add_(0.01), "its change of seen (tensors) differs by"),
    ],
    ids=["a weight", "a buffer"],
)
def test_graph_that_leaves_something_else_behind_is_refused(
    wrong: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()

    def compiler(graph: Any) -> Any:
        def run(*tensors: Any) -> Any:
            values = graph(*tensors)
            wrong(held)
            return values

        return run

    def function(batch: Any) -> Tensor:
        with torch.no_grad():
            held.weight.mul_(1.1)
            held.seen.add_(1)
        return batch["x"].sum()

    without_compiler(monkeypatch, compiler)
    with pytest.raises(NotCompilable, match=re.escape(said)):
        compile_function(function, held.tensors, {"x": X})
    without_compiler(monkeypatch)
    compile_function(function, held.tensors, {"x": X})


@pytest.mark.usefixtures("recording")
def test_programs_that_become_others_later_are_noticed() -> None:
    held, sign = Held(), [1.0]

    def function(batch: Any) -> Tensor:
        return sign[0] * held.weight * batch["x"]

    graph = compile_function(function, held.tensors, {"x": X})
    assert graph.difference({"x": 2 * X}) == ""
    sign[0] = 1.01
    assert graph.difference({"x": X}).startswith("value 0 differs by 0.0")


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize(
    "odd",
    [torch.ones(4), torch.ones(3, 2)[:, 0], torch.ones(2, 3), torch.ones(3, dtype=torch.float64)],
    ids=["n", "stride", "rank", "type"],
)
def test_graph_refuses_tensors_of_another_shape_stride_or_type(odd: Tensor) -> None:
    held = Held()
    graph = compile_function(lambda batch: held.weight * batch["x"], held.tensors, {"x": torch.ones(3)})
    graph({"x": torch.zeros(3)})
    with pytest.raises(ValueError, match="for no other types, shapes and strides"):
        graph({"x": odd})


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize(("was", "same"), [(math.nan, True), (math.inf, True), (1.0, False)])
def test_nan_in_both_is_equal(was: float, same: bool) -> None:
    held, other = Held(), [was]

    def function(batch: Any) -> Tensor:
        return torch.stack([held.weight.sum() * batch["x"].sum(), torch.full((), other[0])])

    graph = compile_function(function, held.tensors, {"x": X})
    assert graph.difference({"x": X}) == ""
    other[0] = was if same else math.nan
    assert (graph.difference({"x": X}) == "") is same


@pytest.mark.usefixtures("recording")
def test_another_number_of_values_is_a_difference_too() -> None:
    held, more = Held(), []

    def function(batch: Any) -> list[Tensor]:
        return [held.weight * batch["x"], *more]

    graph = compile_function(function, held.tensors, {"x": X})
    more.append(X)
    assert graph.difference({"x": X}) == "there are 2 values, and not 1"


@pytest.mark.usefixtures("recording")
def test_program_that_registers_modules_leaves_no_trace_in_pyros_store() -> None:
    decoder = nn.Linear(2, 3)

    def function(batch: Any) -> Tensor:
        pyro.module("decoder", decoder)
        z = pyro.sample("z", dist.Normal(torch.zeros(len(batch["x"]), 2), 1.0).to_event(1))
        return (decoder(z) - batch["x"]).square().sum(-1)

    pyro.clear_param_store()
    graph = compile_function(function, {"weights": dict(decoder.named_parameters())}, {"x": torch.ones(4, 3)})
    names = ("decoder$$$weight", "decoder$$$bias")
    assert all(pyro.param(name) is weight for name, weight in zip(names, decoder.parameters(), strict=True))
    torch.manual_seed(0)
    found = graph({"x": torch.ones(4, 3)})
    torch.manual_seed(0)
    torch.testing.assert_close(found, function({"x": torch.ones(4, 3)}))
    pyro.clear_param_store()
