"""The loggers as their packages have them: what is read back from their files is what the training was.

TensorBoard, MLflow and Weights & Biases are extras: where one is missing, its tests are skipped.
"""

import contextlib
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fitting import fit, rows, small

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.training.callbacks import EXTRAS, PROJECT, logger_named

pytestmark = [
    pytest.mark.usefixtures("no_pictures"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow's use of SQLAlchemy
]

NAMES = [name for name in EXTRAS if name != "csv"]


@dataclass
class Logged:
    """What a package's own reader says of one training.

    Args:
        title: what it is called.
        declared: hyperparameters as text.
        records: of each epoch.
        ended: "finished" or "failed"; None where a package has no word for that.
    """

    title: str
    declared: dict[str, str] = field(default_factory=dict)
    records: dict[int, dict[str, float]] = field(default_factory=dict)
    ended: str | None = None


def tensorboard(folder: Path) -> list[Logged]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = []
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(file)).Reload()
        logged = Logged(file.parent.parent.name)
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        for name, value in HParamsPluginData.FromString(content).session_start_info.hparams.items():
            kind = value.WhichOneof("kind")
            logged.declared[name] = f"{value.number_value:g}" if kind == "number_value" else value.string_value
        for name in set(events.Tags()["scalars"]) - {"hp_metric"}:
            for event in events.Scalars(name):
                logged.records.setdefault(event.step, {})[name] = event.value
        found.append(logged)
    return found


def mlflow(folder: Path) -> list[Logged]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{next(folder.rglob('mlflow.db'))}")
    (experiment,) = [one for one in client.search_experiments() if one.name == PROJECT]
    found = []
    for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]):
        logged = Logged(run.info.run_name, dict(run.data.params), ended=run.info.status.lower())
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                logged.records.setdefault(metric.step, {})[name] = metric.value
        found.append(logged)
    return found


def wandb(folder: Path) -> list[Logged]:
    import json

    from wandb.proto.wandb_internal_pb2 import Record

    def parsed(items: Any) -> dict[str, Any]:
        return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}

    found = []
    for file in sorted(folder.rglob("*.wandb"), key=lambda file: file.stat().st_mtime):
        logged = Logged("", ended="running")
        for part in parts_of(file.read_bytes()):
            record = Record.FromString(part)
            if record.HasField("run"):
                assert record.run.project == PROJECT
                logged.title = record.run.display_name
            elif record.HasField("config"):
                logged.declared |= {name: str(value) for name, value in parsed(record.config.update).items()}
            elif record.HasField("history"):
                values = parsed(record.history.item)
                step = values["trainer/global_step"]
                logged.records[step] = {k: v for k, v in values.items() if k[0] != "_" and k != "trainer/global_step"}
            elif record.HasField("exit"):
                logged.ended = "failed" if record.exit.exit_code else "finished"
        found.append(logged)
    return found


def parts_of(data: bytes) -> Iterator[bytes]:
    """The records of a log of LevelDB's format, which has a part of a record, or all of it, in each block of 32 KiB."""
    at, record = 7, b""
    while len(data) - at >= 7:
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole one, or the last part
            yield record
            record = b""


READ = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A logger whose package is there, without a network."""
    for package in {"mlflow": ["mlflow", "sqlalchemy", "alembic"]}.get(request.param, [request.param]):
        reason = f"{package} is missing: pip install 'pyro-vae[{EXTRAS[request.param]}]'"
        pytest.importorskip(package, reason=reason, exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for variable, value in {"MODE": "offline", "SILENT": "true", "CONSOLE": "off"}.items():
        monkeypatch.setenv(f"WANDB_{variable}", value)
    return request.param


def lightnings(name: str, folder: Path) -> Any:
    """A logger as a user of Lightning makes it."""
    from lightning.fabric.loggers import TensorBoardLogger
    from lightning.pytorch import loggers

    folder.mkdir()
    if name == "tensorboard":
        return TensorBoardLogger(folder, "mine")
    if name == "mlflow":
        return loggers.MLFlowLogger(PROJECT, "mine", tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    return loggers.WandbLogger("mine", folder, offline=True, project=PROJECT)


def same_as(logged: Logged, history: pv.History, precision: type = float) -> bool:
    """Whether it holds every finite number of the history, of each epoch, and no other."""
    expected = {
        int(record["epoch"]): {k: v for k, v in record.items() if k != "epoch" and np.isfinite(v)}
        for record in history.records
    }
    assert logged.records.keys() == expected.keys()
    for epoch, record in expected.items():
        assert logged.records[epoch] == {k: float(precision(v)) for k, v in record.items()}
    return True


def precision(name: str) -> type:
    """What a package keeps of a number."""
    return np.float32 if name == "tensorboard" else float


DECLARED = {
    "latent_dim": "2",
    "prior": "Laplace(loc=0.0, scale=1.0)",
    "likelihood": "Normal(loc=None, scale='learned')",
    "guide": "Normal(loc=None, scale=None)",
    "epochs": "2",
    "batch_size": "20",
    "seed": "5",
}


def test_a_logger_of_lightning_s_is_told_of_everything(name: str, tmp_path: Path) -> None:
    logger = lightnings(name, tmp_path / "logs")
    words = {"validation": rows(), "epochs": 2, "seed": 5, "optimizer": pv.Adam(3e-3)}
    plain = fit(small(prior=pv.Laplace(0, 1)), rows(), **words)
    environment = dict(os.environ)
    history = fit(small(prior=pv.Laplace(0, 1)), rows(), **words, loggers=[logger])
    assert history["loss"].tolist() == plain["loss"].tolist()
    assert dict(os.environ) == environment  # the next logger would take it for a wish of the user's
    if name == "wandb":
        logger.experiment.finish()  # a run of the user's, who may have more to log, as ever with Lightning
    (logged,) = READ[name](tmp_path / "logs")
    assert logged.title == "mine"
    assert {key: logged.declared[key] for key in DECLARED} == DECLARED
    assert logged.declared["optimizer"].startswith("Adam(lr=0.003")
    assert logged.declared["objective"].startswith("ELBO(")
    assert same_as(logged, history, precision(name))
    assert logged.ended in ("finished", None)


def test_a_training_that_diverges_has_failed(name: str, tmp_path: Path) -> None:
    logger = lightnings(name, tmp_path / "logs")
    run = logger.experiment if name == "wandb" else contextlib.nullcontext()  # as wandb wants it, outside of scripts
    with pytest.raises(FloatingPointError, match="in epoch 1"), run:
        fit(small(), rows(), optimizer=pv.SGD(1e12), loggers=[logger])
    (logged,) = READ[name](tmp_path / "logs")
    assert logged.declared["optimizer"].startswith("SGD(lr=1000000000000")
    assert logged.records == {}
    assert logged.ended in ("failed", None)


@pytest.fixture
def words() -> list[str]:
    """Options of a small fit, to rows in a file."""
    np.save("x.npy", torch.randn(60, 3, generator=torch.Generator().manual_seed(3)).numpy())
    return ["--data", "x.npy", "--encoder", "MLP", "--epochs", "2", "--batch_size", "30", "--progress", "false"]


def test_the_command_line_s_logger_is_told_of_everything(name: str, words: list[str]) -> None:
    main(["fit", *words, "--run", "runs/a b", "--prior", "Laplace", "--seed", "5", "--logger", name])
    with pytest.raises(SystemExit):
        main(["fit", *words, "--run", "runs/bad", "--optimizer", "SGD", "--optimizer.lr", "1e30", "--logger", name])
    good, bad = READ[name](Path("runs/logs"))
    assert (good.title, bad.title) == ("a b", "bad")
    assert (good.declared["epochs"], good.declared["seed"]) == ("2", "5")
    declared = pv.load("runs/a b").declaration
    for part in ("prior", "likelihood", "guide", "encoder"):
        assert good.declared[part] == str(getattr(declared, part))
    assert same_as(good, pv.History.from_csv(Path("runs/a b/history.csv")), precision(name))
    assert bad.records == {}
    assert (good.ended, bad.ended) in (("finished", "failed"), (None, None))
    assert {path.name for path in Path().iterdir()} == {"x.npy", "runs"}
    assert {path.name for path in Path("runs").iterdir()} == {"a b", "logs"}


def test_each_point_of_a_sweep_is_a_training_of_its_own(name: str, words: list[str]) -> None:
    over = "{optimizer: [{SGD: {lr: 1e30}}, Adam], seed: [0, 1]}"
    main(["sweep", "--over", over, *words, "--to", "sweep", "--logger", name])
    logged = READ[name](Path("sweep/logs"))
    assert len({one.title for one in logged}) == len(logged) == 4
    for one in logged:
        adam = one.declared["optimizer"].startswith("Adam")
        assert one.ended in ("finished" if adam else "failed", None)
        if adam:
            assert same_as(one, pv.History.from_csv(Path("sweep") / one.title / "history.csv"), precision(name))


@pytest.mark.parametrize("name", ["mlflow"], indirect=True)
class TestMLflow:
    """Where MLflow writes."""

    def test_a_server_that_the_user_names_is_the_one(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("elsewhere").mkdir()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/mlflow.db")
        history = fit(small(), rows(), loggers=[logger_named(name, "runs/a")])
        assert same_as(mlflow(Path("elsewhere"))[0], history)
        assert not Path("runs").exists()

    def test_one_that_is_none_is_refused_in_one_sentence(
        self, name: str, monkeypatch: pytest.MonkeyPatch, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
        with pytest.raises(SystemExit):
            main(["fit", *words, "--logger", name])
        assert "pyro-vae: the logger mlflow does not start, " in capsys.readouterr().err
        assert not Path("runs").exists()

    def test_without_a_database_it_says_how_to_get_one(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "alembic", None)
        with pytest.raises(pv.InputError, match=r"pip install 'pyro-vae\[mlflow\]'"):
            logger_named(name, "runs/a")
        assert not Path("runs").exists()
