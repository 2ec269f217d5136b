"""A study ends hopeless points early, says so, and goes on where it was; with Optuna itself."""

import statistics
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from helpers.sweeping import base, sweep

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.sweeps import pool
from pyro_vae.sweeps.results import Result
from pyro_vae.sweeps.trial import Request
from pyro_vae.training.checkpoints import CheckpointManager

__all__ = ["base"]

EPOCHS = 4
OVER = {"seed": {"low": 0, "high": 99}, "optimizer.lr": [0.03, 0.05, 0.1, 1e-9]}
HOPELESS = 1e-9
STARTUP = 5
"""Points that Optuna lets end before it prunes any."""


def study(base: dict[str, Any], samples: int = 12, to: str = "sweep", **words: Any) -> pv.Sweep:
    return sweep(OVER, base | {"epochs": EPOCHS}, to, search="optuna", samples=samples, **words)


def journal(folder: str = "sweep") -> Any:
    """What Optuna itself reads."""
    backend = optuna.storages.journal.JournalFileBackend(str(Path(folder) / "study.log"))
    return optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))


def losses(result: Result) -> list[float]:
    return pv.History.from_csv(Path("sweep") / result.name / "history.csv")["validation_loss"].tolist()


def test_hopeless_points_end_early_and_the_table_says_so(base: dict[str, Any]) -> None:
    found = study(base)
    by_number = {trial.number: trial for trial in journal().trials}
    results = {(r.chosen["seed"], r.chosen["optimizer.lr"]): r for r in found.results}
    pruned = [r for r in found.results if r.outcome.status == "pruned"]
    assert pruned
    assert HOPELESS in {r.chosen["optimizer.lr"] for r in pruned}
    assert len(by_number) == len(results) == 12
    for number, trial in by_number.items():
        result = results[trial.params["seed"], float(trial.params["optimizer.lr"])]
        assert trial.intermediate_values == dict(enumerate(losses(result), start=1))
        before = [one for one in by_number.values() if one.number < number and one.state.name == "COMPLETE"]
        if result.outcome.status != "pruned":
            assert (trial.state.name, result.outcome.status, result.epochs) == ("COMPLETE", "finished", EPOCHS)
            assert trial.value == result.best == min(losses(result))
            continue
        assert trial.state.name == "PRUNED"
        assert result.epochs < EPOCHS
        assert len(before) >= STARTUP
        assert min(losses(result)) > statistics.median(one.intermediate_values[result.epochs] for one in before)
        assert result.outcome.sentence == f"stopped after epoch {result.epochs} of {EPOCHS}: the study pruned it."
    table = pd.read_csv("sweep/sweep.csv").set_index("run")
    assert all(table["status"][r.name] == "pruned" and table["epochs"][r.name] < EPOCHS for r in pruned)
    assert f"{12 - len(pruned)} finished, {len(pruned)} pruned." in repr(found)
    assert pruned[0].outcome.sentence in repr(found)


def test_best_point_is_the_study_s(base: dict[str, Any]) -> None:
    found = study(base, 6)
    best = journal().best_trial
    assert best.value == found.results[0].best
    assert found.best.name == found.results[0].name
    assert found.results[0].chosen == {"seed": best.params["seed"], "optimizer.lr": float(best.params["optimizer.lr"])}
    assert pv.load(found.best).declaration.latent_dim == 8


def test_search_resumes_with_the_missing_trials(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    train = pool.train

    def counted(request: Request) -> Any:
        trained.append(request.folder.name)
        return train(request)

    monkeypatch.setattr(pool, "train", counted)
    first = study(base, 8)
    assert len(trained) == 8
    assert study(base, 8).results == first.results
    assert len(trained) == 8
    more = study(base, 12)
    assert len(set(trained)) == len(trained) == len(more.results) == len(journal().trials) == 12
    assert all(result in more.results for result in first.results)
    assert journal().best_value == more.results[0].best
    whole = study(base, 12, "whole")  # a proposal's seed follows from its number, not from the call
    assert [(one.chosen, one.best) for one in whole.results] == [(one.chosen, one.best) for one in more.results]


class Killed(BaseException):
    """What ends a process in the midst of work."""


def test_point_that_was_killed_goes_on_and_counts_once(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    base |= {"checkpoints": {"every_epochs": 1}}
    save, saved = CheckpointManager.save, []

    def killing(self: CheckpointManager, tree: dict[str, Any]) -> bool:
        written = save(self, tree)
        saved.append(self.folder.parent.name)
        if len(saved) == EPOCHS + 3:  # in the second point
            raise Killed
        return written

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointManager, "save", killing)
        with pytest.raises(Killed):
            study(base, 3)
    assert journal().trials[1].state.name == "RUNNING"
    found = study(base, 3)
    assert saved[-1] in {result.name for result in found.results}
    assert [result.outcome.status for result in found.results] == ["finished"] * 3
    assert [trial.state.name for trial in journal().trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert journal().trials[2].params == journal().trials[1].params
    assert journal().best_value == found.results[0].best
    whole = study(base, 3, "whole")
    assert [(one.chosen, one.best) for one in whole.results] == [(one.chosen, one.best) for one in found.results]


def test_command_line_prunes_too(base: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    over = "{seed: {low: 0, high: 99}, optimizer.lr: [0.03, 0.05, 0.1, 1e-9]}"
    words = ["--data", "x.npy", "--encoder", "MLP", "--encoder.hidden", "[4]", "--batch_size", "30"]
    main(["sweep", "--over", over, *words, "--epochs", str(EPOCHS), "--search", "optuna", "--samples", "12"])
    out, error = capsys.readouterr()
    assert ": pruned  validation loss " in error
    assert "of 4: the study pruned it." in out
    assert pd.read_csv("runs/sweep/sweep.csv")["status"].value_counts()["pruned"] > 0
