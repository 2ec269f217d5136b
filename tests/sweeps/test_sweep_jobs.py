"""Several points at a time, and points that a study proposes: the same runs, and nothing lost when a process dies."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from helpers.sweeping import base, sweep, weights

import pyro_vae as pv
from pyro_vae.sweeps import pool
from pyro_vae.sweeps.optuna_search import load_study
from pyro_vae.sweeps.trial import Outcome, Request

__all__ = ["base"]


@pytest.mark.slow
def test_jobs_train_the_same_weights(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)  # two threads each, as here
    over = {"seed": [0, 1, 2], "optimizer": ["Adam", {"SGD": {"lr": 1e30}}]}
    one, two = sweep(over, base, "one"), sweep(over, base, "two", jobs=2)
    assert {r.name: r.outcome for r in one.results} == {r.name: r.outcome for r in two.results}
    finished = [result.name for result in one.results if result.outcome.status == "finished"]
    assert len(finished) == 3
    assert all(weights(Path("one") / name) == weights(Path("two") / name) for name in finished)


class Kill:
    """A callback that kills its process after an epoch."""

    def __call__(self, event: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_process_that_is_killed_takes_one_point_with_it(base: dict[str, Any], tmp_path: Path) -> None:
    outcomes: dict[str, Outcome] = {}

    def done(request: Request, outcome: Outcome) -> None:
        outcomes[request.folder.name] = outcome

    requests = [Request(base | {"seed": i}, tmp_path / f"{i}", (Kill(),) if i == 1 else ()) for i in range(4)]
    pool.train_all(iter(requests), done, 2)
    assert outcomes.keys() == {"0", "1", "2", "3"}
    assert outcomes.pop("1") == Outcome(
        "failed", "its process ended by SIGKILL(-9): perhaps memory ran out, so try fewer jobs."
    )
    assert set(outcomes.values()) == {Outcome("finished")}


@pytest.mark.slow
def test_process_that_dies_idle_is_replaced(base: dict[str, Any], tmp_path: Path) -> None:
    worker = pool.Worker(1)
    os.kill(worker.pid.result(), signal.SIGKILL)
    with contextlib.suppress(BrokenProcessPool):  # it may be noticed only now
        worker.submit(Request(base, tmp_path / "a")).result()
    assert worker.submit(Request(base, tmp_path / "b")).result() == Outcome("finished")
    worker.pool.shutdown()


@pytest.mark.slow
def test_script_without_a_guard_can_have_jobs(base: dict[str, Any]) -> None:
    Path("script.py").write_text(
        f"import pyro_vae as pv\nprint('once')\nprint(pv.sweep({{'seed': [0, 1]}}, {base}, to='s', jobs=2))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    assert done.stdout.count("once") == 1
    assert "2 finished" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_sweep_ends_its_workers_and_goes_on(base: dict[str, Any], number: signal.Signals) -> None:
    over = "{seed: [0, 1]}"
    words = ["--data", "x.npy", "--encoder", "MLP", "--epochs", "200", "--to", "sweep"]
    words += ["--checkpoints.every_epochs", "5"]
    command = [sys.executable, "-m", "pyro_vae.cli", "sweep", "--over", over, *words, "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while len(list(Path("sweep").glob("*/checkpoints/step-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # as many as each of the workers had
    common = {"data": "x.npy", "encoder": "MLP", "epochs": 200, "checkpoints": {"every_epochs": 5}}
    whole = sweep({"seed": [0, 1]}, common, "whole")
    again = sweep({"seed": [0, 1]}, common)  # nobody holds a lock any more
    torch.set_num_threads(threads)
    assert [result.best for result in again.results] == [result.best for result in whole.results]


STUDY = {"latent_dim": {"low": 1, "high": 3}, "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}}


class TestStudy:
    """A search by a study."""

    def test_points_are_proposed_and_recorded(self, base: dict[str, Any]) -> None:
        before = optuna.logging.get_verbosity()
        found = sweep(STUDY | {"prior": ["Normal", "Laplace"]}, base, search="optuna", samples=4)
        assert [result.outcome.status for result in found.results] == ["finished"] * 4
        assert all(1 <= r.chosen["latent_dim"] <= 3 and 1e-3 <= r.chosen["optimizer.lr"] <= 1e-1 for r in found.results)
        study = load_study(Path("sweep/study.log"))
        assert study.best_value == found.results[0].best
        assert optuna.logging.get_verbosity() == before
        more = sweep(STUDY | {"prior": ["Normal", "Laplace"]}, base, search="optuna", samples=6)
        assert len(more.results) == 6
        assert all(result in more.results for result in found.results)

    def test_trial_that_was_cut_off_is_proposed_again(
        self, base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train, started = pool.train, []

        def killed(request: Request) -> Outcome:
            started.append(request.folder)
            if len(started) == 2:
                raise SystemExit
            return train(request)

        with monkeypatch.context() as patched:
            patched.setattr(pool, "train", killed)
            with pytest.raises(SystemExit):
                sweep(STUDY, base, search="optuna", samples=3)
        monkeypatch.setattr(pool, "train", lambda request: (started.append(request.folder), train(request))[1])
        found = sweep(STUDY, base, search="optuna", samples=3)
        assert started[2] == started[1]
        assert len(found.results) == 3

    def test_objective_as_an_axis_of_a_study_is_refused(self, base: dict[str, Any]) -> None:
        with pytest.raises(pv.InputError, match=r"objective\.beta changes what the loss is, so no study"):
            sweep({"objective.beta": [1, 2]}, base, search="optuna", samples=2)

    def test_losses_of_another_kind_are_not_ranked(self, base: dict[str, Any]) -> None:

        np.save("x.npy", np.arange(60.0).reshape(20, 3))
        over = {"likelihood": ["Poisson", "Laplace"], "seed": {"low": 0, "high": 99}}
        found = sweep(over, base | {"epochs": 1}, search="optuna", samples=6)
        assert len(found.kinds) == 1
        assert {result.outcome.status for result in found.results} == {"finished", "failed"}
