"""A sweep is runs like any others and a table of what they came to, whatever fails or is cut off on the way."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.pictures import labelled, readable
from helpers.small_runs import content
from helpers.sweeping import base, sweep, weights

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.core.files import lock_folder
from pyro_vae.sweeps import pool
from pyro_vae.sweeps.optuna_search import load_study
from pyro_vae.sweeps.picture import sweep as draw
from pyro_vae.sweeps.results import Result
from pyro_vae.sweeps.trial import Outcome, Request
from pyro_vae.training.checkpoints import CheckpointManager
from pyro_vae.training.loop import Loop

__all__ = ["base"]

OVER = {"latent_dim": [1, 2], "likelihood": ["Laplace", {"Normal": {"scale": "learned"}}]}


def test_sweep_points_equal_runs_of_fit(base: dict[str, Any]) -> None:
    found = sweep({"latent_dim": [1, 2], "prior": ["Laplace"]}, base)
    assert len(found.results) == 2
    for result in found.results:
        run = Path("sweep") / result.name
        main(["fit", "--config", str(run / "spec.yaml"), "--run", "alone", "--overwrite", "--progress", "false"])
        assert weights(run) == weights(Path("alone"))
        assert (run / "spec.yaml").read_text() == Path("alone/spec.yaml").read_text()
        assert set(content(run)) == set(content(Path("alone")))
        assert pv.load(run).declaration.latent_dim == result.chosen["latent_dim"]


def test_table_holds_what_the_histories_do(base: dict[str, Any]) -> None:
    found = sweep(OVER, base)
    table = pd.read_csv("sweep/sweep.csv")
    assert table["best_validation_loss"].is_monotonic_increasing
    assert set(table["latent_dim"]) == {1, 2}
    assert set(table["likelihood"]) == {"Laplace", "Normal(scale=learned)"}
    for _, line in table.iterrows():
        history = pd.read_csv(f"sweep/{line['run']}/history.csv")
        assert line["best_validation_loss"] == history["validation_loss"].min()
        assert line["last_validation_loss"] == history["validation_loss"].iloc[-1]
        assert line["best_epoch"] == history["epoch"][history["validation_loss"].argmin()]
        assert (line["epochs"], line["status"]) == (2, "finished")
        assert line["seconds"] == pytest.approx(history["seconds"].sum())
    assert found.best == Path("sweep") / table["run"][0]
    told = repr(found)
    assert "The best of 4 looks better than it is" in told
    assert "validation loss" in told
    assert told.index(found.results[0].name) < told.index(found.results[3].name)


def test_training_rows_stand_in_for_validation_rows(base: dict[str, Any]) -> None:
    found = sweep({"seed": [0, 1]}, base | {"data": {"name": "x.npy", "validation": 0.0}})
    assert [result.loss for result in found.results] == ["loss", "loss"]
    assert "chosen by the training loss" in repr(found)
    assert pd.read_csv("sweep/sweep.csv")["best_loss"].notna().all()


def refuse(*given: Any, **named: Any) -> None:
    raise AssertionError("it was trained again")


def test_sweep_called_again_trains_what_is_missing_and_nothing_else(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sweep({"latent_dim": [1]}, base)
    before = content(Path("sweep/latent_dim=1"))
    more = sweep({"latent_dim": [1, 2]}, base)
    assert content(Path("sweep/latent_dim=1")) == before
    assert {result.name for result in more.results} == {"latent_dim=1", "latent_dim=2"}
    assert one.results[0] in more.results
    monkeypatch.setattr(pool, "train", refuse)
    assert sweep({"latent_dim": [1, 2]}, base).results == more.results
    assert {result.name for result in sweep({"latent_dim": [2]}, base).results} == {"latent_dim=1", "latent_dim=2"}


def test_sweep_over_other_options_is_refused_by_another_folder(base: dict[str, Any]) -> None:
    sweep({"latent_dim": [1]}, base)
    with pytest.raises(pv.InputError, match=r"is a sweep over latent_dim, and now it is over seed.*to='another'"):
        sweep({"seed": [0, 1]}, base)
    assert len(sweep({"seed": [0, 1]}, base, "another").results) == 2


class Killed(BaseException):
    """What ends a process in the midst of work."""


@pytest.mark.parametrize("after", [1, 3, 4])
def test_killed_sweep_goes_on_to_the_same_weights(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    base |= {"checkpoints": {"every_epochs": 1}}
    whole = sweep({"seed": [0, 1]}, base, "whole")
    save, saved = CheckpointManager.save, []

    def killing(self: CheckpointManager, tree: dict[str, Any]) -> bool:
        written = save(self, tree)
        saved.append(self.folder.parent.name)
        if len(saved) == after:
            raise Killed
        return written

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointManager, "save", killing)
        with pytest.raises(Killed):
            sweep({"seed": [0, 1]}, base)
    trained: list[str] = []
    evaluate = Loop._evaluate
    monkeypatch.setattr(Loop, "_evaluate", lambda self, *given: (trained.append(""), evaluate(self, *given))[1])
    again = sweep({"seed": [0, 1]}, base)
    epochs = {1: 3, 3: 2, 4: 1}  # left after so many: there is one after each epoch, and one at the end
    assert len(trained) == epochs[after]
    assert [result.best for result in again.results] == [result.best for result in whole.results]
    for result in whole.results:
        assert weights(Path("sweep") / result.name) == weights(Path("whole") / result.name)


def test_checkpoints_that_were_not_declared_are_removed(base: dict[str, Any]) -> None:
    sweep({"seed": [0]}, base, "one")
    sweep({"seed": [0]}, base | {"checkpoints": {"every_epochs": 1}}, "two")
    assert not Path("one/seed=0/checkpoints").exists()
    assert Path("two/seed=0/checkpoints/best.safetensors").exists()


FAILING = {"optimizer": ["Adam", {"SGD": {"lr": 1e30}}], "likelihood": ["Laplace", "Poisson"]}


def test_points_that_fail_say_why_and_the_others_go_on(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = sweep(FAILING, base)
    status = {(str(r.chosen["optimizer"])[:4], r.chosen["likelihood"]): r.outcome for r in found.results}
    assert status["Adam", "Laplace"].status == "finished"
    assert status["{'SG", "Laplace"].status == "diverged"
    assert "in epoch 1" in status["{'SG", "Laplace"].sentence
    assert {status[one, "Poisson"].status for one in ("Adam", "{'SG")} == {"refused"}
    assert "Poisson" in status["Adam", "Poisson"].sentence
    assert found.results[0].outcome.status == "finished"
    assert "1 finished, 2 refused, 1 diverged" in repr(found)
    written = pd.read_csv("sweep/sweep.csv", dtype=str, keep_default_na=False)["best_epoch"].tolist()
    assert written == [str(found.results[0].best_epoch), "nan", "nan", "nan"]
    tried: list[Path] = []
    train = pool.train
    monkeypatch.setattr(pool, "train", lambda request: (tried.append(request.folder), train(request))[1])
    again = sweep(FAILING, base)
    assert [result.outcome for result in again.results] == [result.outcome for result in found.results]
    assert len(tried) == 2  # what diverged would diverge again; what was refused may have been mended
    assert all("Poisson" in folder.name for folder in tried)


def test_fault_in_one_point_is_reported_and_the_others_go_on(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CheckpointManager.declare

    def full(self: CheckpointManager, *given: Any, **named: Any) -> None:
        if "seed=0" in str(self.folder):
            raise RuntimeError("out of memory\nmore")
        whole(self, *given, **named)

    monkeypatch.setattr(CheckpointManager, "declare", full)
    found = sweep({"seed": [0, 1]}, base)
    assert [result.outcome.status for result in found.results] == ["finished", "failed"]
    assert found.results[1].outcome.sentence == "RuntimeError: out of memory"


def test_field_that_some_points_lack_is_a_refused_combination(base: dict[str, Any]) -> None:
    found = sweep({"optimizer": ["Adam", "SGD"], "optimizer.momentum": [0.5]}, base | {"epochs": 1})
    assert {str(r.chosen["optimizer"]): r.outcome.status for r in found.results} == {
        "Adam": "refused",
        "SGD": "finished",
    }
    with pytest.raises(pv.InputError, match=r"the point optimizer=Adam,momentum=0.5: unknown field of Adam 'momentum'"):
        sweep({"optimizer": ["Adam"], "optimizer.momentum": [0.5]}, base, "other")
    assert not Path("other").exists()


def test_folder_of_something_else_or_of_another_sweep_is_left_alone(base: dict[str, Any]) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("")
    with pytest.raises(pv.InputError, match="mine exists and is not a sweep, so it is left alone"):
        sweep({"seed": [0]}, base, "mine")
    sweep({"seed": [0]}, base)
    before = content(Path("sweep"))
    with pytest.raises(pv.InputError, match="sweep is a sweep with epochs = 2, and now it is 3: choose another folder"):
        sweep({"seed": [0]}, base | {"epochs": 3})
    with pytest.raises(pv.InputError, match="sweep is a sweep with prior = None, and now it is 'Laplace'"):
        sweep({"seed": [0]}, base | {"prior": pv.Laplace()})
    held = lock_folder(Path("sweep"))
    with pytest.raises(pv.InputError, match=r"sweep is being written by another process \(\d+\)"):
        sweep({"seed": [0]}, base)
    held.release()
    Path("sweep/.lock").write_bytes(before[".lock"])
    assert content(Path("sweep")) == before


@pytest.mark.parametrize("text", ["[1, 2]\n", "not JSON\nat all\n"])
def test_journal_that_no_sweep_has_written_is_refused(base: dict[str, Any], text: str) -> None:
    Path("sweep").mkdir()
    Path("sweep/study.log").write_text(text)
    with pytest.raises(pv.InputError, match=r"study\.log is not the journal of a sweep"):
        sweep({"seed": [0]}, base)
    assert Path("sweep/study.log").read_text() == text


def test_sweep_of_an_earlier_version_is_refused(base: dict[str, Any]) -> None:
    Path("sweep").mkdir()
    Path("sweep/sweep.yaml").write_text("base: {}\npoints: {}\n")
    with pytest.raises(pv.InputError, match="sweep of an earlier version, without a journal: choose another folder"):
        sweep({"seed": [0]}, base)
    assert content(Path("sweep")).keys() == {"sweep.yaml"}


def test_journal_holds_the_trials_in_the_order_of_the_grid(base: dict[str, Any]) -> None:
    found = sweep({"epochs": [1, 2], "optimizer": ["Adam", {"SGD": {"lr": 1e30}}]}, base)
    trials = load_study(Path("sweep/study.log")).trials
    grid = [(1, "Adam"), (1, {"SGD": {"lr": 1e30}}), (2, "Adam"), (2, {"SGD": {"lr": 1e30}})]
    assert [tuple(trial.user_attrs["options"].values()) for trial in trials] == grid
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "FAIL"]
    by_options = {json.dumps(dict(result.chosen)): result for result in found.results}
    for trial in trials:
        result = by_options[json.dumps(trial.user_attrs["options"])]
        assert trial.user_attrs["outcome"] == {"status": result.outcome.status, "sentence": result.outcome.sentence}
        assert trial.value == (result.best if result.kind else None)


def test_table_and_declaration_are_never_read(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = sweep({"seed": [0, 1]}, base)
    before = content(Path("sweep"))
    Path("sweep/sweep.csv").write_text("nonsense")
    Path("sweep/sweep.yaml").unlink()
    monkeypatch.setattr(pool, "train", refuse)
    assert sweep({"seed": [0, 1]}, base).results == found.results
    again = content(Path("sweep"))
    assert again["sweep.csv"] == before["sweep.csv"]
    assert again["sweep.yaml"] == before["sweep.yaml"]


def test_run_that_was_deleted_is_trained_again(base: dict[str, Any]) -> None:
    found = sweep({"seed": [0, 1]}, base)
    shutil.rmtree("sweep/seed=0")
    again = sweep({"seed": [0, 1]}, base)
    assert {one.name: one.best for one in again.results} == {one.name: one.best for one in found.results}
    assert pv.load("sweep/seed=0").declaration.latent_dim == 8


def test_points_that_were_waiting_are_trained_only_where_they_are_asked_for(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(request: Request) -> Outcome:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(pool, "train", killed)
        with pytest.raises(SystemExit):
            sweep({"seed": [0, 1, 2]}, base)
    found = sweep({"seed": [1]}, base)
    assert [result.name for result in found.results] == ["seed=1"]


def test_losses_of_different_kinds_are_reported_separately(base: dict[str, Any]) -> None:
    over = {"objective": ["ELBO", {"ELBO": {"beta": 4}}], "seed": [0, 1]}
    found = sweep(over, base)
    assert len(found.kinds) == 2
    objectives = [json.dumps(result.chosen["objective"]) for result in found.results]
    assert objectives == sorted(objectives, key=objectives.index)  # one kind after the other
    assert objectives[0] != objectives[-1]
    with pytest.raises(pv.InputError, match="of 2 kinds, so none is the best of all"):
        _ = found.best
    told = repr(found)
    assert "Losses of kind 2: ELBO(beta=4.0)" in told
    assert "data x.npy" not in told  # what all have in common
    assert "cannot be compared" in told


def test_counts_and_real_numbers_are_of_different_kinds(base: dict[str, Any]) -> None:
    np.save("x.npy", np.arange(60.0).reshape(20, 3))
    found = sweep({"likelihood": ["Poisson", "Normal"]}, base | {"epochs": 1})
    assert sorted(kind.partition(";")[0] for kind in found.kinds) == ["densities", "probabilities"]


def test_loss_counts_where_the_schedules_have_ended(base: dict[str, Any]) -> None:
    ramp = {"ELBO": {"beta": {"Linear": {"start": 0, "end": 1, "epochs": 2}}}}
    found = sweep({"seed": [0]}, base | {"objective": ramp, "epochs": 4})
    history = pv.History.from_csv(Path("sweep/seed=0/history.csv"))
    settled = history["validation_loss"][history["beta"] == 1]
    assert 0 < len(settled) < 4
    assert found.results[0].best == settled.min() > history["validation_loss"].min()


def scattered(kinds: int) -> pv.Sweep:
    """Eight points, the first of them far off, and one that failed."""
    results = [
        Result(
            name=f"p{i}",
            chosen={"a": i, "likelihood": "N" * (i % 3 + 1)},
            outcome=Outcome("finished"),
            kind=f"k{i % kinds}",
            best=1e9 if i == 0 else float(i),
            best_epoch=1,
            epochs=1,
        )
        for i in range(8)
    ]
    return pv.Sweep(Path("s"), [*results, Result("bad", {"a": 3}, Outcome("diverged", "why."))])


@pytest.mark.parametrize("kinds", [1, 2])
def test_picture_has_a_panel_for_each_option_and_kind(kinds: int) -> None:
    picture = draw(scattered(kinds))
    readable(picture)
    labelled(picture)
    shown = [axes for axes in picture.axes if axes.axison]
    assert [axes.get_xlabel() for axes in shown] == ["a", "likelihood"] * kinds
    assert "1 of 9 points have no loss" in picture.get_supxlabel()
    drawn = np.concatenate([line.get_ydata() for line in shown[0].lines])
    assert drawn.max() < 20  # the loss of 1e9 stands at the edge
    assert any(line.get_marker() == "^" for line in shown[0].lines)
    best = next(line for line in shown[0].lines if line.get_markersize() == 6)
    assert (best.get_xdata()[0], best.get_ydata()[0]) == ((1, 1.0) if kinds == 1 else (2, 2.0))
