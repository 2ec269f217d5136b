"""`RunFolder`: the folder a fit writes, of files that need no code to be read and run none.

    RUN/
      spec.yaml            the declaration of the model, the data, the settings and the versions
      model.safetensors    the weights
      history.csv          the loss and its terms by epoch
      figures/             pictures
      checkpoints/         the state of the training, if checkpoints= was given; with a spec.yaml of its own

A run is written atomically: beside its place, then moved there, `spec.yaml` last. A folder with `checkpoints/` and
without `spec.yaml` is an unfinished run.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pyro_vae.core import serialization
from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, RunNotWrittenError, unknown_name_error
from pyro_vae.core.files import LOCK, lock_folder, naming_unwritable
from pyro_vae.model.declaration import Declaration
from pyro_vae.model.programs import Programs, as_module, named_tensors, remember_data
from pyro_vae.model.vae import VAE
from pyro_vae.networks.base import OfRows
from pyro_vae.registry import tables
from pyro_vae.registry.migrations import FORMAT, MIGRATIONS, migrate_spec, migrate_weights
from pyro_vae.runs import writer
from pyro_vae.runs.writer import CHECKPOINTS, RunContents
from pyro_vae.training import snapshot
from pyro_vae.training.checkpoints import BEST, SPEC, CheckpointManager, Checkpoints
from pyro_vae.training.history import History


@dataclass(frozen=True)
class RunFolder:
    """A run folder, which exists or will be written."""

    path: Path

    @classmethod
    def reserve(cls, path: str | Path, overwrite: bool, resume: bool = False) -> "RunFolder":
        """Run folder that can be written, to replace or resume an existing run if so; nothing is created yet.

        Raises:
            InputError: the folder exists and may not be replaced, or cannot be written.
        """
        path = Path(path).expanduser()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            cls(path)._require_free(overwrite, resume)
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise InputError(f"{path} cannot be written: {parent} is not a folder that you may write to.")
        return cls(path)

    def _require_free(self, overwrite: bool, resume: bool) -> None:
        """Raise an error unless the folder holds a run that may be replaced or resumed."""
        path = self.path
        if not (self.finished or self.unfinished):
            raise InputError(f"{path} exists and is not a run folder, so it is left alone: choose another run folder.")
        if overwrite and self.unfinished:
            with naming_unwritable(path):
                lock_folder(path / CHECKPOINTS, path).release()  # raises an error if another process trains there
        if overwrite or (resume and self.unfinished):
            return
        if resume:
            state = "a run without checkpoints, so there is nothing to resume: choose another folder"
        elif self.finished:
            state = "a run already: choose another folder"
        else:
            state = "an unfinished run: resume it by resume=True (on the command line --resume)"
        raise InputError(f"{path} holds {state}, or replace it with overwrite=True (on the command line --overwrite).")

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return (self.path / SPEC).exists()

    @property
    def unfinished(self) -> bool:
        """Whether there are checkpoints, of an unfinished run or beside a complete one."""
        folder = self.path / CHECKPOINTS
        if (folder / SPEC).exists() or not folder.is_dir():
            return (folder / SPEC).exists()
        names = [file.name for file in folder.iterdir()]
        killed_early = all(name.startswith((LOCK, f".{SPEC}.")) for name in names)  # before the first checkpoint
        return killed_early and [file.name for file in self.path.iterdir()] == [CHECKPOINTS]

    def checkpoints(self, plan: Checkpoints) -> CheckpointManager:
        """Manager of the checkpoints of this run."""
        return CheckpointManager(self.path.absolute() / CHECKPOINTS, plan)

    def prepare_resume(
        self, manager: CheckpointManager, contents: RunContents, resume: bool, check: Callable[[Any, str], None]
    ) -> tuple[dict[str, Any], str] | None:
        """The checkpoint tree to resume from and its name, or None; the folder then declares the training.

        `check` raises an error if a tree of that name is of another training.

        Raises:
            InputError: the folder cannot be written, or holds checkpoints of another training.
        """
        newest = manager.newest() if resume else None
        if newest is not None:
            if self._stored_spec(checkpoint=True)["format"] < FORMAT:  # whose training state has other names
                raise InputError(
                    f"{self.path / CHECKPOINTS} was written by an older pyro_vae, and this one cannot resume it: fit "
                    f"the model of pv.load({str(self.path)!r}, checkpoint='last') again, into another run folder."
                )
            check(*newest)
        manager.declare(serialization.dump(contents.record()), restart=newest is None)
        return newest

    def write(self, contents: RunContents, merge: bool = False) -> None:
        """Write the run, atomically; with `merge` the folder keeps its checkpoints, instead of being replaced.

        Raises:
            RunNotWrittenError: there is no room, or no permission; the folder is unchanged, and the message says where
                the run is.
        """
        try:
            writer.write_run(contents, self.path, merge)
        except (OSError, SafetensorError) as error:

            def again(folder: str | Path) -> None:
                writer.write_run(contents, RunFolder.reserve(folder, overwrite=False).path)

            where = writer.write_fallback(contents, self.path)
            raise RunNotWrittenError(f"{self.path} could not be written ({error}). {where}", again) from error

    def spec(self) -> dict[str, Any]:
        """Content of spec.yaml as plain values, in the present format.

        Raises:
            InputError: the folder is not a run folder, or was written by a newer version.
        """
        return migrate_spec(self._stored_spec())

    def _stored_spec(self, checkpoint: bool = False) -> dict[str, Any]:
        """Content of spec.yaml in the format that it was written in; of the unfinished training with `checkpoint`."""
        file = self.path / CHECKPOINTS / SPEC if checkpoint else self.path / SPEC
        if not file.is_file() and self.unfinished:
            raise InputError(
                f"{self.path} is an unfinished run: continue it by "
                f"fit(..., run=pv.RunOptions({str(self.path)!r}, resume=True)), on the command line by "
                f"pyro-vae fit --config {self.path / CHECKPOINTS / SPEC} --run {self.path} --resume. "
                f"What it has learned so far: pv.load({str(self.path)!r}, checkpoint='last')."
            )
        if not file.is_file():
            found = sorted(file.parent.name for file in self.path.parent.glob("*/spec.yaml"))
            hint = f" Runs in {self.path.parent}: {', '.join(found)}." if found else ""
            raise InputError(f"{self.path} is not a run folder: it has no spec.yaml.{hint}")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
        plain = serialization.parse(text, str(file))
        found_format = plain.get("format")
        if not (isinstance(found_format, int) and found_format >= min(MIGRATIONS)):
            raise InputError(f"{file} has no integer 'format', so it was not written by this package.")
        if found_format > FORMAT:
            raise InputError(
                f"{self.path} was written by a newer pyro_vae (format {found_format}; this one reads up to {FORMAT}): "
                "upgrade with pip install --upgrade pyro-vae."
            )
        return plain

    def history(self) -> History:
        """Training history."""
        plain = self.spec()
        return History.from_csv(self.path / "history.csv", plain.get("caveat", ""), plain.get("stopped", ""))

    def build_model(self, checkpoint: bool = False) -> VAE:
        """Model as declared, without its weights; with `checkpoint`, that of the unfinished training."""
        plain = migrate_spec(self._stored_spec(checkpoint))
        self._check_programs(plain, None)
        names = [field.name for field in fields(Declaration)]
        if missing := [name for name in names if name not in plain]:
            raise InputError(
                f"{self.path}/spec.yaml declares no VAE (it has no {missing[0]}): it was fitted to programs of your "
                "own; load its weights with pv.load(run, vae=programs)."
            )
        try:
            parts = {
                name: tables.from_dict(name, plain[name]) if name in tables.ROLES else plain[name] for name in names
            }
            return VAE(**parts)
        except InputError as error:
            raise InputError(f"{self.path}/spec.yaml: {error}") from error

    def _check_programs(self, plain: dict[str, Any], vae: Programs | None) -> None:
        """Refuse another class than the subclass of VAE, with programs of its own, that a run was fitted to."""
        name = plain.get("programs")
        if name and type(vae).__name__ != name:
            raise InputError(
                f"{self.path} was fitted to {name}, a subclass of VAE with programs of its own, which a folder does "
                f"not hold: build it as it was, and load its weights by pv.load({str(self.path)!r}, vae={name}(...))."
            )

    def load_checkpoint(self, which: str, vae: Programs | None = None) -> Any:
        """Model of a checkpoint; see `load`."""
        if which not in ("last", "best"):
            raise unknown_name_error("checkpoint", which, ("last", "best"))
        folder = self.path / CHECKPOINTS
        files = sorted(folder.glob("step-*.safetensors"), reverse=True) if which == "last" else [folder / BEST]
        if not files or not files[0].exists():
            raise InputError(
                f"{self.path} has no {which} checkpoint: fit with run=pv.RunOptions({str(self.path)!r}, "
                "checkpoints=pv.Checkpoints())."
            )
        self._check_programs(self._stored_spec(checkpoint=True), vae)
        loaded: Any = self.build_model(checkpoint=True) if vae is None else vae
        module = as_module(loaded)
        try:
            tree = snapshot.read(files[0])
            mine = named_tensors(module)
            stored = tree["weights"] | tree["average"].get("means", {})
            saved = migrate_weights(stored, self._stored_spec(checkpoint=True), mine)
            _take_types(module, saved)
            mine = named_tensors(module)
            if wrong := [name for name, tensor in mine.items() if saved[name].shape != tensor.shape]:
                raise ValueError(f"{wrong[0]} has another shape in it")
            with torch.no_grad():
                for name, tensor in mine.items():
                    tensor.copy_(saved[name])
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise InputError(f"{files[0]} does not hold the weights of this model: {error}") from error
        self._remember_data(loaded, self._stored_spec(checkpoint=True))
        module.eval()
        return loaded

    @staticmethod
    def _remember_data(loaded: Any, plain: dict[str, Any]) -> None:
        names = [plain.get(name) or () for name in ("feature_names", "trained_with")]
        remember_data(loaded, *([str(name) for name in each] for each in names))

    def load(self, vae: Programs | None = None) -> Any:
        """Trained model; see `load`."""
        file = self.path / "model.safetensors"
        self._check_programs(self.spec(), vae)
        loaded: Any = self.build_model() if vae is None else vae
        module = as_module(loaded)
        if not file.is_file():
            raise InputError(f"{self.path} has no weights: model.safetensors is missing.")
        try:
            saved = migrate_weights(safetensors.torch.load_file(file), self._stored_spec(), module.state_dict())
            _take_types(module, saved)
            mine = module.state_dict()
            stored = {tensor.data_ptr() for name, tensor in mine.items() if name in saved}  # shared ones once
            missing = [name for name, tensor in mine.items() if tensor.data_ptr() not in stored]
            if wrong := missing + sorted(saved.keys() - mine.keys()):
                raise RuntimeError(f"{wrong[0]} is {'missing in it' if missing else 'not a weight of the model'}")
            module.load_state_dict(saved, strict=False)
        except (SafetensorError, RuntimeError, OSError) as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise InputError(f"{file} does not hold the weights of this model: {first}") from error
        if isinstance(loaded, VAE):
            loaded.trained_on = self.spec().get("fingerprint")
        self._remember_data(loaded, self.spec())
        module.eval()
        return loaded


def _take_types(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Give a module the floating types of stored tensors: of its weights, and of what is in the type of rows of data.

    Args:
        module: the module.
        saved: the tensors by their names in it.
    """
    if any(saved[name].dtype == torch.float64 for name, _ in module.named_parameters() if name in saved):
        module.double()
    for name, part in module.named_modules():
        if isinstance(part, OfRows):
            part.take_row_type(saved, f"{name}.")


Pair = TypeVar("Pair", bound=Programs)


@overload
def load(run: str | Path, vae: None = None, *, checkpoint: Literal["last", "best"] | None = None) -> VAE: ...


@overload
def load(run: str | Path, vae: Pair, *, checkpoint: Literal["last", "best"] | None = None) -> Pair: ...


@explained
def load(
    run: str | Path, vae: Programs | None = None, *, checkpoint: Literal["last", "best"] | None = None
) -> Programs:
    """Fitted VAE of a run folder; no code that the folder names is imported or run.

    Args:
        run: the folder.
        vae: for programs or parts of your own: the object that was fitted, as you built it; its weights are replaced.
        checkpoint: the model of a checkpoint in place of the finished one, also of an unfinished run: "last" or "best".

    Returns:
        The VAE, or that object, in evaluation mode on the CPU.

    Raises:
        InputError: the folder is not a run folder, is damaged, was written by a newer version, or holds the weights of
            another model.
    """
    if not isinstance(run, str | Path):
        raise InputError(f"load takes a run folder, not a {type(run).__name__}: write pv.load('run').")
    place = RunFolder(Path(run).expanduser())
    loaded: Programs = place.load(vae) if checkpoint is None else place.load_checkpoint(checkpoint, vae)
    return loaded
