"""TensorBoard's logger: what is read back from its files is what the training was.

TensorBoard is an extra: where it is missing, these tests are skipped.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fitting import fit, rows, small
from lightning.fabric.loggers import TensorBoardLogger

import pyro_vae as pv
from pyro_vae.cli import main

pytest.importorskip("tensorboard", reason="tensorboard is missing: pip install 'pyro-vae[tensorboard]'")


@dataclass
class Logged:
    """What a package's own reader says of one training.

    Args:
        title: what it is called.
        declared: hyperparameters as text.
        records: of each epoch.
    """

    title: str
    declared: dict[str, str] = field(default_factory=dict)
    records: dict[int, dict[str, float]] = field(default_factory=dict)


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


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def same_as(logged: Logged, history: pv.History) -> bool:
    """Whether it holds every finite number of the history, of each epoch, and no other."""
    expected = {
        int(record["epoch"]): {k: v for k, v in record.items() if k != "epoch" and np.isfinite(v)}
        for record in history.records
    }
    assert logged.records.keys() == expected.keys()
    for epoch, record in expected.items():
        assert logged.records[epoch] == {k: float(np.float32(v)) for k, v in record.items()}
    return True


DECLARED = {
    "latent_dim": "2",
    "prior": "Laplace(loc=0.0, scale=1.0)",
    "likelihood": "Normal(loc=None, scale='learned')",
    "guide": "Normal(loc=None, scale=None)",
    "epochs": "2",
    "batch_size": "20",
    "seed": "5",
}


def test_logger_of_lightning_records_everything(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path / "logs", "mine")
    words = {"validation": rows(), "epochs": 2, "seed": 5, "optimizer": pv.Adam(3e-3)}
    plain = fit(small(prior=pv.Laplace(0, 1)), rows(), **words)
    environment = dict(os.environ)
    history = fit(small(prior=pv.Laplace(0, 1)), rows(), **words, loggers=[logger])
    assert history["loss"].tolist() == plain["loss"].tolist()
    assert dict(os.environ) == environment  # the next logger would take it for a wish of the user's
    (logged,) = tensorboard(tmp_path / "logs")
    assert logged.title == "mine"
    assert {key: logged.declared[key] for key in DECLARED} == DECLARED
    assert logged.declared["optimizer"].startswith("Adam(lr=0.003")
    assert logged.declared["objective"].startswith("ELBO(")
    assert same_as(logged, history)


def test_logger_of_a_diverged_training_has_no_epochs(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path / "logs", "mine")
    with pytest.raises(FloatingPointError, match="in epoch 1"):
        fit(small(), rows(), optimizer=pv.SGD(1e12), loggers=[logger])
    (logged,) = tensorboard(tmp_path / "logs")
    assert logged.declared["optimizer"].startswith("SGD(lr=1000000000000")
    assert logged.records == {}


@pytest.fixture
def words() -> list[str]:
    """Options of a small fit, to rows in a file."""
    np.save("x.npy", torch.randn(60, 3, generator=torch.Generator().manual_seed(3)).numpy())
    return ["--data", "x.npy", "--encoder", "MLP", "--epochs", "2", "--batch_size", "30", "--progress", "false"]


def test_logger_of_the_command_line_records_everything(words: list[str]) -> None:
    main(["fit", *words, "--run", "runs/a b", "--prior", "Laplace", "--seed", "5", "--monitor.loggers", "tensorboard"])
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                *words,
                "--run",
                "runs/bad",
                "--optimizer",
                "SGD",
                "--optimizer.lr",
                "1e30",
                "--monitor.loggers",
                "tensorboard",
            ]
        )
    good, bad = tensorboard(Path("runs/logs"))
    assert (good.title, bad.title) == ("a b", "bad")
    assert (good.declared["epochs"], good.declared["seed"]) == ("2", "5")
    declared = pv.load("runs/a b").declaration
    for part in ("prior", "likelihood", "guide", "encoder"):
        assert good.declared[part] == str(getattr(declared, part))
    assert same_as(good, pv.History.from_csv(Path("runs/a b/history.csv")))
    assert bad.records == {}
    assert {path.name for path in Path().iterdir()} == {"x.npy", "runs"}
    assert {path.name for path in Path("runs").iterdir()} == {"a b", "logs"}


def test_logger_of_a_sweep_has_one_record_per_trial(words: list[str]) -> None:
    over = "{optimizer: [{SGD: {lr: 1e30}}, Adam], seed: [0, 1]}"
    main(["sweep", "--over", over, *words, "--to", "sweep", "--monitor.loggers", "tensorboard"])
    logged = tensorboard(Path("sweep/logs"))
    assert len({one.title for one in logged}) == len(logged) == 4
    for one in logged:
        adam = one.declared["optimizer"].startswith("Adam")
        if adam:
            assert same_as(one, pv.History.from_csv(Path("sweep") / one.title / "history.csv"))
