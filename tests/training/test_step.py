"""One step of `fit`, by hand: accumulated, clipped, at a scheduled rate, averaged."""

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.cases import same
from helpers.fitting import ELBO, fit, rows, small, weights
from helpers.programs import DeterministicPrograms
from torch import Tensor

import pyro_vae as pv
from pyro_vae.registry import tables
from pyro_vae.runs.folder import RunFolder
from pyro_vae.schedules import Cosine, Exponential, Linear, MultiStep
from pyro_vae.training.step import FLUSH_EVERY_STEPS


def gradient(programs: Any, x: Tensor) -> dict[str, Tensor]:
    """The gradient of the mean loss of some rows, by hand."""
    z = programs.encoder(x)
    log_joint = dist.Normal(0.0, 1.0).log_prob(z).sum(1) + dist.Normal(programs.decoder(z), 1.0).log_prob(x).sum(1)
    found = torch.autograd.grad(-log_joint.mean(), list(programs.parameters()))
    return dict(zip(dict(programs.named_parameters()), found, strict=True))


def move(programs: DeterministicPrograms, x: Tensor, encoder: float, decoder: float) -> None:
    """A step down the gradient, at a rate for each part."""
    for name, moved in gradient(programs, x).items():
        with torch.no_grad():
            programs.get_parameter(name).sub_((decoder if name.startswith("decoder") else encoder) * moved)


def after(optimizer: Any, n: int = 20, **arguments: Any) -> tuple[DeterministicPrograms, pv.History]:
    programs = DeterministicPrograms()
    return programs, fit(programs, rows(n).double(), **{"epochs": 1, "optimizer": optimizer, **arguments})


@pytest.mark.parametrize(("batch_size", "accumulate"), [(10, 2), (4, 5), (3, 7), (6, 4), (20, 1), (20, 3)])
def test_accumulated_batches_make_the_step_of_one_large_batch(batch_size: int, accumulate: int) -> None:
    whole, (x, start) = after(pv.SGD(0.1), batch_size=20)[0], (rows(20).double(), DeterministicPrograms())
    parts, history = after(pv.SGD(0.1, accumulate_grad_batches=accumulate), batch_size=batch_size)
    for name, moved in gradient(start, x).items():
        torch.testing.assert_close(parts.get_parameter(name), start.get_parameter(name) - 0.1 * moved)
        torch.testing.assert_close(parts.get_parameter(name), whole.get_parameter(name))
    np.testing.assert_allclose(history["loss"], float(loss_of(start, x)))


def loss_of(programs: DeterministicPrograms, x: Tensor) -> Tensor:
    with torch.no_grad():
        return ELBO().differentiable_loss(programs.model, programs.guide, x=x) / len(x)


def test_short_last_step_counts_its_own_rows() -> None:
    programs, _ = after(pv.SGD(0.1, accumulate_grad_batches=2), n=17, batch_size=6)  # steps of 12 and 5 rows
    x, by_hand = rows(17).double(), DeterministicPrograms()
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    for step in order.split(12):
        move(by_hand, x[step], 0.1, 0.1)
    for name, weight in programs.named_parameters():
        torch.testing.assert_close(weight, by_hand.get_parameter(name))


@pytest.mark.parametrize("share", [0.1, 0.999, 1.001, 10])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_gradient_is_scaled_down_to_its_largest_norm_and_never_up(share: float, accumulate: int) -> None:
    start, x = DeterministicPrograms(), rows(20).double()
    moved = gradient(start, x)
    norm = float(torch.cat([each.flatten() for each in moved.values()]).norm())
    optimizer = pv.SGD(0.1, clip_norm=share * norm, accumulate_grad_batches=accumulate)
    programs, _ = after(optimizer, batch_size=20 // accumulate)
    for name, weight in programs.named_parameters():
        expected = start.get_parameter(name) - 0.1 * min(share, 1) * moved[name]
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "schedule",
    [Linear(0.1, 0, 2), Cosine(0.1, 0.01, 3, warmup=1), Exponential(0.1, 0.001, 2), MultiStep((0.1, 0.02), (1.5,))],
    ids=lambda schedule: type(schedule).__name__,
)
def test_step_uses_the_learning_rate_of_its_time(schedule: Any) -> None:
    programs, history = after(pv.SGD(schedule, lr_by_part={"decoder": 0.05}), batch_size=10, epochs=3)
    x, by_hand = rows(20).double(), DeterministicPrograms()
    order = torch.Generator().manual_seed(0)
    for epoch in range(3):
        for number, step in enumerate(torch.randperm(20, generator=order).split(10)):
            move(by_hand, x[step], schedule.value(epoch + number / 2, torch.zeros(0)), 0.05)
    for name, weight in programs.named_parameters():
        torch.testing.assert_close(weight, by_hand.get_parameter(name))
    np.testing.assert_allclose(history["lr"], [schedule.value(epoch, torch.zeros(0)) for epoch in (1, 2, 3)])


def test_average_is_the_formula_and_is_what_is_evaluated_and_left() -> None:
    decay, path = 0.3, []

    class Watching(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            path.append([weight.detach().clone() for group in self.param_groups for weight in group["params"]])

    after(functools.partial(Watching, lr=0.1), batch_size=5, epochs=2)
    mean = [weight.detach().clone() for weight in DeterministicPrograms().parameters()]
    means = []
    for number, now in enumerate(path, 1):
        d = min(decay, (1 + number) / (10 + number))
        mean = [d * a + (1 - d) * b for a, b in zip(mean, now, strict=True)]
        means.append(mean)
    x = rows(20).double()
    averaged, history = after(pv.SGD(0.1, ema=decay), batch_size=5, epochs=2, validation=x)
    for weight, value in zip(averaged.parameters(), means[-1], strict=True):
        torch.testing.assert_close(weight.detach(), value)
    for at, loss in zip((3, 7), history["validation_loss"], strict=True):
        copy = DeterministicPrograms()
        with torch.no_grad():
            for weight, value in zip(copy.parameters(), means[at], strict=True):
                weight.copy_(value)
        np.testing.assert_allclose(loss, float(loss_of(copy, x)))
    plain, _ = after(pv.SGD(0.1), batch_size=5, epochs=2)  # the path of training is the same with and without
    torch.testing.assert_close([p.detach() for p in plain.parameters()], path[-1])


def test_frozen_part_is_not_averaged_and_stays_bit_for_bit() -> None:
    vae = small().initialize(rows())
    before = weights(vae)
    fit(vae, rows(), optimizer=pv.Adam(0.02, ema=0.5, lr_by_part={"posterior": 0}))
    moved = {name for name, weight in vae.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name, _ in vae.named_parameters() if name.startswith("likelihood")}


@pytest.mark.parametrize(
    "optimizer", [pv.Adam(0.02, accumulate_grad_batches=2, clip_norm=1.0, ema=0.9), pv.AdamW(Cosine(0.02, 0, 3))]
)
def test_optimizer_is_written_read_and_repeated(optimizer: Any, tmp_path: Path) -> None:
    vae = small()
    fit(vae, rows(), optimizer=optimizer, run=tmp_path / "run")
    assert tables.from_dict("optimizer", RunFolder(tmp_path / "run").spec()["optimizer"]) == optimizer
    assert same(pv.load(tmp_path / "run").state_dict(), vae.state_dict())
    again = copy.deepcopy(small())
    fit(again, rows(), optimizer=optimizer)
    assert same(again.state_dict(), vae.state_dict())


def test_memories_of_gradients_that_are_long_nothing_are_let_go() -> None:
    class Once:
        """Programs whose second weight has a gradient at the first step only."""

        def __init__(self) -> None:
            self.net = torch.nn.Linear(1, 2)
            self.steps = 0

        def model(self, x: Tensor) -> None:
            self.steps += 1
            first, second = self.net.weight.flatten()
            loc = first + (second if self.steps < 4 else 0 * second) + self.net.bias.sum()
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(loc.expand(3), 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            pass

    made: list[torch.optim.Optimizer] = []

    def adam(weights: Any) -> torch.optim.Optimizer:
        made.append(torch.optim.Adam(weights, lr=0.01))
        return made[0]

    fit(Once(), rows(FLUSH_EVERY_STEPS * 7), epochs=1, batch_size=1, optimizer=adam)
    mean = made[0].state[made[0].param_groups[0]["params"][0]]["exp_avg"].flatten()
    assert float(mean[1]) == 0  # 0.9 ** 700 is 1e-32, and would not end at 0 but at a few 1e-45
    assert float(mean[0]) != 0
