"""Training goes on after a crash to the same weights and history, bit for bit, whatever it consists of."""

import functools
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.cases import same
from helpers.programs import CHOSEN
from helpers.resuming import EVERY_STEP, ROWS, cut, fit, require_equal, require_resumable, rows, small, steps
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.objectives import ELBO, Capacity
from pyro_vae.schedules import GECO, SCHEDULES, Linear, MultiStep
from pyro_vae.training import OPTIMIZERS

NAMED: dict[str, Any] = {
    **{name: one(0.02) for name, one in OPTIMIZERS.items()},
    "momentum": pv.SGD(0.01, momentum=0.9),
    "by part": pv.Adam(0.01, lr_by_part={"posterior": 0.02, "likelihood.constants": 0}),
    "a user's own": functools.partial(torch.optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
}
REMEMBERING = [
    ELBO(beta=GECO(rate=1)),
    ELBO(beta=Linear(0, 1, epochs=2)),
    Capacity(Linear(0, 2, epochs=2), gamma=GECO(distortion=3.0)),
]


def some(files: list[Path]) -> list[Path]:
    """At the end of an epoch, and in the middle of one."""
    return [files[2], files[-2]]


class NeedsClosure(torch.optim.LBFGS):
    """LBFGS without a closure: one step with the gradient that is there."""

    def step(self, closure: Any = None) -> Any:
        return super().step(lambda: torch.zeros(()))


NAMED["with a memory of steps"] = functools.partial(NeedsClosure, lr=0.01, max_iter=1, history_size=3)


@pytest.mark.parametrize("optimizer", NAMED)
def test_resume_equals_an_uninterrupted_fit_with_every_optimizer(optimizer: str, tmp_path: Path) -> None:
    require_resumable(small, rows(), tmp_path, some, optimizer=NAMED[optimizer], validation=rows(9))


@pytest.mark.parametrize("objective", [*CHOSEN.values(), *REMEMBERING], ids=repr)
def test_resume_equals_an_uninterrupted_fit_with_every_objective(objective: Any, tmp_path: Path) -> None:
    require_resumable(small, rows(), tmp_path, lambda files: [files[3]], objective=objective)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_resume_equals_an_uninterrupted_fit_with_every_schedule(schedule: str, tmp_path: Path) -> None:
    beta = {"GECO": GECO(rate=1), "MultiStep": MultiStep((0.5, 1), (2,))}.get(schedule) or SCHEDULES[schedule](
        0.5, 1, 2
    )
    require_resumable(small, rows(), tmp_path, lambda files: [files[4]], objective=ELBO(beta=beta))


def test_after_every_step(tmp_path: Path) -> None:
    require_resumable(small, rows(), tmp_path, lambda files: files, objective=ELBO(beta=GECO(rate=1)))


def binary(n: int = ROWS) -> pv.data.Rows:
    return pv.data.Rows({"x": rows(n).sigmoid()}, dynamic=True)


def test_resume_equals_an_uninterrupted_fit_with_dynamic_binarisation(tmp_path: Path) -> None:
    make = functools.partial(small, likelihood=pv.Bernoulli())
    require_resumable(make, binary(), tmp_path, some, validation=binary(5))


def noisy() -> pv.VAE:
    torch.manual_seed(2)
    return small(decoder=Noisy())


class Noisy(nn.Module):
    """A decoder whose layers have random states and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 3))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z.reshape(-1, 2)).reshape(*z.shape[:-1], 3)


MODELS: dict[str, Callable[[], Any]] = {
    "dropout and batch norm": noisy,
    "a prior that looks at the guide": lambda: small(prior=pv.VampPrior(components=3)),
    "a density fitted at the end": lambda: small(prior=pv.Aggregate(pv.Normal())),
    "float64": lambda: small().double(),
}


@pytest.mark.parametrize("name", MODELS)
def test_resume_equals_an_uninterrupted_fit_with_every_model(name: str, tmp_path: Path) -> None:
    require_resumable(MODELS[name], rows(), tmp_path, some)


def stored() -> Any:
    """Programs whose weights lie in Pyro's store, and which draw from numpy and Python too."""
    pyro.clear_param_store()
    np.random.seed(3)  # noqa: NPY002 - what users' programs do
    random.seed(3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            shift = 0.1 * np.random.rand() + 0.1 * random.random()  # noqa: NPY002 - what users' programs do
            pyro.sample("x", dist.Normal(z + shift, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.ones(3), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(3)), scale).to_event(1))

    def state_dict() -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in pyro.get_param_store().items()}

    return SimpleNamespace(model=model, guide=guide, state_dict=state_dict)


def test_resume_restores_own_programs_and_random_states(tmp_path: Path) -> None:
    reference, history = stored(), None
    history = fit(reference, rows(), run=tmp_path / "whole", checkpoints=EVERY_STEP)
    learned = reference.state_dict()
    for number, file in enumerate(some(steps(tmp_path / "whole"))):
        resumed = stored()
        again = fit(resumed, rows(), run=cut(tmp_path / "whole", file, tmp_path / f"{number}"), resume=True)
        assert same(resumed.state_dict(), learned)
        assert again["loss"].tolist() == history["loss"].tolist()


def test_other_random_states_are_left_alone_where_nobody_draws_from_them(tmp_path: Path) -> None:
    fit(small(), rows(), run=tmp_path / "whole", checkpoints=EVERY_STEP)
    run = cut(tmp_path / "whole", steps(tmp_path / "whole")[3], tmp_path / "cut")
    np.random.seed(8)  # noqa: NPY002 - what users' programs do
    random.seed(8)
    expected = np.random.RandomState(8).rand(), random.Random(8).random()
    before = torch.get_rng_state()
    fit(small(), rows(), run=run, resume=True)
    assert (np.random.rand(), random.random()) == expected  # noqa: NPY002 - what users' programs do
    assert torch.equal(torch.get_rng_state(), before)


# More and less than going on


def test_resume_with_more_epochs_equals_a_fit_of_that_many(tmp_path: Path) -> None:
    longer, resumed = small(), small()
    reference = longer, fit(longer, rows(), epochs=5)
    fit(small(), rows(), epochs=2, run=tmp_path / "run", checkpoints=pv.Checkpoints())
    require_equal(reference, (resumed, fit(resumed, rows(), epochs=5, run=tmp_path / "run", resume=True)))
    assert same(pv.load(tmp_path / "run").state_dict(), longer.state_dict())


def test_finished_run_is_resumed_to_itself(tmp_path: Path) -> None:
    first, second = small(), small(guide=pv.Normal())
    reference = first, fit(first, rows(), run=tmp_path / "run", checkpoints=pv.Checkpoints())
    torch.manual_seed(99)
    require_equal(reference, (second, fit(second, rows(), run=tmp_path / "run", resume=True)))
    assert len(pv.load(tmp_path / "run").state_dict()) == len(first.state_dict())


def test_resume_starts_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    first, second = small(), small()
    reference = first, fit(first, rows())
    require_equal(reference, (second, fit(second, rows(), run=tmp_path / "run", resume=True)))
    (tmp_path / "early" / "checkpoints").mkdir(parents=True)
    shutil.copy(tmp_path / "run" / "checkpoints" / "spec.yaml", tmp_path / "early" / "checkpoints")
    third = small()
    require_equal(reference, (third, fit(third, rows(), run=tmp_path / "early", resume=True)))


# Which are kept


@pytest.mark.filterwarnings("ignore:training ended at:UserWarning")
def test_last_and_the_best_are_kept(tmp_path: Path) -> None:
    vae = small()
    plan = pv.Checkpoints(every_minutes=None, every_epochs=2)
    history = fit(
        vae, rows(), validation=rows(9), epochs=9, run=tmp_path / "run", checkpoints=plan, optimizer=pv.Adam(3.0)
    )
    assert [file.name for file in steps(tmp_path / "run")] == [f"step-{n:010d}.safetensors" for n in (24, 27)]
    best = int(history["validation_loss"].argmin()) + 1
    assert best < 9  # or nothing is shown
    upto = small()
    fit(upto, rows(), validation=rows(9), epochs=best, optimizer=pv.Adam(3.0))
    assert same(pv.load(tmp_path / "run", checkpoint="best").state_dict(), upto.state_dict())
    assert same(pv.load(tmp_path / "run", checkpoint="last").state_dict(), vae.state_dict())
    assert not pv.load(tmp_path / "run", checkpoint="best").training
    fit(small(), rows(), run=tmp_path / "other", checkpoints=pv.Checkpoints(keep=1, every_epochs=1, best=False))
    assert {file.name for file in (tmp_path / "other" / "checkpoints").iterdir()} == {
        "spec.yaml",
        ".lock",
        "step-0000000009.safetensors",
    }


@pytest.mark.filterwarnings("ignore:training ended at:UserWarning")
def test_resumed_training_still_knows_its_best(tmp_path: Path) -> None:
    arguments = {"validation": rows(9), "epochs": 9, "optimizer": pv.Adam(3.0)}
    fit(small(), rows(), run=tmp_path / "run", checkpoints=EVERY_STEP, **arguments)
    run = cut(tmp_path / "run", steps(tmp_path / "run")[-2], tmp_path / "cut")
    best = "checkpoints/best.safetensors"
    shutil.copy(tmp_path / "run" / best, run / best)
    fit(small(), rows(), run=run, resume=True, **arguments)
    first, second = (pv.load(tmp_path / name, checkpoint="best") for name in ("run", "cut"))
    assert same(first.state_dict(), second.state_dict())
