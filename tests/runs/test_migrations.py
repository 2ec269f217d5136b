"""Run folders of older formats: they load with the same numbers, and can be fitted again."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.model.vae import VAE
from pyro_vae.registry import tables
from pyro_vae.registry.migrations import FORMAT, MIGRATIONS, migrate_spec, migrate_weights
from pyro_vae.runs.folder import RunFolder
from pyro_vae.workflow.comparison import Runs

STORED = Path(__file__).parent / "format_1"
EXPECTED: dict[str, Any] = json.loads((STORED / "expected.json").read_text())
MODELS = [(run, which) for run, expected in EXPECTED.items() for which in expected["models"]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stored runs, where their data have the path that they record."""
    copied = tmp_path / "format_1"
    shutil.copytree(STORED, copied)
    monkeypatch.chdir(copied)
    return copied


@pytest.mark.parametrize(("run", "which"), MODELS)
def test_stored_model_has_the_same_densities(run: str, which: str, folder: Path) -> None:
    vae = pv.load(folder / run, checkpoint=None if which == "None" else which)  # type: ignore[arg-type]
    x, z = torch.linspace(-1, 1, 12).reshape(4, 3), torch.linspace(-0.5, 0.5, 8).reshape(4, 2)
    with torch.no_grad():
        found = {
            "likelihood": vae.decode(z).log_prob(x).reshape(4, -1).sum(-1),
            "posterior": vae.encode(x).log_prob(z).reshape(4, -1).sum(-1),
        }
    for name, expected in EXPECTED[run]["models"][which].items():
        torch.testing.assert_close(found[name], torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("run", EXPECTED)
def test_stored_history_is_read(run: str, folder: Path) -> None:
    assert RunFolder(folder / run).history().last["loss"] == EXPECTED[run]["loss"]


@pytest.mark.parametrize("run", EXPECTED)
def test_stored_run_is_fitted_again_by_its_spec(run: str, folder: Path) -> None:
    main(["fit", "--config", str(folder / run), "--run", str(folder / "again"), "--progress", "false"])
    before, after = RunFolder(folder / run).spec(), RunFolder(folder / "again").spec()
    del before["versions"], after["versions"]
    assert after.pop("trained_with")[0] == "x"  # which old runs do not record
    after.pop("feature_names", None)
    assert before == after
    # Not the same weights: since format 2 training moves in the unit of the data.
    assert RunFolder(folder / "again").history().last["loss"] == pytest.approx(EXPECTED[run]["loss"], rel=0.02)


def test_stored_runs_are_compared(folder: Path) -> None:
    runs = Runs.of([str(folder / run) for run in EXPECTED], None, "validation")
    assert {path.name for path in runs.models} == set(EXPECTED)


def test_stored_training_is_not_resumed(folder: Path) -> None:
    run = folder / "checkpoints"
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(run), "--run", str(run), "--resume", "--epochs", "5", "--progress", "false"])
    with pytest.raises(pv.InputError, match=r"written by an older pyro_vae.*checkpoint='last'"):
        pv.fit(
            pv.load(run), pv.data.load("rows.csv", test=0).train, run=pv.RunOptions(run, resume=True), progress=False
        )


def test_migrations_name_existing_objects() -> None:
    assert sorted(MIGRATIONS) == list(range(1, FORMAT))
    classes = {name: one for table in tables.TABLES.values() for name, one in table.items()}
    newest = MIGRATIONS[FORMAT - 1]
    for old, new in newest.classes.items():
        assert new in classes
        assert old not in classes
    for owner, renamed in newest.fields.items():
        fields = {field.name for field in dataclasses.fields(classes[newest.classes.get(owner, owner)])}
        assert set(renamed.values()) <= fields
        assert not set(renamed) & fields
    parts = {name for name, _ in VAE((2,), 1).named_children()}
    assert set(newest.parts.values()) <= parts
    assert not set(newest.parts) & parts


def test_migration_leaves_the_rest_alone() -> None:
    plain = {"format": 1, "data": "Steps", "encoder": {"MLP": {"hidden": [5]}}, "root": None, "seed": 3}
    assert migrate_spec(plain) == {name: value for name, value in plain.items() if name != "root"} | {"format": FORMAT}


def test_flat_settings_of_format_1_are_in_their_records() -> None:
    data = {"data": "x.npy", "root": None, "binarize": "static", "levels": None, "validation": 0.1, "test": 0.0}
    stopping = {"EarlyStopping": {"patience": 3}}
    migrated = migrate_spec({"format": 1, **data, "data_seed": 2, "epochs": 3, "stopping": stopping})
    assert migrated == {
        "format": FORMAT,
        "epochs": 3,
        "data": {"name": "x.npy", "binarize": "static", "test": 0.0, "seed": 2},
        "monitor": {"stopping": stopping},
    }
    assert migrate_spec({"format": 1, "data": None}) == {"format": FORMAT, "data": None}
    assert migrate_spec({"optimizer": {"Adam": {"parts": {}}}}) == {"optimizer": {"Adam": {"parts": {}}}}
    own, unit = {"encoder.weight": torch.ones(2)}, torch.ones(3)
    assert migrate_weights(own, {"format": 1}, {"likelihood.unit": unit}) == own
    migrated = migrate_weights(own, {"format": 1, "likelihood": "Normal"}, {"likelihood.unit": unit, "other": unit})
    assert migrated == {"likelihood.unit": unit, "posterior.weight": own["encoder.weight"]}
