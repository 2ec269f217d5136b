"""`fit(compile=True)`: the same training by the same random numbers, or a warning and the training as it is.

But for the slow tests, what was recorded stands in for what a compiler makes of it: that takes half a minute.
"""

import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.fitting import ELBO, first_order, fit, initialized, overflowing, rows, small
from helpers.programs import CHOSEN
from helpers.resuming import require_resumable
from torch import Tensor, nn

import pyro_vae as pv
import pyro_vae.training.compiled as compiled
import pyro_vae.training.loop as loop
from pyro_vae.compile import tracing
from pyro_vae.schedules import GECO, Linear
from pyro_vae.training.step import TrainStep


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs that were recorded; each counts its calls."""
    made: list[Any] = []

    class Graph:
        def __init__(self, recorded: Any, inputs: Any) -> None:
            self.recorded, self.calls = recorded, 0
            made.append(self)

        def __call__(self, *tensors: Any) -> Any:
            self.calls += 1
            return self.recorded(*tensors)

    monkeypatch.setattr(tracing, "compile_graph", Graph)
    return made


def both(make: Any, x: Any, **arguments: Any) -> list[tuple[Any, pv.History]]:
    """The same training as it is, and compiled."""
    trained = []
    for compile in (False, True):
        programs = make()
        trained.append((programs, fit(programs, x, compile=compile, **arguments)))
    return trained


def require_alike(trained: list[tuple[Any, pv.History]], rtol: float = 1e-4) -> None:
    (eager, first), (compiled, second) = trained
    for (name, weight), other in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=rtol, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")
    assert first.columns == second.columns
    for column in set(first.columns) - {"seconds"}:
        np.testing.assert_allclose(first[column], second[column], rtol=10 * rtol, atol=1e-4, err_msg=column)


INNER = [ELBO(estimator="stl"), pv.objectives.IWAE(3, "dreg")]  # which take gradients within the loss
TIMED = [ELBO(beta=Linear(0, 1, 2)), ELBO(beta=GECO(rate=1)), ELBO(free_bits=Linear(0.5, 0, 2), particles=3)]


SOME = (CHOSEN["RWS"], TIMED[1])


@pytest.mark.parametrize(
    "objective",
    [pytest.param(one, marks=() if one in SOME else pytest.mark.slow) for one in (*CHOSEN.values(), *INNER, *TIMED)],
    ids=repr,
)
def test_every_objective_trains_as_it_does_uncompiled(objective: Any, graphs: list[Any]) -> None:
    require_alike(both(small, rows(), objective=objective, optimizer=pv.Adam(0.01)))
    assert [graph.calls for graph in graphs] == [2 * 3 - 1 + 1]  # whole batches after the first, and a look


@pytest.mark.parametrize(
    "words",
    [
        {"likelihood": pv.StudentT()},
        {"prior": pv.VampPrior(5), "encoder": pv.MLP((6,))},
        pytest.param({"likelihood": pv.Normal()}, marks=pytest.mark.slow),
        pytest.param({"guide": pv.MultivariateNormal()}, marks=pytest.mark.slow),
        pytest.param({"guide": pv.Flow()}, marks=pytest.mark.slow),
        pytest.param({"prior": pv.Mixture(pv.Normal(), components=3)}, marks=pytest.mark.slow),
    ],
    ids=lambda words: ", ".join(f"{key} {type(word).__name__}" for key, word in words.items()),
)
def test_priors_likelihoods_and_guides_train_as_they_do_uncompiled(words: dict[str, Any], graphs: list[Any]) -> None:
    require_alike(both(lambda: small(**words), rows(), optimizer=pv.Adam(0.01)))
    assert len(graphs) == 1


@pytest.mark.usefixtures("graphs")
def test_compiled_fit_supports_masks_and_dynamic_rows() -> None:
    x = rows()
    require_alike(both(small, {"x": x, "mask": x > -1}, optimizer=pv.Adam(0.01)))
    dynamic = pv.data.Rows({"x": x.sigmoid()}, dynamic=True)
    require_alike(both(lambda: small(likelihood=pv.Bernoulli()), dynamic, optimizer=pv.Adam(0.01)))


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [
        pytest.param(optimizer, precision, marks=() if precision == fast else pytest.mark.slow)
        for optimizer, fast in (
            (pv.Adam(0.01, clip_norm=1.0, ema=0.9, max_nonfinite_steps=3, lr_by_part={"likelihood": 0.001}), "64-true"),
            (pv.Adam(0.01, accumulate_grad_batches=2, clip_norm=1.0, ema=0.9), "64-true"),
            (pv.SGD(Linear(0.01, 0, 3), momentum=0.9), "bf16-mixed"),
            (functools.partial(torch.optim.RMSprop, lr=0.01), "bf16-mixed"),
        )
        for precision in ("64-true", "bf16-mixed")
    ],
)
def test_compiled_fit_supports_accumulation_clipping_and_precision(optimizer: Any, precision: Any) -> None:
    runtime = pv.Runtime("cpu", precision)
    rtol = 1e-6 if precision == "64-true" else 2e-2
    require_alike(both(small, rows(), optimizer=optimizer, runtime=runtime), rtol)


def test_graph_draws_new_numbers_each_step(graphs: list[Any]) -> None:
    seen: list[float] = []
    vae, x = small(), rows(20)
    original = TrainStep.finish_step

    def after(self: TrainStep, summed: Any, rows: int) -> None:
        seen.append(float(summed[0]))
        original(self, summed, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "finish_step", after)
        fit(vae, x, compile=True, epochs=6, optimizer=pv.SGD(1e-300))
    assert graphs[0].calls == 5 + 1
    assert len(set(seen)) == 6


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(pv.Adam(0.01), marks=pytest.mark.slow),
        pv.AdamW(Linear(0.02, 0, 3), ema=0.9, clip_norm=1, accumulate_grad_batches=2),
    ],
)
def test_compiled_fit_resumes_bit_for_bit(optimizer: Any, tmp_path: Path) -> None:
    dynamic = pv.data.Rows({"x": rows(22).sigmoid()}, dynamic=True)
    require_resumable(
        lambda: small(likelihood=pv.Bernoulli()),
        dynamic,
        tmp_path,
        lambda files: [files[1], files[-2]],
        optimizer=optimizer,
        objective=ELBO(beta=GECO(rate=1)),
        validation=dynamic,
        compile=True,
    )


# What is not compiled


class Stored(nn.Module):
    """Programs with a weight in Pyro's store."""

    def model(self, x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pass


class Turning(nn.Module):
    """Programs that become others after so many calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(3))
        self.calls, self.left = [0], calls

    def model(self, x: Tensor) -> None:
        self.calls[0] += 1
        scale = 1.0 if self.calls[0] < self.left else 2.0
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.loc, scale).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pass


@pytest.mark.usefixtures("graphs")
def test_programs_that_change_are_trained_uncompiled_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "RECHECK_EVERY_STEPS", 1)
    programs = Turning(12)  # the dry run that finds the weights, recordings and looks, and then a look each epoch
    with pytest.warns(UserWarning, match=r"training runs uncompiled: from epoch \d+ on, value 0 differs") as told:
        fit(programs, rows(40), compile=True, epochs=12)
    assert len(told) == 1


def test_missing_compiler_is_a_warning_and_for_auto_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(recorded: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(tracing, "compile_graph", fails)
    trained = [(vae := small(), fit(vae, rows()))]
    with pytest.warns(UserWarning, match="training runs uncompiled: RuntimeError: no C"):
        trained.append((vae := small(), fit(vae, rows(), compile=True)))
    require_alike(trained, 1e-12)
    monkeypatch.setitem(loop.COMPILE_FROM_STEPS, "other", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(small(), rows(), compile="auto")


@pytest.mark.usefixtures("graphs")
def test_weights_in_the_store_train_as_they_do_uncompiled() -> None:
    found = []
    for compile in (False, True):
        pyro.clear_param_store()
        history = fit(Stored(), rows(), compile=compile, optimizer=pv.Adam(0.01))
        found.append((pyro.param("loc").detach().clone(), history["loss"]))
    pyro.clear_param_store()
    torch.testing.assert_close(found[0][0], found[1][0])
    assert float(found[0][0].abs().min()) > 0
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(0, id="first step", marks=pytest.mark.slow),
        pytest.param(25, id="when it is recorded"),
        pytest.param(45, id="short step", marks=pytest.mark.slow),
    ],
)
def test_compiled_nonfinite_steps_are_left_out_and_counted(place: int, graphs: list[Any]) -> None:
    x = overflowing(first_order()[place])
    trained = both(initialized, x, optimizer=pv.Adam(0.01, max_nonfinite_steps=9, ema=0.9))
    require_alike(trained)
    assert trained[1][1]["skipped"].tolist() == [1, 1, 1]
    assert len(graphs) == 1


@pytest.mark.usefixtures("graphs")
def test_precision_that_scales_gradients_by_what_it_finds_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.plugins.precision import Precision

    monkeypatch.setattr(Precision, "scaler", object(), raising=False)
    with pytest.warns(UserWarning, match="training runs uncompiled: precision='16-mixed' scales each step by what"):
        fit(small(), rows(), compile=True)


def test_auto_compiles_long_trainings_only_and_goes_on_as_it_began(
    graphs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loop.COMPILE_FROM_STEPS, "other", 9)  # three steps an epoch
    plan = {"run": tmp_path / "run", "checkpoints": pv.Checkpoints()}
    for epochs, expected in ((2, 0), (3, 1)):
        graphs.clear()
        fit(small(), rows(), compile="auto", epochs=epochs)
        assert len(graphs) == expected
    graphs.clear()
    fit(small(), rows(), compile="auto", epochs=2, **plan)
    fit(small(), rows(), compile="auto", epochs=5, resume=True, **plan)
    assert graphs == []  # or the weights would not be those of a training that was not interrupted


def test_compile_refuses_unknown_choices() -> None:
    with pytest.raises(pv.InputError, match="compile = 'yes' has to be True, False or 'auto'"):
        fit(small(), rows(), compile="yes")


# With a compiler


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "objective"),
    [
        ({}, ELBO(beta=Linear(0, 1, 2))),
        ({"likelihood": pv.Mixture(pv.Normal(), components=3)}, ELBO()),
        ({"guide": pv.Flow()}, CHOSEN["IWAE"]),
    ],
    ids=["a schedule", "a mixture, whose gradient is its own", "a flow"],
)
def test_compiled_training_is_the_same_by_the_same_random_numbers(words: Any, objective: Any) -> None:
    trained = []
    for compile in (False, True):
        vae = small(**words)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            trained.append((vae, fit(vae, rows(), compile=compile, objective=objective, optimizer=pv.Adam(0.01))))
    said = [str(each.message) for each in told if "uncompiled" in str(each.message)]
    print(said)
    require_alike(trained, 1e-3)


@pytest.mark.slow
def test_compiled_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    require_resumable(
        small, rows(), tmp_path, lambda files: [files[3]], optimizer=pv.Adam(Linear(0.02, 0, 3), ema=0.9), compile=True
    )
