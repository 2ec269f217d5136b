"""Training that is killed with SIGKILL at random moments, in the middle of writing a checkpoint too, loses nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


def killed(folder: Path, *how: int) -> dict[str, Any]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, str(TESTS / "helpers/kill_worker.py"), str(folder), *map(str, how)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("runs", "writing", "compiled"),
    [
        (2, 0, False),
        pytest.param(5, 0, False, marks=pytest.mark.slow),
        pytest.param(30, 8, False, marks=pytest.mark.slow),
        pytest.param(8, 0, True, marks=pytest.mark.slow),
    ],
)
def test_resume_after_any_kill_ends_identical(
    runs: int, writing: int, compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled:
        monkeypatch.setenv("KILLED_COMPILED", "1")
    found = killed(tmp_path, runs, 7)
    assert found["resumed"] == found["identical"] == runs
    assert found["left behind"] == 0
    assert found["kills"] >= runs  # every run was killed at least once
    assert found["while a checkpoint was written"] >= writing


@pytest.mark.slow
def test_kill_between_any_two_operations_on_files_loses_nothing(tmp_path: Path) -> None:
    found = killed(tmp_path)
    assert found["killed"] > 30
    assert found["taken for whole"] == 0
    assert found["resumed"] == found["identical"] == found["killed"] + 1
    assert found["left behind"] == 0
