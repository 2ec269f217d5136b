"""Several processes do what one would do, know it alike, and end together."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.distributed_worker import CERTAIN, COMPILED, LIKELIHOOD, certain, cutting, drawing
from helpers.fitting import rows, small
from helpers.resuming import table

import pyro_vae as pv
from pyro_vae.runs.folder import RunFolder

TESTS = Path(__file__).parents[1]


def start(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        environment.pop(name, None)
    command = [sys.executable, *launcher, str(TESTS / "helpers/distributed_worker.py"), str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def found(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("two")
    done = start(folder)
    assert done.returncode == 0, done.stderr
    return folder, found(folder)


def require_equal(first: dict[str, Any], second: dict[str, Any], rtol: float = 0.0) -> None:
    for ours, theirs in zip(first["weights"], second["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)
    assert first["history"].keys() == second["history"].keys()
    for name, column in first["history"].items():
        np.testing.assert_allclose(column, second["history"][name], rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize("name", [*CERTAIN, *(f"{name}, compiled" for name in COMPILED)])
def test_ranks_make_the_steps_of_one_process_on_the_same_batches(name: str, outcome: Any) -> None:
    alone = certain(runtime=pv.Runtime(accelerator="cpu"), **CERTAIN[name.removesuffix(", compiled")])
    for rank in (0, 1):
        require_equal(outcome[1][rank][name], alone, 1e-10)


def test_ranks_have_equal_weights_and_history_with_different_draws(outcome: Any) -> None:
    first, second = (one["drawing"] for one in outcome[1])
    require_equal(first, second)
    assert first["warnings"] == second["warnings"] == []
    saved = pv.load(outcome[0] / "run")
    np.testing.assert_array_equal(
        [w.flatten()[0].item() for w in saved.parameters()], [np.ravel(w)[0] for w in first["weights"]]
    )


def test_ranks_resume_bit_for_bit(outcome: Any) -> None:
    for one in outcome[1]:
        require_equal(one["drawing"], one["resumed"])
        assert one["resumed"]["warnings"] == []


def test_refusal_is_raised_in_all_processes(outcome: Any) -> None:
    told = [one["refused"] for one in outcome[1]]
    assert told[0] == told[1]
    assert "holds a run already" in told[0]


def test_resume_with_fewer_processes_warns_and_continues(outcome: Any) -> None:
    vae = small(likelihood=LIKELIHOOD, prior=pv.VampPrior(4))
    x = pv.data.Rows({"x": rows(22).sigmoid()}, dynamic=True)
    with pytest.warns(UserWarning, match=r"processes 2 \(now 1\): it continues, and not bit for bit"):
        history = pv.fit(
            vae,
            x,
            validation=x,
            epochs=3,
            batch_size=8,
            progress=False,
            optimizer=pv.Adam(0.02, ema=0.9),
            run=pv.RunOptions(outcome[0] / "for one", resume=True),
        )
    two = outcome[1][0]["drawing"]["history"]
    assert table(history)["loss"][0] == two["loss"][0]  # of the epoch that was done
    np.testing.assert_allclose(table(history)["loss"], two["loss"], rtol=0.2)


@pytest.mark.slow
def test_killed_process_ends_the_other_with_a_sentence_and_the_run_resumes(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = start(tmp_path, "SIGKILL")
    assert time.monotonic() - begun < 120
    assert done.returncode == 0  # the first process has made a sentence of it
    told = json.loads((tmp_path / "0.json").read_text())["error"]
    assert told.startswith("ProcessLostError: process 0 of 2: another process of this training has ended")
    run = RunFolder(tmp_path / "run")
    assert run.unfinished
    assert not run.finished
    files = sorted(file.name for file in (tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))
    assert files[-1] == "step-0000000004.safetensors"
    alone = drawing(
        run=tmp_path / "run",
        checkpoints=pv.Checkpoints(),
        resume=True,
        epochs=6,
        optimizer=cutting,
        runtime=pv.Runtime(accelerator="cpu"),
    )
    assert len(alone["history"]["loss"]) == 6
    assert any("processes 2 (now 1)" in each for each in alone["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("by", ["SIGTERM", "SIGINT"])
def test_signal_to_one_ends_all_after_the_same_step(by: str, tmp_path: Path) -> None:
    done = start(tmp_path, by)
    assert RunFolder(tmp_path / "run").unfinished
    if by == "SIGINT":
        first, second = found(tmp_path)
        require_equal(first, second)
        assert first["stopped"] == second["stopped"]
        assert first["stopped"].startswith("interrupted in epoch")
    else:
        assert done.returncode != 0
        assert "Training was terminated in epoch" in done.stderr


@pytest.mark.slow
def test_torchrun_needs_nothing_said(tmp_path: Path, outcome: Any) -> None:
    done = start(tmp_path, launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"))
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(found(tmp_path), outcome[1], strict=True):
        require_equal(ours["drawing"], theirs["drawing"])
