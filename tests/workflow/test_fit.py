"""Fitting: what it computes, records, leaves behind and refuses, for VAEs and for any pair of Pyro programs."""

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.cases import same
from helpers.fitting import ELBO, STILL, fit, interrupted, rows, small, weights
from helpers.oracles import PPCA, linear
from helpers.programs import CHOSEN
from helpers.slow import slow_but
from torch import Tensor, nn

import pyro_vae as pv
import pyro_vae.training.loop as loop
from pyro_vae.runs.folder import RunFolder

# Reproducibility


def test_same_seed_gives_the_same_weights_and_history_bit_for_bit() -> None:
    states, tables = [], []
    for disturbance in (0, 5):
        vae, x = small(), rows()
        torch.randn(disturbance)  # the global random state has no say
        history = fit(vae, x, validation=x, seed=3)
        states.append(weights(vae))
        tables.append(history.to_pandas().drop(columns="seconds"))
    assert same(*states)
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_another_seed_gives_other_weights() -> None:
    states = []
    for seed in (3, 4):
        vae = small()
        fit(vae, rows(), seed=seed)
        states.append(weights(vae))
    assert not any(torch.equal(states[0][name], states[1][name]) for name, _ in vae.named_parameters())


def test_fitting_again_goes_on_from_the_weights() -> None:
    vae, x = small(), rows()
    first, second = (fit(vae, x, optimizer=pv.Adam(0.02), epochs=8) for _ in range(2))
    assert second["loss"][0] < first["loss"][0] - 0.2


# The history


@pytest.mark.parametrize("validated", [False, True], ids=["training only", "with validation"])
def test_columns_of_the_history(validated: bool) -> None:
    history = fit(small(), rows(), validation=rows(9) if validated else None)
    held = ["validation_loss", "validation_log_likelihood", "validation_kl"] if validated else []
    assert history.columns == ["epoch", "seconds", "loss", "log_likelihood", "kl", *held, "kl_z_0", "kl_z_1"]
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history.to_pandas().notna().all(axis=None)
    for prefix in ("", "validation_") if validated else ("",):
        parts = history[prefix + "log_likelihood"] - history[prefix + "kl"]
        np.testing.assert_allclose(parts, -history[prefix + "loss"], rtol=1e-5)
    if validated:
        np.testing.assert_allclose(history["kl_z_0"] + history["kl_z_1"], history["validation_kl"], rtol=1e-5)
    assert len(history) == 3
    assert history.stopped == ""


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("batch_size", [7, 20, 100])
def test_loss_and_validation_are_means_per_row_of_all_rows(
    batch_size: int, particles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVALUATION_ROWS", 6)  # validation takes several batches, the last of them short
    model = PPCA.random(3, 2)
    vae, x, held = model.put_into(linear(3, 2)), rows(20).double(), rows(15).double() + 1
    history = fit(vae, x, validation=held, batch_size=batch_size, optimizer=STILL, objective=ELBO(particles))
    exact = model.marginal().log_prob  # with the exact parameters every draw is worth the evidence
    np.testing.assert_allclose(history["loss"], -float(exact(x).mean()), rtol=1e-10)
    np.testing.assert_allclose(history["validation_loss"], -float(exact(held).mean()), rtol=1e-10)


def test_validation_sees_the_same_random_numbers_in_every_epoch() -> None:
    history = fit(small(), rows(), validation=rows(9), optimizer=STILL)
    for column in ("validation_loss", "validation_kl", "kl_z_0"):
        assert len(set(history[column])) == 1
    assert len(set(history["loss"])) == 3  # where training draws new ones


def test_kl_of_latents_is_of_training_rows_without_validation() -> None:
    vae, x = small(), rows(30)
    history = fit(vae, x, optimizer=STILL, objective=ELBO(kl="analytic"))
    q = vae.encode(x).base_dist
    exact = ((q.loc**2 + q.scale**2 - 1 - 2 * q.scale.log()) / 2).mean(0).detach()
    np.testing.assert_allclose([history["kl_z_0"], history["kl_z_1"]], exact[:, None].expand(2, 3), rtol=1e-4)


class Watched(nn.Module):
    """Programs that write down the data of each training step, and whether they were in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self.inner = nn.Dropout()
        self.steps: list[Tensor] = []
        self.modes: list[tuple[bool, bool]] = []

    def model(self, x: Tensor, **more: Tensor) -> None:
        self.modes.append((torch.is_grad_enabled(), self.inner.training))
        if torch.is_grad_enabled():
            self.steps.append(x.clone())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            pyro.sample("x", dist.Normal(z[:, None].expand(x.shape), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor, **more: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc + x.mean(-1), 1.0))


def test_epoch_uses_every_row_once_with_a_short_last_batch() -> None:
    programs, x = Watched(), torch.arange(10.0).reshape(10, 1)
    fit(programs, x, batch_size=4, epochs=2)
    assert [len(step) for step in programs.steps] == [4, 4, 2, 4, 4, 2]
    first, second = (torch.cat(programs.steps[at : at + 3]).flatten() for at in (0, 3))
    assert torch.equal(first.sort().values, x.flatten())
    assert torch.equal(second.sort().values, x.flatten())
    assert not torch.equal(first, second)


def test_modules_train_in_training_mode_and_are_evaluated_and_left_in_evaluation_mode() -> None:
    programs = Watched()
    fit(programs, rows(10), validation=rows(5), batch_size=5, epochs=2)
    assert Counter(programs.modes[3:]) == {(True, True): 4, (False, False): 2}  # three find structure and weights
    assert not any(module.training for module in programs.modules())


# Which weights move, and how far


@pytest.mark.parametrize("part", ["posterior", "likelihood", "likelihood.constants", "posterior.network.heads.loc"])
def test_frozen_part_stays_bit_for_bit(part: str) -> None:
    vae = small().initialize(rows())
    before = weights(vae)
    fit(vae, rows(), optimizer=pv.Adam(0.01, lr_by_part={part: 0}))
    for name, weight in vae.named_parameters():
        assert torch.equal(weight, before[name]) == name.startswith(part), name
        assert weight.requires_grad
        assert (weight.grad is None) == name.startswith(part)  # and cost no backward pass


def test_weight_that_the_user_froze_stays_frozen() -> None:
    vae = small().initialize(rows())
    vae.posterior.requires_grad_(False)
    before = weights(vae)
    fit(vae, rows(), optimizer=pv.Adam(0.01, lr_by_part={"likelihood.constants": 0}))
    moved = {name for name, weight in vae.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name, _ in vae.named_parameters() if name.startswith("likelihood.network")}
    assert [w.requires_grad for w in vae.posterior.parameters()] == [False] * 6
    assert all(w.requires_grad for w in vae.likelihood.parameters())


def test_learning_rates_by_part_are_exact_and_the_longest_name_wins() -> None:
    moves = []
    for parts in ({}, {"posterior": 0.01, "posterior.network.body": 0.03}):
        vae, x = small().double().initialize(rows()), rows().double()
        before = weights(vae)
        fit(vae, x, epochs=1, batch_size=len(x), optimizer=pv.SGD(0.1, lr_by_part=parts))
        moves.append({name: weight.detach() - before[name] for name, weight in vae.named_parameters()})
    for name, move in moves[0].items():
        share = 0.3 if name.startswith("posterior.network.body") else 0.1 if name.startswith("posterior") else 1
        torch.testing.assert_close(moves[1][name], share * move, rtol=1e-10, atol=1e-14)
        assert move.abs().max() > 0


OPTIMIZERS = {
    "Adam": pv.Adam(0.02),
    "AdamW": pv.AdamW(0.02),
    "SGD": pv.SGD(0.02, momentum=0.5),
    "a callable": functools.partial(torch.optim.RMSprop, lr=0.02),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(optimizer: str) -> None:
    history = fit(small(), rows(), optimizer=OPTIMIZERS[optimizer], epochs=6)
    assert history["loss"][-1] < history["loss"][0] - 0.1


def test_step_equals_the_optimizers_step_on_the_mean_loss() -> None:
    x = rows(10).double()
    vae = small().double().initialize(x)
    by_hand = copy.deepcopy(vae)
    fit(vae, x, epochs=1, batch_size=10, optimizer=pv.SGD(0.01), seed=5)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(5)  # what finds the weights before the first step takes no random numbers from it
    (ELBO().differentiable_loss(by_hand.model, by_hand.guide, x=x[order]) / 10).backward()
    for (name, weight), other in zip(vae.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(weight, other - 0.01 * other.grad, rtol=1e-12, atol=1e-14, msg=name)


# What may be given as data


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: {"x": x},
        lambda x: x.numpy(),
        lambda x: x.double().numpy(),
        lambda x: pd.DataFrame(x.numpy(), columns=list("abc")),
        lambda x: x.tolist(),
        lambda x: torch.utils.data.TensorDataset(x, torch.zeros(len(x), dtype=torch.long)),
        lambda x: pv.data.Rows.of(x),
    ],
    ids=["tensor", "mapping", "array", "float64 array", "table", "list", "dataset", "rows"],
)
def test_weights_do_not_depend_on_the_form_of_the_data(form: Callable[[Tensor], Any]) -> None:
    states = []
    for data in (rows(), form(rows())):
        vae = small()
        fit(vae, data, validation=data)
        states.append(weights(vae))
    assert same(*states)


def test_further_tensors_go_to_the_programs_by_name() -> None:
    seen: list[Tensor] = []

    class Sized(Watched):
        def model(self, x: Tensor, **more: Tensor) -> None:
            seen.append((more["size"] - x[:, 0]).abs().max())
            assert set(more) == {"size"}
            super().model(x)

    x = torch.arange(10.0).reshape(10, 1)
    fit(Sized(), {"x": x, "size": x[:, 0].long()}, batch_size=4)
    assert len(seen) == 3 + 3 * (3 + 1)
    assert not any(seen)  # each row with its own size


def test_dynamic_rows_are_binarised_anew_at_every_step() -> None:
    programs, x = Watched(), torch.full((8, 40), 0.5)
    dynamic = pv.data.Rows({"x": x}, dynamic=True)
    history = fit(programs, dynamic, validation=dynamic, batch_size=4, epochs=3, optimizer=STILL)
    assert len(programs.steps) == 6
    assert all(set(step.unique().tolist()) == {0.0, 1.0} for step in programs.steps)
    assert len({tuple(row.tolist()) for step in programs.steps for row in step}) == 24
    assert len(set(history["validation_loss"])) == 1  # where the rows are the same each time
    assert torch.equal(dynamic.x, x)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_precision_is_the_runtimes(precision: Any) -> None:
    vae = small()
    history = fit(vae, rows(), runtime=pv.Runtime("cpu", precision), optimizer=pv.Adam(0.02), epochs=6)
    assert history["loss"][-1] < history["loss"][0]
    assert {w.dtype for w in vae.parameters()} == {torch.float64 if precision == "64-true" else torch.float32}


# Ends before the end


def stopping(at: int, error: type[BaseException] = KeyboardInterrupt) -> Callable:
    """An optimizer that raises instead of its step number `at`."""

    class Stopping(torch.optim.SGD):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            if self.steps == at:
                raise error
            return super().step(closure)

    return functools.partial(Stopping, lr=0.01)


@pytest.mark.parametrize(("at", "epochs"), [(1, 0), (2, 0), (4, 1), (8, 2)], ids=lambda value: str(value))
def test_interrupt_keeps_what_was_learned_and_writes_the_run(at: int, epochs: int, tmp_path: Path) -> None:
    vae, x = small().initialize(rows()), rows()  # three steps an epoch
    before = weights(vae)
    history = interrupted(fit, vae, x, epochs=10, optimizer=stopping(at), run=tmp_path / "run", validation=x)
    assert len(history) == epochs
    assert history.stopped == f"interrupted in epoch {epochs + 1} of 10"
    assert same(before, vae.state_dict()) == (at == 1)
    assert same(pv.load(tmp_path / "run").state_dict(), vae.state_dict())
    assert RunFolder(tmp_path / "run").history() == history
    assert not vae.training


def test_error_in_a_step_is_the_users_to_see(tmp_path: Path) -> None:
    vae = small()
    with pytest.raises(MemoryError):
        fit(vae, rows(), optimizer=stopping(2, MemoryError), run=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    assert not vae.training


def test_loss_that_is_not_finite_names_the_epoch(tmp_path: Path) -> None:
    vae = small()
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf|-inf) in epoch [123]: lower the learning rate"):
        fit(vae, rows(), optimizer=pv.SGD(1e30, lr_by_part={"posterior": 0}), run=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    assert all(weight.requires_grad for weight in vae.parameters())


# What is shown


def test_progress_goes_to_stderr_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    fit(small(), rows(), validation=rows(), progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.strip().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("loss" in line and "validation" in line for line in lines)


def test_progress_false_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fit(small(), rows(), progress=False)
    assert capsys.readouterr() == ("", "")


# Nothing is waited for in a step


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count every way from a tensor to a Python number."""
    counted: Counter[str] = Counter()

    def counting(name: str, original: Callable) -> Callable:
        def method(self: Tensor, *arguments: Any) -> Any:
            counted[name] += 1
            return original(self, *arguments)

        return method

    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero"):
        monkeypatch.setattr(Tensor, name, counting(name, getattr(Tensor, name)))
    yield counted
    monkeypatch.undo()


TIMED = [ELBO(beta=pv.schedules.Linear()), ELBO(beta=pv.schedules.GECO(rate=1)), pv.objectives.Capacity()]


@pytest.mark.parametrize(
    "objective",
    slow_but(
        [CHOSEN["ELBO"], CHOSEN["RWS"], CHOSEN["Capacity"], TIMED[0]],
        [*CHOSEN.values(), ELBO(particles=2, kl="analytic"), *TIMED],
    ),
    ids=str,
)
def test_syncs_do_not_grow_with_the_steps(objective: ELBO, syncs: Counter[str]) -> None:
    x, counts = rows(40), []
    for batch_size in (20, 20, 2):  # the first run fills caches
        syncs.clear()
        fit(small(), x, validation=x, batch_size=batch_size, objective=objective, epochs=2)
        counts.append(dict(syncs))
    assert counts[1] == counts[2]
    assert counts[1]["tolist"] > 0  # the counter counts: an epoch's sums are read once
