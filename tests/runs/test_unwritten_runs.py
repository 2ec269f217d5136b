"""A training whose run cannot be written loses nothing: the run before stays, and the new one is elsewhere."""

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.small_runs import content, fit, rows, small
from safetensors import SafetensorError

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.runs import folder as runs


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for what is temporary."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere"


def full_for(folder: str) -> Callable[..., None]:
    """A disk that is full where a path has this name in it."""
    whole = safetensors.torch.save_model

    def save(module: Any, file: str) -> None:
        if folder in file:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        whole(module, file)

    return save


def test_full_disk_leaves_the_run_before_and_writes_the_new_one_elsewhere(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(small(), rows(), tmp_path / "run")
    before = content(tmp_path / "run")
    monkeypatch.setattr(safetensors.torch, "save_model", full_for(str(tmp_path / ".run.writing")))
    vae = small()
    with pytest.raises(pv.RunNotWrittenError, match=r"run could not be written .*No space left on device") as caught:
        fit(vae, rows(), tmp_path / "run", overwrite=True)
    assert content(tmp_path / "run") == before
    (saved,) = elsewhere.glob("*/run")
    assert f"All of it is in {saved}" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "elsewhere"}  # nothing is left half-way
    loaded = pv.load(saved)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), vae.parameters(), strict=True))
    assert len(runs.RunFolder(saved).history()) == 2
    caught.value.write(tmp_path / "by-hand")
    assert content(tmp_path / "by-hand") == content(saved)


def test_unwritable_run_error_names_the_model_in_memory(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    vae = small()
    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_model", refuse)
        with pytest.raises(
            pv.RunNotWrittenError, match=r"The model in memory is trained: make room.*error.write"
        ) as caught:
            fit(vae, rows(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    caught.value.write(tmp_path / "run")
    assert torch.equal(next(pv.load(tmp_path / "run").parameters()), next(vae.parameters()))


def test_checkpoints_are_gone_on_with_to_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pv.Checkpoints(every_epochs=1)
    torch.manual_seed(0)
    fit(small(), rows(), tmp_path / "whole", checkpoints=plan)
    torch.manual_seed(0)
    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_model", full_for("run"))
        with pytest.raises(pv.RunNotWrittenError, match=r"Or make room there and fit again with resume=True"):
            fit(small(), rows(), tmp_path / "run", checkpoints=plan)
    fit(small(), rows(), tmp_path / "run", checkpoints=plan, resume=True)
    same = ("model.safetensors", "spec.yaml")
    assert all((tmp_path / "run" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in same)


def test_command_line_says_it_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(safetensors.torch, "save_model", full_for(".run.writing"))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--epochs", "1", "--encoder", "MLP", "--batch_size", "999", "--run", "run", "--progress", "false"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("pyro-vae: run could not be written")
    assert error.count("\n") == 1
