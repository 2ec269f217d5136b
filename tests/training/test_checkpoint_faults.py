"""Full disks, locked folders, signals and losses that are no numbers: nothing that was saved is lost."""

import errno
import functools
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.cases import same
from helpers.fitting import interrupted
from helpers.resuming import acting, fit, require_equal, rows, small, steps, table
from helpers.small_runs import content

import pyro_vae as pv
import pyro_vae.training.loop as loop
from pyro_vae.cli import main
from pyro_vae.core import files
from pyro_vae.runs.folder import RunFolder
from pyro_vae.training import signals, snapshot

EVERY = pv.Checkpoints(every_minutes=0)

# The disk


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk without room for the writings whose numbers are put in the list."""
    numbers, count, sync = [], 0, files.sync

    def fail(path: Path) -> None:
        nonlocal count
        if ".safetensors.writing" in path.name:
            count += 1
            if count in numbers:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    monkeypatch.setattr(files, "sync", fail)
    return numbers


def test_full_disk_is_said_and_training_goes_on(full: list[int], tmp_path: Path) -> None:
    vae, reference = small(), small()
    full += [5, 6]
    plan = pv.Checkpoints(every_minutes=0, best=False)
    with pytest.warns(UserWarning, match=r"no checkpoint could be written .*No space.*: step-0{9}[34].* the newest"):
        history = fit(vae, rows(), run=tmp_path / "run", checkpoints=plan)
    require_equal((reference, fit(reference, rows())), (vae, history))
    assert len(steps(tmp_path / "run")) == 2
    assert not list((tmp_path / "run").rglob("*writing*"))


def test_disk_that_stays_full_leaves_the_last_good_one(full: list[int], tmp_path: Path) -> None:
    full += range(5, 100)
    stop = acting(7, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.warns(UserWarning, match="no checkpoint could be written"):
        history = interrupted(fit, small(), rows(), run=tmp_path / "run", checkpoints=EVERY, optimizer=stop)
    assert history.stopped == "interrupted in epoch 3 of 3"  # and no word of going on from there
    assert snapshot.read(steps(tmp_path / "run")[-1])["at"]["steps"] == 3


def test_real_limit_on_files_is_met_without_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "it"
    snapshot.write(file, snapshot.pack({"a": torch.zeros(10)}))
    before, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="it"):
            snapshot.write(file, snapshot.pack({"a": torch.zeros(10**5)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", [".lock", ".spec.yaml.writing"])
def test_folder_that_cannot_be_written_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = {os: os.open, Path: Path.write_text}

    def refuse(path: Any, *arguments: Any, **more: Any) -> Any:
        if Path(path).name.startswith(name):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original[Path if isinstance(path, Path) else os](path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse) if name == ".lock" else monkeypatch.setattr(Path, "write_text", refuse)
    vae, untouched = small(), small()
    with pytest.raises(
        pv.InputError, match=r"checkpoints cannot be written \(.*Permission denied\): choose another place"
    ):
        fit(vae, rows(), run=tmp_path / "run", checkpoints=EVERY)
    assert same(vae.state_dict(), untouched.state_dict())


def test_optimizer_that_needs_pickle_is_refused(tmp_path: Path) -> None:
    class Odd(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            self.state[self.param_groups[0]["params"][0]]["memory"] = {1, 2}

    with pytest.raises(pv.InputError, match=r"optimizer/state/0/memory is a set, .* without pickle: .*pv.Adam"):
        fit(small(), rows(), run=tmp_path / "run", checkpoints=EVERY, optimizer=lambda weights: Odd(weights, lr=0.1))
    assert list(tmp_path.iterdir()) == []


# The lock


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {"overwrite": True, "checkpoints": EVERY}])
def test_folder_that_another_process_writes_is_refused(how: dict[str, Any], tmp_path: Path) -> None:
    run, vae, untouched = tmp_path / "run", small(), small()
    fit(small(), rows(), run=run, checkpoints=EVERY)
    before = content(run)
    code = "import fcntl, os, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
    code += "print(os.getpid(), file=file, flush=True); print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(run / "checkpoints" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(pv.InputError, match=rf"is being written by another process \({other.pid}\): wait for it"):
            fit(vae, rows(), run=run, **how)
        assert {name: data for name, data in content(run).items() if ".lock" not in name} == {
            name: data for name, data in before.items() if ".lock" not in name
        }
        assert same(vae.state_dict(), untouched.state_dict())
        other.kill()  # it has no time to say goodbye
        other.wait()
        fit(vae, rows(), run=run, **how)


def test_run_folder_is_locked_within_a_process(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    held = files.lock_folder(tmp_path / "run" / "checkpoints")
    with pytest.raises(pv.InputError, match="being written by another process"):
        fit(small(), rows(), run=tmp_path / "run", resume=True)
    held.release()


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("at", [1, 3, 8], ids=["first step", "last step of an epoch", "in the last epoch"])
def test_signal_ends_training_after_its_step_and_nothing_is_lost(
    number: signal.Signals, at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        run, optimizer = tmp_path / "run", acting(at, lambda: os.kill(os.getpid(), number))
        ended = functools.partial(interrupted, fit) if number == signal.SIGINT else fit
        history = ended(small(), rows(), run=run, checkpoints=pv.Checkpoints(), optimizer=optimizer)
        word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
        told = f"{word} in epoch {(at - 1) // 3 + 1} of 3; resume=True (--resume) continues from there"
        assert history.stopped == told
        assert [snapshot.read(file)["at"]["steps"] for file in steps(run)] == [at]
        assert came == [signal.SIGTERM] * (number == signal.SIGTERM)  # it does then what it did before
        assert (f"Training was {told}." in capsys.readouterr().err) == bool(came)
        assert RunFolder(run).finished == (number == signal.SIGINT)
        if number == signal.SIGINT:
            assert same(pv.load(run).state_dict(), pv.load(run, checkpoint="last").state_dict())
            assert RunFolder(run).history().stopped == told
        again, reference = small(), small()
        resumed = fit(again, rows(), run=run, resume=True, optimizer=acting(0, print))
        require_equal((reference, fit(reference, rows(), optimizer=acting(0, print))), (again, resumed))
        assert RunFolder(run).history().stopped == ""
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signal_after_the_last_step_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    original = loop.Loop._evaluate

    def evaluate(self: Any, *arguments: Any) -> Any:
        if self.loss.running.step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(loop.Loop, "_evaluate", evaluate)
    try:
        history = fit(small(), rows(), run=tmp_path / "run", checkpoints=pv.Checkpoints())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(history) == 3
    assert history.stopped == "terminated after the last epoch; resume=True (--resume) continues from there"
    assert came == [signal.SIGTERM]


def test_fit_without_checkpoints_handles_only_the_keyboard_interrupt() -> None:
    class Ended(Exception):
        pass

    def end(number: int, frame: Any) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Ended):
            fit(small(), rows(), optimizer=acting(2, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    finally:
        signal.signal(signal.SIGTERM, before)
    vae, two = small(), small()
    history = interrupted(fit, vae, rows(), optimizer=acting(2, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert history.stopped == "interrupted in epoch 1 of 3"
    interrupted(fit, two, rows(), epochs=1, optimizer=acting(3, lambda: (_ for _ in ()).throw(KeyboardInterrupt())))
    assert same(vae.state_dict(), two.state_dict())  # the step was finished


def test_second_signal_is_not_deferred() -> None:
    with signals.deferred(signal.SIGINT) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.by == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_are_ignored_or_elsewhere_are_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.deferred(signal.SIGINT) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.by is None
    finally:
        signal.signal(signal.SIGINT, before)
    found: list[pv.History] = []
    thread = threading.Thread(target=lambda: found.append(fit(small(), rows())))
    thread.start()
    thread.join()
    assert len(found[0]) == 3


# No numbers


@pytest.mark.parametrize("saving", [False, True])
def test_loss_that_is_nan_ends_training_soon(saving: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECK_FINITE_EVERY_STEPS", 2)
    vae = small()

    def spoil() -> None:
        with torch.no_grad():
            next(vae.posterior.parameters()).fill_(torch.nan)

    counted = acting(6, spoil)
    plan = {"run": tmp_path / "run", "checkpoints": pv.Checkpoints(every_epochs=1)} if saving else {}
    with pytest.raises(FloatingPointError) as caught:
        fit(vae, rows(100), optimizer=counted, **plan)  # thirteen steps an epoch
    told = str(caught.value)
    assert told.startswith("the loss is nan in epoch 1: lower the learning rate")
    assert "NaN or infinite weights: " in told
    assert not (tmp_path / "run").exists()
    if saving:
        plan["checkpoints"] = EVERY
        with pytest.raises(FloatingPointError, match=r"pv.load\('.*run', checkpoint='last'\) gives that model"):
            fit(vae := small(), rows(100), optimizer=acting(16, spoil_of(vae)), **plan)
        assert snapshot.read(steps(tmp_path / "run")[-1])["at"]["steps"] == 15
        last = pv.load(tmp_path / "run", checkpoint="last")
        assert all(weight.isfinite().all() for weight in last.parameters())
        assert not all(weight.isfinite().all() for weight in vae.parameters())


def spoil_of(vae: pv.VAE) -> Any:
    def spoil() -> None:
        with torch.no_grad():
            next(vae.posterior.parameters()).fill_(torch.inf)

    return spoil


# The command line


def test_command_line_saves_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    common = [
        "--latent_dim",
        "2",
        "--encoder",
        "MLP",
        "--encoder.hidden",
        "[8]",
        "--batch_size",
        "500",
        "--progress",
        "false",
    ]
    main(["fit", *common, "--epochs", "2", "--run", str(tmp_path / "whole")])
    main(["fit", *common, "--epochs", "1", "--run", str(run), "--checkpoints.every_epochs", "1"])
    for file in (run / "spec.yaml", run / "model.safetensors", run / "history.csv"):
        file.unlink()
    with pytest.raises(SystemExit):
        main(["describe", str(run)])
    assert f"pyro-vae fit --config {run / 'checkpoints' / 'spec.yaml'} --run {run} --resume" in capsys.readouterr().err
    config = str(run / "checkpoints" / "spec.yaml")
    main(["fit", "--config", config, "--run", str(run), "--resume", "--epochs", "2", "--progress", "false"])
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(table(RunFolder(run).history()), table(RunFolder(tmp_path / "whole").history()))
