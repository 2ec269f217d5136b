"""Schedules: their curves, the clock of `fit` and of SVI, and the multiplier that holds a target."""

import itertools
import math
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from helpers.programs import vae_of
from pyro.infer import SVI

import pyro_vae as pv
from pyro_vae.objectives import CIWAE, ELBO, Renyi, ScheduledObjective
from pyro_vae.schedules import GECO, SCHEDULES, Cyclical, Linear, Schedule, Sigmoid

RAMPS = [Linear(0.2, 1.4, 8), Sigmoid(0.2, 1.4, 8), Sigmoid(1.4, 0.2, 8, steepness=30), Cyclical(0.2, 1.4, 8, 0.25, 3)]


@pytest.mark.parametrize("schedule", RAMPS, ids=repr)
def test_ramp_goes_from_its_start_to_its_end_and_stays(schedule: Any) -> None:
    nothing = schedule.init_state()
    assert nothing.numel() == 0
    assert schedule.value(0, nothing) == pytest.approx(schedule.start, abs=1e-12)
    for after in (24, 25, 1e6):
        assert schedule.value(after, nothing) == pytest.approx(schedule.end, abs=1e-12)
    within = [schedule.value(epoch, nothing) for epoch in np.linspace(0, 30, 301)]
    assert min(within) == pytest.approx(min(schedule.start, schedule.end), abs=1e-12)
    assert max(within) == pytest.approx(max(schedule.start, schedule.end), abs=1e-12)


def test_curves_are_the_formulas() -> None:
    nothing = torch.zeros(0)
    assert Linear(1, 3, 4).value(1, nothing) == 1.5
    halfway = Sigmoid(0, 1, 10, steepness=4)
    logistic = [1 / (1 + math.exp(-4 * u)) for u in (-1, -0.4, 1)]
    assert halfway.value(3, nothing) == pytest.approx((logistic[1] - logistic[0]) / (logistic[2] - logistic[0]))
    assert halfway.value(3, nothing) + halfway.value(7, nothing) == pytest.approx(1)
    wave = Cyclical(0, 1, period=4, ratio=0.5, periods=2)
    for epoch, value in ((0.5, 0.25), (1.9, 0.95), (2, 1), (3.9, 1), (4, 0), (4.5, 0.25), (8, 1), (9, 1)):
        assert wave.value(epoch, nothing) == pytest.approx(value), epoch


def test_every_schedule_prints_and_compares_like_what_was_written() -> None:
    for name, kind in SCHEDULES.items():
        made = kind(rate=1) if name == "GECO" else kind()
        assert isinstance(made, Schedule)
        assert eval(repr(made), dict(SCHEDULES)) == made
        assert hash(made) == hash(eval(repr(made), dict(SCHEDULES)))


# The clock


def digits() -> torch.Tensor:
    x: torch.Tensor = pv.data.load("digits").train.x.flatten(1)[:500]
    return x


def test_fit_passes_the_time_in_epochs_and_records_the_values() -> None:
    x = digits()
    vae = pv.VAE((64,), 2, encoder=pv.MLP((8,)))
    objective = ELBO(beta=Linear(0, 1, 4), free_bits=Sigmoid(0.3, 0.1, 2))
    history = pv.fit(vae, x, objective=objective, epochs=5, batch_size=100, progress=False)
    np.testing.assert_allclose(history["beta"], [0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(history["free_bits"], [0.2, 0.1, 0.1, 0.1, 0.1], atol=1e-12)


def test_within_an_epoch_every_step_has_its_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    bound = ELBO.bound
    monkeypatch.setattr(ELBO, "bound", lambda self, particles: (seen.append(self.beta), bound(self, particles))[1])
    vae = pv.VAE((64,), 2, encoder=pv.MLP((8,)))
    pv.fit(vae, digits(), objective=ELBO(beta=Linear(0, 1, 2)), epochs=2, batch_size=128, progress=False)
    steps = [value for value, _ in itertools.groupby(seen)]  # an evaluation ends each epoch, at the next step's value
    np.testing.assert_allclose(sorted(set(steps)), np.arange(9) / 8)


def test_schedule_that_stands_still_changes_nothing() -> None:
    found = []
    for objective in (ELBO(beta=0.3), ELBO(beta=Linear(0.3, 0.3))):
        torch.manual_seed(0)
        vae = pv.VAE((64,), 2, encoder=pv.MLP((8,)))
        found.append(pv.fit(vae, digits(), objective=objective, epochs=2, progress=False))
    assert found[0]["loss"].tolist() == found[1]["loss"].tolist()


def test_svi_keeps_time_by_running() -> None:
    vae, x = vae_of(pv.Normal(0, 1), pv.Normal()), torch.randn(6, 3)
    scheduled = ScheduledObjective(ELBO(beta=Linear(0, 1, epochs=2), particles=3), steps_per_epoch=5)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.0}), loss=scheduled)
    for step in range(12):
        assert scheduled.current.beta == pytest.approx(min(step / 10, 1))
        pyro.set_rng_seed(1)
        loss = svi.step(x)
        pyro.set_rng_seed(1)
        assert loss == pytest.approx(
            scheduled.objective.with_values(beta=min(step / 10, 1)).loss(vae.model, vae.guide, x)
        )
    assert svi.evaluate_loss(x) > 0
    assert scheduled.step == 12  # an evaluation is no step


@pytest.mark.parametrize("objective", [ELBO(beta=Linear()), Renyi(alpha=Linear()), CIWAE(beta=Linear())], ids=repr)
def test_schedule_without_epochs_is_refused(objective: Any) -> None:
    vae = vae_of(pv.Normal(0, 1), pv.Normal())
    with pytest.raises(pv.InputError, match=r"= Linear.* depends on the epoch, .* loss=pv.objectives.Scheduled"):
        objective.loss(vae.model, vae.guide, torch.randn(6, 3))


def test_bounds_of_many_particles_follow_schedules_too() -> None:
    x = digits()
    for objective, column in ((Renyi(alpha=Linear(1, 0, 2), particles=3), "alpha"), (CIWAE(beta=Linear()), "beta")):
        vae = pv.VAE((64,), 2, encoder=pv.MLP((8,)))
        history = pv.fit(vae, x, objective=objective, epochs=2, progress=False)
        assert history[column].tolist() == pytest.approx([0.5, 0.0] if column == "alpha" else [0.1, 0.2])


# A target


def test_geco_is_its_rule() -> None:
    schedule = GECO(rate=5, speed=0.1, average=0.5)
    state = schedule.init_state()
    assert float(schedule.value(0, state)) == 1
    log_beta, average = 0.0, 0.0
    for step, kl in enumerate([5.5, 30.0, 1.0, 4.9]):
        schedule.update(state, torch.tensor(-7.0), torch.tensor(kl))
        average = 0.5 * average + 0.5 * kl
        log_beta += 0.1 * min(max(average / (1 - 0.5 ** (step + 1)) - 5, -1), 1)
        assert float(schedule.value(0, state)) == pytest.approx(math.exp(log_beta), rel=1e-5)
    other = GECO(distortion=6.5, speed=0.1, average=0)
    state = other.init_state()
    other.update(state, torch.tensor(-7.0), torch.tensor(1.0))
    assert float(other.value(0, state)) == pytest.approx(math.exp(-0.05))  # more distortion than wanted: less weight
    for _ in range(1000):
        other.update(state, torch.tensor(1e9), torch.tensor(0.0))
    assert 1e5 < float(other.value(0, state)) < 1e7  # it ends somewhere


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "needs one target"),
        ({"rate": 1, "distortion": 2}, "needs one target"),
        ({"rate": -1}, "at least 0"),
        ({"rate": 1, "average": 1}, "in \\[0"),
    ],
    ids=str,
)
def test_wrong_target_is_a_sentence(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(pv.InputError, match=sentence):
        GECO(**arguments)
