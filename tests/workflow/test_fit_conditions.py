"""Conditions under which `fit` is called: threads, gradients switched off, and the keyboard."""

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cases import same
from helpers.fitting import fit, interrupted, rows, small

import pyro_vae as pv
from pyro_vae import cli
from pyro_vae.runs.folder import RunFolder
from pyro_vae.training.termination import Termination

# Threads


def test_fit_in_a_second_thread_is_refused_before_any_work() -> None:
    vae, untouched, inside, done = small(), small(), threading.Event(), threading.Event()

    def wait(at: pv.EpochEvent) -> None:
        inside.set()
        done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fit, small(), rows(), epochs=1, callbacks=[wait])
        inside.wait(60)
        try:
            with pytest.raises(pv.InputError, match=r"another thread is in pv\.fit, .* one model after the other"):
                fit(vae, rows())
        finally:
            done.set()
        assert len(first.result()) == 1
        assert same(vae.state_dict(), untouched.state_dict())
        fit(vae, rows())  # one after the other, in whichever thread
        assert len(pool.submit(fit, vae, rows()).result()) == 3


def test_refused_fit_leaves_the_lock_free() -> None:
    with pytest.raises(pv.InputError):
        fit(small(), rows()[:1])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fit, small(), rows()).result()


def test_callback_may_fit_another_model() -> None:
    histories = []
    fit(small(), rows(), epochs=1, callbacks=[lambda at: histories.append(fit(small(), rows()))])
    assert [len(history) for history in histories] == [3]


# Gradients


@pytest.mark.parametrize("block", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_fit_computes_gradients_whatever_the_caller_has_set(block: Any) -> None:
    vae, other = small(), small()
    expected = fit(vae, rows())
    x = rows()
    with contextlib.ExitStack() as stack:
        stack.enter_context(block())
        found = fit(other, x)
        assert not torch.is_grad_enabled()
    assert same(vae.state_dict(), other.state_dict())
    assert found["loss"].tolist() == expected["loss"].tolist()


# The keyboard


def press(at: pv.EpochEvent) -> None:
    if at.epoch == 2:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("epochs", [2, 5], ids=["after the last epoch", "before the last epoch"])
def test_interrupt_ends_a_loop_of_fits_once_its_run_is_safe(epochs: int, tmp_path: Path) -> None:
    fitted = []

    def loop() -> None:
        for number in range(3):
            fitted.append(small())
            fit(fitted[-1], rows(), epochs=epochs, run=tmp_path / str(number), callbacks=[press])

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert [folder.name for folder in tmp_path.iterdir()] == ["0"]
    assert same(pv.load(tmp_path / "0").state_dict(), fitted[0].state_dict())
    assert len(RunFolder(tmp_path / "0").history()) == 2


def test_interrupt_of_the_second_stage_keeps_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Termination.after_epoch

    def after_epoch(self: Any) -> Any:
        if type(self.programs).__name__ == "Density":
            os.kill(os.getpid(), signal.SIGINT)
        return original(self)

    monkeypatch.setattr(Termination, "after_epoch", after_epoch)
    vae = small(prior=pv.Aggregate())
    history = interrupted(fit, vae, rows(), run=tmp_path / "run")
    assert len(history) == 3
    assert history.stopped == "interrupted in the second stage of the prior"
    assert same(pv.load(tmp_path / "run").state_dict(), vae.state_dict())


def test_interrupted_verb_prints_its_summary_and_exits_with_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Termination, "after_epoch", lambda self: os.kill(os.getpid(), signal.SIGINT))
    words = ["--encoder", "MLP", "--epochs", "3", "--run", str(tmp_path / "run"), "--progress", "false"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", "--latent_dim", "2", *words])
    assert stopped.value.code == 130
    out = capsys.readouterr().out
    assert "Training was interrupted in epoch 2 of 3; the run holds what was learned." in out
    assert RunFolder(tmp_path / "run").finished
