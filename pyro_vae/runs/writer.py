"""`RunContents`, and the writing of a run folder: atomic, with a fallback to another folder."""

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from pyro_vae.core import serialization
from pyro_vae.core.files import sync, write_atomically
from pyro_vae.data.datasets import DataOptions
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream
from pyro_vae.model.declaration import Declaration
from pyro_vae.model.programs import Traits, as_module
from pyro_vae.model.vae import VAE
from pyro_vae.registry.migrations import FORMAT
from pyro_vae.training.checkpoints import SPEC
from pyro_vae.training.history import History

CHECKPOINTS = "checkpoints"
"""Name of the folder of checkpoints in a run folder."""

OPTIONAL_FILES = ("profile.txt", "trace.json")
"""Optional files of a run folder."""


@dataclass(frozen=True)
class RunContents:
    """Contents of a run folder.

    Args:
        vae: the model.
        rows: the training data.
        held: the validation data.
        history: the training history.
        settings: the arguments of `fit` that shape it.
        files: texts of the optional files by their names, as in `OPTIONAL_FILES`.
    """

    vae: Any
    rows: Rows | Stream
    held: Rows | Stream | None
    history: History
    settings: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Content of spec.yaml as plain values."""
        record: dict[str, Any] = {
            "format": FORMAT,
            "versions": {name: importlib.metadata.version(name) for name in ("pyro-vae", "pyro-ppl", "torch")},
        }
        if isinstance(self.vae, VAE):
            declared = self.vae.declaration
            record |= {part.name: serialization.to_dict(getattr(declared, part.name)) for part in fields(Declaration)}
            record |= {"programs": self.vae.own_programs} if self.vae.own_programs else {}
        record["data"] = serialization.to_dict(DataOptions.of(self.rows.source))
        record |= {"rows": len(self.rows), "fingerprint": self.rows.fingerprint()}
        record["trained_with"] = list(self.rows.names)
        if names := self.rows.features or Traits.of(self.vae).feature_names:
            record["feature_names"] = list(names)
        record |= {name: serialization.to_dict(value) for name, value in self.settings.items()}
        record |= {name: note for name in ("caveat", "stopped") if (note := getattr(self.history, name))}
        return record

    def identity(self) -> dict[str, Any]:
        """Plain facts by which a checkpoint is known to be of the same training."""
        record = self.record()
        names = [*(part.name for part in fields(Declaration)), "programs", *self.settings]
        facts = {name: record[name] for name in names if name in record and name != "epochs"}
        for split, subject in (("data", self.rows), ("validation data", self.held)):
            tensors = {} if subject is None else {name: subject.fingerprint(name) for name in subject.names}
            facts[f"fingerprint of the {split}"] = tensors
            facts[f"dynamic {split}"] = subject is not None and subject.dynamic
        return facts

    def write(self, folder: Path) -> None:
        """Write everything except the pictures, which are drawn once the run is in place, into a new folder."""
        (folder / "figures").mkdir(parents=True)
        (folder / SPEC).write_text(serialization.dump(self.record()))
        (folder / "history.csv").write_text(self.history.to_csv())
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        if (module := as_module(self.vae)).state_dict():  # parameters in Pyro's store alone are not saved
            safetensors.torch.save_model(module, str(folder / "model.safetensors"))
            # save_model makes it readable by its owner only
            (folder / "model.safetensors").chmod((folder / SPEC).stat().st_mode)


def write_run(contents: RunContents, path: Path, merge: bool = False) -> None:
    """Write a run folder, atomically; with `merge` it keeps its checkpoints, instead of being replaced.

    Raises:
        OSError: there is no room, or no permission; the folder is unchanged.
        SafetensorError: the same, for the weights.
    """
    path = path.expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not merge:
        with write_atomically(path) as fresh:
            contents.write(fresh)
        return
    fresh = path / CHECKPOINTS / f".run.writing-{os.getpid()}"  # whoever resumes a killed training removes it
    try:
        contents.write(fresh)
        _merge(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _merge(fresh: Path, path: Path) -> None:
    """Move the files into the folder, spec.yaml last: until then the run is an unfinished one."""
    for file in fresh.rglob("*"):
        sync(file)
    (path / SPEC).unlink(missing_ok=True)
    for name in ("model.safetensors", "history.csv", "figures", *OPTIONAL_FILES, SPEC):
        mine, new = path / name, fresh / name
        if mine.is_dir() and not mine.is_symlink():
            shutil.rmtree(mine)
        if new.exists():
            new.rename(mine)
        elif not mine.is_dir():
            mine.unlink(missing_ok=True)
    sync(path)


def write_fallback(contents: RunContents, path: Path) -> str:
    """End of a message that says in which temporary folder the run is, which is written."""
    ahead = ""
    if any((path / CHECKPOINTS).glob("step-*.safetensors")):
        ahead = " Or make room there and fit again with resume=True (--resume), which goes on from its checkpoint."
    try:
        folder = Path(tempfile.mkdtemp(prefix="pyro-vae-")) / path.name
        write_run(contents, folder)
    except (OSError, SafetensorError):
        return f"The model in memory is trained: make room, and write it by `error.write('FOLDER')`.{ahead}"
    return f"All of it is in {folder}: move it from there, before it is cleaned up.{ahead}"
