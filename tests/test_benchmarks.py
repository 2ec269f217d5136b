"""The benchmarks measure what they say: the same loss, the same products, fair turns, slopes and verdicts that hold."""

import dataclasses
import importlib
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import optimizer
from torch.utils.flop_counter import FlopCounterMode

import pyro_vae as pv

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports modules of that folder, which are scripts, and forgets them and their hooks."""
    monkeypatch.syspath_prepend(FOLDER)
    before, hooks = set(sys.modules), set(optimizer._global_optimizer_post_hooks)
    yield importlib.import_module
    for key in set(optimizer._global_optimizer_post_hooks) - hooks:
        del optimizer._global_optimizer_post_hooks[key]
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# The same model


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize(("likelihood", "activation"), [("gaussian", "relu"), ("bernoulli", "softplus")])
def test_loss_by_hand_is_ours(bench: Any, network: str, likelihood: str, activation: str) -> None:
    """At the same weights and draws, in value and gradient, up to the floor under our scales (1e-4 of them)."""
    setting = bench("setting").Setting(network, 8, 5, activation, likelihood)
    hand = bench("by_hand").HandWritten(setting).double()
    encoder = pv.MLP(hidden=(400,), activation=activation) if network == "mlp" else pv.Conv(activation=activation)
    family = pv.Normal(scale="learned") if likelihood == "gaussian" else pv.Bernoulli(grey=True)
    vae = pv.VAE((1, 28, 28), 5, likelihood=family, encoder=encoder).double()
    pairs = [*zip(hand.encoder.parameters(), vae.posterior.network.parameters(), strict=True)]
    pairs += zip(hand.decoder.parameters(), vae.likelihood.network.parameters(), strict=True)
    if likelihood == "gaussian":
        pairs += [(hand.log_noise, vae.likelihood.constants["scale"])]
    with torch.no_grad():
        for mine, other in pairs:
            other.copy_(mine)
    x = torch.rand(8, 1, 28, 28, dtype=torch.double)
    torch.manual_seed(1)
    loss = hand(x)
    loss.backward()
    torch.manual_seed(1)
    with vae.no_param_store():
        ours = pv.objectives.ELBO(kl="analytic").differentiable_loss(vae.model, vae.guide, x=x) / 8
    ours.backward()
    assert float(ours.detach()) == pytest.approx(float(loss.detach()), rel=1e-4)
    for mine, other in pairs:
        assert torch.allclose(mine.grad, other.grad, rtol=1e-3, atol=1e-3 * float(mine.grad.abs().max()))


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("batch", [3, 16])
def test_products_alone_are_those_of_a_step(bench: Any, network: str, batch: int) -> None:
    setting = bench("setting").Setting(network, batch)
    model, alone = bench("by_hand").HandWritten(setting), bench("by_hand").products(setting)
    with FlopCounterMode(display=False) as step:
        model(torch.rand(batch, 1, 28, 28)).backward()
    with FlopCounterMode(display=False) as floor:
        alone()
    assert floor.get_total_flops() == step.get_total_flops() > 0


# Turns


def contender(bench: Any, tmp_path: Path, body: str) -> Any:
    script = tmp_path / "contender.py"
    start = f"import sys\nsys.path.insert(0, {str(FOLDER)!r})\nfrom processes import Gate\ngate = Gate(steps=3)\n"
    script.write_text(start + body)
    return bench("processes").Contender([sys.executable, str(script)], threads=1)


def test_contender_does_as_many_steps_as_a_round_has_and_no_more(bench: Any, tmp_path: Path) -> None:
    log = tmp_path / "steps"
    body = f"""
print('a library that talks')
len(bytearray(b'x') * 200_000_000)  # held no more when training begins
gate.begin()
kept = bytearray(b'x') * 50_000_000
while True:
    open({str(log)!r}, 'a').write('s')
    gate()
"""
    one = contender(bench, tmp_path, body)
    for turn in (1, 2):
        one.turn()
        assert log.read_text() == 3 * turn * "s"
    one.close()
    assert len(one.rounds) == 2
    assert not one.failed
    assert 0 < one.first < one.rounds[0]
    assert 45 < one.peak - one.before < 80
    assert one.process.poll() is not None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit('no licence')", "no licence"),
        ("gate.begin(); gate.fail(ValueError('no such shape\\nin detail'))", "ValueError: no such shape"),
        ("gate.begin(); import os; os.abort()", "ended by itself"),
        ("gate.begin(); import time; time.sleep(60)", "no answer in 1 s"),
    ],
    ids=["exit", "error", "crash", "hang"],
)
def test_contender_that_fails_says_why_and_holds_up_nobody(bench: Any, tmp_path: Path, body: str, reason: str) -> None:
    one = contender(bench, tmp_path, body)
    one.patience = 1.0
    one.turn()
    one.turn()
    one.close()
    assert one.rounds == []
    assert reason in one.failed
    assert one.process.poll() is not None


# Verdicts


@pytest.mark.parametrize(
    ("bound", "least", "verdict"),
    [(1.25, False, "met"), (1.15, False, "missed"), (1.15, True, "met"), (1.25, True, "missed")],
)
def test_target_is_judged_by_the_median_of_ratios_within_rounds(
    bench: Any, bound: float, least: bool, verdict: str
) -> None:
    target = bench("peers").Target("a", "b", bound, least)
    line = target.line({"a": [1.2, 24.0, 5.0], "b": [1.0, 20.0, 1.0]}, {})  # 1.2, 1.2, 5
    assert verdict in line
    assert "1.20 (1.20 to 5.00)" in line


def test_target_of_somebody_who_failed_is_not_judged(bench: Any) -> None:
    target = bench("peers").Target("a", "b", 1.0)
    assert "not measured: no GPU" in target.line({"a": [1.0]}, {"b": "no GPU"})
    assert "not measured: left out" in target.line({"a": [1.0]}, {})


def test_table_scales_to_all_rows_and_shows_who_failed(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    peers = bench("peers")

    class Done:
        rounds, first, peak, before, failed = [9.0, 1.0, 3.0], 0.5, 300.0, 100.0, ""

    class Failed:
        failed = "ModuleNotFoundError: No module named 'pythae'"

    peers.report("mlp-128", {"by hand": Done(), "pythae": Failed()}, 12_900, "cpu")  # 100 batches, 12,800 rows
    told = capsys.readouterr().out
    assert "| by hand | 9.38 | 4.69 to 14.06 | 20.00 |" in told  # 2 s of 12,800 rows
    assert "| 300 | 200 |" in told
    assert "| pythae | not measured: ModuleNotFoundError: No module named 'pythae' |" in told
    rows = [line for line in told.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows[:4]}) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--random", "--rows", "10"], "a batch is 1024"),
        (["--random", "--rounds", "0"], "from 1 on"),
        (["--random", "--root", "data"], "or --random"),
        ([], "or --random"),
        (["--random", "--only", "nobody"], "invalid choice: 'nobody'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    bench: Any, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers.py", *words])
    with pytest.raises(SystemExit) as stopped:
        bench("peers").main()
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pv.fit", "by hand", "Pyro SVI, DataLoader of a tensor", "matrix products alone"])
@pytest.mark.parametrize("setting", ["conv-128", "example"])
def test_everybody_makes_one_step_for_each_batch(bench: Any, name: str, setting: str) -> None:
    class Enough(BaseException):
        pass

    class Turns:
        begun, done = False, 0

        def begin(self) -> None:
            self.begun = True

        def __call__(self) -> None:
            assert self.begun
            self.done += 1
            if self.done == 5:  # one epoch and a half
                raise Enough

    declared = dataclasses.replace(bench("peers").SETTINGS[setting], batch=8)
    images = np.random.default_rng(0).integers(0, 256, (3 * declared.batch, 28, 28), dtype=np.uint8)
    turns = Turns()
    with pytest.raises(Enough):
        bench("contenders").PEERS[name].train(declared, images, turns)
    assert turns.done == 5


def test_eager_training_is_not_taken_for_a_compiled_one(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_vae.compile.tracing import NotCompilable
    from pyro_vae.training import compiled
    from pyro_vae.training.step import TrainStep

    def refuse(*_: Any) -> None:
        raise NotCompilable("the moon is full")

    class Turns:
        steps = 0

        def begin(self) -> None:
            pass

        def __call__(self) -> None:
            self.steps += 1
            assert self.steps < 2, "only the first step is made as it is"

    monkeypatch.setattr(compiled, "compile_function", refuse)
    monkeypatch.setattr(
        TrainStep, "finish_step", TrainStep.finish_step
    )  # which the contender changes, in a process of its own
    images = np.zeros((8, 28, 28), dtype=np.uint8)
    images[::2] = 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as outside of the tests, where a warning is no error
        with pytest.raises(UserWarning, match="the moon is full"):
            bench("contenders").ours_compiled(bench("setting").Setting(batch=4), images, Turns())


@pytest.mark.slow
def test_small_run_from_the_command_line() -> None:
    words = ["--random", "--rows", "512", "--rounds", "1", "--threads", "1", "--settings", "mlp-128"]
    words += ["--only", "pv.fit", "by hand", "matrix products alone"]
    done = subprocess.run([sys.executable, FOLDER / "peers.py", *words], capture_output=True, text=True, check=True)
    assert "random numbers of MNIST's shape, 512 rows" in done.stdout
    for name in ("pv.fit", "by hand", "matrix products alone"):
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(f"| {name} | ") and "to" in line]
        assert float(row.split("|")[2]) > 0, done.stderr
    assert "| pv.fit / by hand | at most 1.35 | " in done.stdout
    assert "not measured: left out" in done.stdout


# Growth


def times(power: float, noise: float, values: tuple[int, ...] = (1, 8, 16, 32, 64, 128)) -> dict[int, list[float]]:
    draws = np.random.default_rng(0).normal(size=(len(values), 5))
    return {v: [0.01 * v**power * math.exp(noise * z) for z in row] for v, row in zip(values, draws, strict=True)}


@pytest.mark.parametrize(
    ("power", "verdict"), [(0.8, "more slowly than linearly"), (1.0, "linearly"), (1.2, "faster than linearly")]
)
def test_slope_is_found_with_its_error_and_judged(bench: Any, power: float, verdict: str) -> None:
    taken = times(power, 0.05)
    taken[1] = [5.0] * 5  # what a step costs at least: not of the large end
    taken = {v: [t * 2**r for r, t in enumerate(row)] for v, row in taken.items()}  # ever slower rounds
    growth = bench("scaling").Growth.of(taken)
    large = (16, 32, 64, 128)
    y = np.array([math.log(t) for v in large for t in taken[v]])
    design = np.array([[math.log(v), *np.eye(5)[r]] for v in large for r in range(5)])
    found, (left,), *_ = np.linalg.lstsq(design, y)
    assert growth.slope == pytest.approx(found[0])
    assert growth.offset == pytest.approx(found[1:].mean())
    assert growth.error == pytest.approx(math.sqrt(left / (20 - 6) * np.linalg.inv(design.T @ design)[0, 0]))
    assert abs(growth.slope - power) < 4 * growth.error
    assert f"grows {verdict} in rows, from 16 to 128: slope" in growth.sentence("rows", "an epoch")


def test_step_and_an_epoch_are_timed_and_no_hook_is_left(bench: Any) -> None:
    scaling: ModuleType = bench("scaling")
    before = len(optimizer._global_optimizer_post_hooks)
    assert 0 < scaling.of_a_step(features=8, latents=2, particles=2) < 1
    assert 0 < scaling.of_an_epoch(rows=300) < 5
    with pytest.raises(TypeError):
        scaling.of_a_step(nobody=True)
    assert len(optimizer._global_optimizer_post_hooks) == before


def test_scaling_flops_grow_along_each_axis(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The axis varies what it names: products of a step, counted."""
    scaling = bench("scaling")
    monkeypatch.setattr(scaling, "STEPS", 3)
    monkeypatch.setattr(scaling, "BATCH", 8)

    def flops(**given: int) -> int:
        with FlopCounterMode(display=False) as counter:
            scaling.of_a_step(**given)
        return counter.get_total_flops()

    least = flops()
    assert 1.9 < flops(features=1568) / least < 2.1
    assert flops(particles=3) > 1.8 * least
    assert flops(latents=400) > 1.5 * least


def test_picture_is_drawn_for_every_axis(bench: Any, tmp_path: Path) -> None:
    scaling = bench("scaling")
    scaling.picture(dict.fromkeys(scaling.AXES, times(1.0, 0.1)), str(tmp_path / "scaling.png"))
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
