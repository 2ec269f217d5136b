"""Callbacks and loggers are told of every epoch, change nothing of the training, and lose nothing when they fail."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fitting import fit, rows, small
from lightning.fabric.loggers import CSVLogger
from lightning.fabric.loggers.logger import Logger
from torch import Tensor

import pyro_vae as pv
from pyro_vae.cli import main


def state(vae: Any) -> list[Tensor]:
    return list(vae.state_dict().values())


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(state(one), state(other), strict=True))


class Memory(Logger):
    """Remembers what it was told."""

    def __init__(self, failing: str = "") -> None:
        self.told: list[Any] = []
        self.failing = failing

    name = version = "memory"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.failing:
            raise ConnectionError(self.failing)
        self.told.append((step, metrics))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.told.append(params)

    def finalize(self, status: str) -> None:
        self.told.append(status)


def test_callbacks_see_every_epoch_and_change_nothing() -> None:
    seen: list[pv.EpochEvent] = []

    def draws(at: pv.EpochEvent) -> None:
        seen.append(at)
        assert not at.vae.training
        torch.rand(7)
        at.vae.sample(3)

    alone, watched = small(), small()
    plain = fit(alone, rows(), validation=rows())
    history = fit(watched, rows(), validation=rows(), callbacks=[draws])
    assert equal(alone, watched)
    assert history.records[0].keys() == plain.records[0].keys()
    assert [at.epoch for at in seen] == [1, 2, 3]
    assert [at.record for at in seen] == history.records
    assert seen[-1].history is history
    assert seen[0].vae is watched


def test_callback_sees_the_average_of_the_weights() -> None:
    kept: list[list[Tensor]] = []
    vae = small()
    optimizer = pv.Adam(0.1, ema=0.9)
    fit(vae, rows(), optimizer=optimizer, callbacks=[lambda at: kept.append([t.clone() for t in state(at.vae)])])
    assert all(torch.equal(a, b) for a, b in zip(kept[-1], state(vae), strict=True))


@pytest.mark.parametrize(("wanted", "told"), [(True, "stop returned True"), ("enough is enough", "enough is enough")])
def test_callback_ends_the_training(wanted: Any, told: str, tmp_path: Path) -> None:
    def stop(at: pv.EpochEvent) -> Any:
        return wanted if at.epoch == 2 else None

    stop.__qualname__ = "stop"
    vae, other = small(), small()
    plan = pv.Checkpoints()
    history = fit(vae, rows(), epochs=9, callbacks=[stop], run=tmp_path / "run", checkpoints=plan)
    assert history.stopped == f"stopped after epoch 2 of 9: {told}"
    assert equal(vae, pv.load(tmp_path / "run"))
    fit(other, rows(), epochs=2)
    assert equal(vae, other)
    again = fit(small(), rows(), epochs=9, callbacks=[stop], run=tmp_path / "run", checkpoints=plan, resume=True)
    assert again.stopped == history.stopped
    assert len(again) == 2


def test_error_in_a_callback_is_raised_with_its_name_when_the_epoch_is_saved(tmp_path: Path) -> None:
    def breaks(at: pv.EpochEvent) -> None:
        if at.epoch == 2:
            raise KeyError("nothing there")

    plan = pv.Checkpoints(every_minutes=None)
    with pytest.raises(KeyError, match="nothing there") as caught:
        fit(small(), rows(), epochs=4, callbacks=[breaks], run=tmp_path / "run", checkpoints=plan)
    assert "breaks after epoch 2." in caught.value.__notes__[0]
    vae, whole = small(), small()
    history = fit(vae, rows(), epochs=4, run=tmp_path / "run", resume=True)
    fit(whole, rows(), epochs=4)
    assert len(history) == 4
    assert equal(vae, whole)


def test_loggers_get_the_declaration_each_epoch_and_the_end() -> None:
    memory = Memory()
    history = fit(small(), rows(), loggers=[memory])
    declared, *epochs, end = memory.told
    assert declared["prior"] == "Normal(loc=0.0, scale=1.0)"
    assert (declared["latent_dim"], declared["epochs"], declared["seed"]) == (2, 3, 0)
    assert [step for step, _ in epochs] == [1, 2, 3]
    assert [metrics["loss"] for _, metrics in epochs] == history["loss"].tolist()
    assert end == "success"
    with pytest.raises(KeyError):
        fit(small(), rows(), loggers=[memory], callbacks=[lambda at: at.record["none"]])
    assert memory.told[-1] == "failed"


def test_logger_that_fails_ends_no_training() -> None:
    failing, memory = Memory("no network"), Memory()
    with pytest.warns(
        UserWarning, match=r"Memory failed and is left out from now on.*ConnectionError: no network"
    ) as caught:
        history = fit(small(), rows(), loggers=[failing, memory])
    assert len(caught) == 1
    assert len(history) == 3
    assert memory.told[-1] == "success"


def test_fabric_s_own_csv_logger(tmp_path: Path) -> None:
    history = fit(small(), rows(), loggers=[CSVLogger(tmp_path, "log")])
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["loss"]) for line in lines] == history["loss"].tolist()
    assert [int(line["step"]) for line in lines] == [1, 2, 3]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "one callback": ({"callbacks": print}, r"callbacks = .* has to be a list: callbacks=\[...\]"),
    "no callback": ({"callbacks": [3]}, r"callbacks has 3, which cannot be called"),
    "a class": ({"callbacks": [Memory]}, "cannot be called with one epoch"),
    "one logger": ({"loggers": CSVLogger}, "loggers = .* has to be a list"),
    "no logger": ({"loggers": [3]}, "loggers has 3, which is not a logger of Lightning's"),
    "unknown logger": ({"loggers": ["cvs"]}, "unknown logger 'cvs': did you mean 'csv'"),
    "no folder": ({"loggers": ["csv"]}, "the logger 'csv' writes beside the run: give run="),
    "no monitor": ({"monitor": "csv"}, r"monitor = 'csv' is not a monitor: write monitor=pv.Monitor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_loggers_and_callbacks_are_refused(name: str) -> None:
    words, message = WRONG[name]
    with pytest.raises(pv.InputError, match=message):
        fit(small(), rows(), **words)


FIT = ["fit", "--epochs", "1", "--encoder", "MLP", "--batch_size", "999", "--run", "runs/a", "--progress", "false"]


def test_command_line_logs_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main([*FIT, "--monitor.loggers", "csv"])
    assert list(Path("runs/logs/a").rglob("metrics.csv"))
    assert set(pv.load("runs/a").declaration.event_shape) == {1, 8}


def test_logger_without_its_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in [m for m in sys.modules if m.startswith("lightning") and "logger" in m]:
        monkeypatch.delitem(sys.modules, module)
    for package in ("tensorboard", "tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("lightning_utilities.core.imports.RequirementCache.__bool__", lambda self: False)
    with pytest.raises(SystemExit):
        main([*FIT, "--monitor.loggers", "tensorboard"])
    error = capsys.readouterr().err
    assert "pip install 'pyro-vae[tensorboard]'" in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_tensorboard_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fit(small(), rows(), loggers=["tensorboard"], run=tmp_path / "runs" / "a")
    assert list((tmp_path / "runs" / "logs" / "a").rglob("events.out.tfevents.*"))


def test_profile_is_a_table_and_a_trace_in_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, vae = small(), small()
    fit(plain, rows(), epochs=20)
    fit(vae, rows(), epochs=20, profile=True, run=tmp_path / "run")
    assert equal(plain, vae)
    table = (tmp_path / "run" / "profile.txt").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith("The operations that took most time of 20 steps")
    assert "aten::" in table
    events = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    assert {"ProfilerStep#11", "ProfilerStep#30"} <= {event.get("name") for event in events}
    assert "ProfilerStep#31" not in {event.get("name") for event in events}
    fit(small(), rows(), epochs=1, batch_size=50, profile=True)
    assert "most time of 1 steps" in capsys.readouterr().out


def test_progress_shows_parts_and_time_left_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    fit(small(), rows(), validation=rows(), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for word in ("epoch 1/3", "loss", "log-likelihood", "KL", "validation"):
        assert word in lines[0]
    assert re.search(r"  \d:\d\d:\d\d left$", lines[0])
    assert "left" not in lines[2]
    fit(small(), rows(), validation=rows(), progress=False, stopping=pv.EarlyStopping())
    assert capsys.readouterr() == ("", "")
