"""Steps whose gradient is NaN or infinite are left out as if they had not been, and counted; too many are an error."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fitting import first_order, fit, initialized, overflowing, rows
from torch import Tensor

import pyro_vae as pv
from pyro_vae.schedules import GECO
from pyro_vae.training import loop
from pyro_vae.training.checkpoints import CheckpointManager

OPTIMIZERS = {
    "Adam": lambda **words: pv.Adam(0.05, **words),
    "AdamW": lambda **words: pv.AdamW(0.05, **words),
    "SGD": lambda **words: pv.SGD(0.01, momentum=0.9, **words),
    "clipped": lambda **words: pv.Adam(0.05, clip_norm=1.0, **words),
    "averaged": lambda **words: pv.Adam(0.05, ema=0.5, **words),
}


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "averaged"])
def test_nonfinite_step_changes_nothing(name: str) -> None:
    skipping, whole = initialized(), initialized()
    order = first_order()
    history = fit(
        skipping, overflowing(order[0]), epochs=1, batch_size=25, optimizer=OPTIMIZERS[name](max_nonfinite_steps=1)
    )
    assert history["skipped"].tolist() == [1]
    assert all(weight.isfinite().all() for weight in skipping.parameters())
    # the second half of the rows alone, with the numbers that were drawn for it
    drawn: list[Tensor] = []

    def kept(at: Any) -> None:
        drawn.extend(at.vae.state_dict().values())

    fit(whole, rows(), epochs=1, batch_size=25, optimizer=_Skipper(name), callbacks=[kept])
    assert equal(skipping, whole)


class _Skipper:
    """The same optimizer, which leaves out its first step by hand."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, weights: Any) -> torch.optim.Optimizer:
        weights = list(weights)
        made = OPTIMIZERS[self.name]().build({str(i): weight for i, weight in enumerate(weights)})
        step, calls = made.step, []

        def later(*given: Any, **named: Any) -> Any:
            calls.append("")
            if len(calls) == 1:
                return None
            if self.name == "clipped":
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
            return step(*given, **named)

        made.step = later  # type: ignore[method-assign]
        return made


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_max_nonfinite_steps_changes_nothing_for_finite_gradients(name: str) -> None:
    allowing, plain = initialized(), initialized()
    one = fit(allowing, rows(), optimizer=OPTIMIZERS[name](max_nonfinite_steps=5))
    other = fit(plain, rows(), optimizer=OPTIMIZERS[name]())
    assert equal(allowing, plain)
    assert one["skipped"].tolist() == [0, 0, 0]
    assert one["loss"].tolist() == other["loss"].tolist()
    assert "skipped" not in other.columns


def test_epoch_mean_is_over_the_rows_of_finite_steps() -> None:
    order = first_order()
    vae = initialized()
    history = fit(vae, overflowing(order[0]), epochs=1, batch_size=25, optimizer=pv.SGD(1e-30, max_nonfinite_steps=1))
    assert math.isfinite(history["loss"][0])
    assert history["loss"][0] == pytest.approx(-history["log_likelihood"][0] + history["kl"][0], rel=1e-6)
    second = rows()[order[25:]]
    expected = fit(initialized(), second, epochs=1, batch_size=25, optimizer=pv.SGD(1e-30))["loss"][0]
    assert history["loss"][0] == pytest.approx(expected, rel=0.2)  # the same rows, other draws


def test_too_many_nonfinite_steps_are_an_error_that_names_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECK_FINITE_EVERY_STEPS", 2)
    with pytest.raises(FloatingPointError) as caught:
        fit(initialized(), overflowing(7, 30, 41), batch_size=1, optimizer=pv.Adam(max_nonfinite_steps=2))
    told = str(caught.value)
    assert "the gradient of 3 steps was NaN or infinite, more than max_nonfinite_steps = 2, in epoch 1" in told
    assert "log p(x|...) is NaN or infinite on row" in told
    assert any(f"on rows {row} of the data" in told for row in (7, 30, 41))


def test_geco_does_not_observe_nonfinite_steps() -> None:
    objective = pv.objectives.ELBO(beta=GECO(distortion=2.0))
    history = fit(
        initialized(), overflowing(3), batch_size=10, optimizer=pv.Adam(max_nonfinite_steps=9), objective=objective
    )
    assert all(math.isfinite(beta) for beta in history["beta"])
    assert history["skipped"].tolist() == [1, 1, 1]


class Killed(BaseException):
    """What ends a process in the midst of work."""


def test_resumed_training_skips_and_counts_nonfinite_steps_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, Any] = {
        "batch_size": 10,
        "optimizer": pv.Adam(0.05, max_nonfinite_steps=9),
        "checkpoints": pv.Checkpoints(every_minutes=0),
    }
    whole = initialized()
    history = fit(whole, overflowing(3), run=tmp_path / "whole", **words)
    save, saved = CheckpointManager.save, []

    def killing(self: CheckpointManager, tree: Any) -> bool:
        written = save(self, tree)
        saved.append("")
        if len(saved) == 9:
            raise Killed
        return written

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointManager, "save", killing)
        with pytest.raises(Killed):
            fit(initialized(), overflowing(3), run=tmp_path / "run", **words)
    vae = initialized()
    again = fit(vae, overflowing(3), run=tmp_path / "run", resume=True, **words)
    assert equal(vae, whole)
    same = [[{**record, "seconds": 0} for record in each.records] for each in (history, again)]
    assert same[0] == same[1]
