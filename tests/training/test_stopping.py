"""Early stopping is a function of the history: it ends where the rule says, keeps the best weights, survives kills."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fitting import fit, interrupted, rows, small
from torch import Tensor

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.schedules import Linear
from pyro_vae.training.checkpoints import CheckpointManager
from pyro_vae.training.history import History

Losses = list[float]


def history(losses: Losses, column: str = "validation_loss", **others: Losses) -> History:
    lines = zip(losses, *others.values(), strict=True)
    return History([{column: line[0], **dict(zip(others, line[1:], strict=True))} for line in lines])


CASES: list[tuple[Losses, dict[str, Any], int | None, bool]] = [
    ([3.0], {"patience": 1}, 0, False),
    ([3.0, 2.0, 2.5, 2.1], {"patience": 2}, 1, True),
    ([3.0, 2.0, 2.5, 1.9], {"patience": 2}, 3, False),
    ([3.0, 2.0, 2.0], {"patience": 1}, 1, True),  # as good is no improvement
    ([3.0, 2.95, 2.91, 2.89], {"patience": 3, "min_delta": 0.1}, 3, False),
    ([3.0, 2.95, 2.91, 2.9], {"patience": 3, "min_delta": 0.1}, 0, True),
    ([math.nan, 1.0, math.nan, 2.0], {"patience": 2}, 1, True),
    ([math.inf, math.inf], {"patience": 1}, None, False),
]


@pytest.mark.parametrize(("losses", "rule", "best", "stops"), CASES)
def test_rule_in_small(losses: Losses, rule: dict[str, Any], best: int | None, stops: bool) -> None:
    rule = pv.EarlyStopping(**rule)
    assert rule.best(history(losses)) == best
    assert bool(rule.reason(history(losses))) == stops
    other = pv.EarlyStopping(rule.patience, rule.min_delta, monitor="log_likelihood")
    assert other.best(history([-loss for loss in losses], "log_likelihood")) == best


def test_patience_counts_epochs_since_the_last_change_of_a_hyperparameter() -> None:
    rule = pv.EarlyStopping(patience=2)
    ramp = history([1.0, 2.0, 3.0, 4.0, 4.5, 4.1], beta=[0.2, 0.5, 1.0, 1.0, 1.0, 1.0])
    assert [rule.best(History(ramp.records[:n]), ["beta"]) for n in range(1, 7)] == [0, 1, 2, 2, 2, 2]
    assert [bool(rule.reason(History(ramp.records[:n]), ["beta"])) for n in range(1, 7)] == [False] * 4 + [True] * 2
    assert rule.best(ramp) == 0
    cycle = history([1.0, 5.0, 2.0], beta=[1.0, 0.0, 1.0])  # the first epoch's weights were not kept
    assert rule.best(cycle, ["beta"]) == 2
    likelihood = pv.EarlyStopping(patience=2, monitor="log_likelihood")
    assert likelihood.best(history([-1.0, -2.0], "log_likelihood", beta=[0.0, 1.0]), ["beta"]) == 0


FAST: dict[str, Any] = {"optimizer": pv.Adam(0.2), "batch_size": 10, "epochs": 60}


def trained(stopping: Any = None, **words: Any) -> tuple[pv.VAE, History]:
    vae = small()
    return vae, fit(vae, rows()[:20], validation=rows()[20:], stopping=stopping, **{**FAST, **words})


def state(vae: Any) -> list[Tensor]:
    return list(vae.state_dict().values())


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(state(one), state(other), strict=True))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_training_ends_where_the_rule_says_with_the_best_weights(ema: float | None) -> None:
    rule = pv.EarlyStopping(patience=3)
    words = {"optimizer": pv.Adam(0.2, ema=ema)}
    vae, history = trained(rule, **words)
    whole = trained(None, **words)[1]["validation_loss"]
    ends = next(n for n in range(1, 61) if rule.reason(History([{"validation_loss": loss} for loss in whole[:n]])))
    assert len(history) == ends < 60
    assert history["validation_loss"].tolist() == whole[:ends].tolist()
    best = int(np.argmin(whole[:ends])) + 1
    assert history.stopped == (
        f"stopped after epoch {ends} of 60: validation_loss had not improved for 3 epochs; the weights are those of "
        f"epoch {best}, the best"
    )
    assert equal(vae, trained(None, epochs=best, **words)[0])  # of a training that ended there
    last = trained(pv.EarlyStopping(patience=3, restore=False), **words)
    assert equal(last[0], trained(None, epochs=ends, **words)[0])
    assert "weights" not in last[1].stopped


def test_best_weights_are_restored_after_all_epochs_without_a_stop() -> None:
    fast = pv.Adam(1.0)
    vae, history = trained(pv.EarlyStopping(patience=50), epochs=30, optimizer=fast)
    best = int(np.argmin(history["validation_loss"])) + 1
    assert best < 30
    assert history.stopped == f"carried through all 30 epochs; the weights are those of epoch {best}, the best"
    assert equal(vae, trained(None, epochs=best, optimizer=fast)[0])
    assert trained(pv.EarlyStopping(patience=50), epochs=2, optimizer=pv.Adam(1e-3))[1].stopped == ""


def test_warm_up_does_not_end_a_training() -> None:
    objective = pv.objectives.ELBO(beta=Linear(0, 1, epochs=8))
    _, history = trained(pv.EarlyStopping(patience=2), objective=objective)
    assert len(history) > 10  # though the loss rises as beta does
    assert np.argmin(history["validation_loss"]) < 8


class Killed(BaseException):
    """What ends a process in the midst of work."""


def test_resumed_training_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: dict[str, Any] = {"checkpoints": pv.Checkpoints(every_epochs=1)}
    rule = pv.EarlyStopping(patience=3)
    vae, whole = trained(rule, run=tmp_path / "whole", **words)
    save = CheckpointManager.save
    for after in (1, len(whole) - 2, len(whole), len(whole) + 1):
        saved: list[int] = []

        def killing(self: CheckpointManager, tree: Any, saved: list[int] = saved, after: int = after) -> bool:
            written = save(self, tree)
            saved.append(1)
            if len(saved) == after:
                raise Killed
            return written

        with monkeypatch.context() as patched:
            patched.setattr(CheckpointManager, "save", killing)
            with pytest.raises(Killed):
                trained(rule, run=tmp_path / str(after), **words)
        other, history = trained(rule, run=tmp_path / str(after), resume=True, **words)
        assert equal(other, vae), after
        assert history.stopped == whole.stopped
        assert history["validation_loss"].tolist() == whole["validation_loss"].tolist()
        assert equal(pv.load(tmp_path / str(after)), vae)
        spec = (tmp_path / str(after) / "spec.yaml").read_text()
        assert spec == (tmp_path / "whole" / "spec.yaml").read_text()
        assert "EarlyStopping:\n      patience: 3" in spec
    with pytest.raises(pv.InputError, match="is of a training with monitor = "):
        trained(pv.EarlyStopping(patience=5), run=tmp_path / "1", resume=True, **words)


def test_interrupted_training_keeps_its_last_weights() -> None:
    import os
    import signal

    def interrupt(at: pv.EpochEvent) -> None:
        if at.epoch == 9:
            os.kill(os.getpid(), signal.SIGINT)

    vae, x, rule = small(), rows(), pv.EarlyStopping(patience=50)
    history = interrupted(fit, vae, x[:20], validation=x[20:], stopping=rule, callbacks=[interrupt], **FAST)
    assert history.stopped.startswith("interrupted in epoch 10")
    assert equal(vae, trained(None, epochs=9)[0])


def test_unknown_column_is_refused_before_any_work(tmp_path: Path) -> None:
    vae = small()
    before = copy.deepcopy(vae.state_dict())
    with pytest.raises(pv.InputError, match=r"validation_loss' needs validation data.*monitor='loss'"):
        fit(vae, rows(), stopping=pv.EarlyStopping(), run=tmp_path / "run")
    with pytest.raises(pv.InputError, match=r"'los': did you mean 'loss'.*validation_kl"):
        fit(vae, rows(), validation=rows(), stopping=pv.EarlyStopping(monitor="los"))
    with pytest.raises(pv.InputError, match=r"stopping = 3 has to be a rule, as in stopping=pv.EarlyStopping"):
        fit(vae, rows(), stopping=3)
    assert all(torch.equal(before[name], now) for name, now in vae.state_dict().items())
    assert not (tmp_path / "run").exists()
    parts = pv.EarlyStopping(monitor="validation_total_correlation", patience=1)
    objective = pv.objectives.BetaTC(alpha=1, beta=2, gamma=1)
    fit(vae, rows(), validation=rows(), stopping=parts, objective=objective)


def test_command_line_stops_and_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--encoder", "MLP", "--encoder.hidden", "[8]", "--optimizer.lr", "0.5", "--progress", "false"]
    stopping = ["--monitor.stopping", "EarlyStopping", "--monitor.stopping.patience", "2"]
    main(["fit", *words, "--epochs", "40", *stopping, "--run", "run"])
    assert "Training was stopped after epoch" in capsys.readouterr().out
    main(["fit", "--config", "run/spec.yaml", "--run", "again", "--progress", "false"])
    assert Path("run/spec.yaml").read_text() == Path("again/spec.yaml").read_text()
    assert Path("run/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
    with pytest.raises(SystemExit):
        main(["fit", "--monitor.stopping.patience", "2", "--run", "other"])
    assert "--monitor.stopping EarlyStopping --monitor.stopping.patience '2'" in capsys.readouterr().err
