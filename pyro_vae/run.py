"""The run folder: what a fit leaves behind, in files that anyone can read and that cannot run code.

    RUN/
      spec.yaml            what was declared, on which data, with which settings and versions
      model.safetensors    the weights
      history.csv          training, epoch by epoch
      figures/             pictures

A run appears whole or not at all: it is written beside its place and moved there when it is complete.
"""

import importlib.metadata
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, overload

import safetensors.torch
from safetensors import SafetensorError

from pyro_vae import spec
from pyro_vae.data.fingerprint import fingerprint
from pyro_vae.data.rows import Rows
from pyro_vae.errors import InputError
from pyro_vae.plots import figures
from pyro_vae.training.history import History
from pyro_vae.training.programs import Programs, as_module
from pyro_vae.vae import VAE, Declaration

FORMAT = 1
"""The version of the folder's layout; a higher one is refused."""

RECORDED = ("format", "versions", "event_shape", "rows", "fingerprint", "caveat", "stopped")
"""Keys of spec.yaml that record facts; all others are options of `pyro-vae fit`."""


@dataclass(frozen=True)
class Run:
    """A run folder.

    Args:
        path: where it is, or will be.
    """

    path: Path

    @classmethod
    def reserve(cls, path: str | Path, overwrite: bool) -> "Run":
        """Make sure, before any work, that a run can be written there; nothing is created yet.

        Raises:
            InputError: something is there that may not be replaced, or the place cannot be written.
        """
        path = Path(path)
        if path.exists():
            if not path.is_dir() or (any(path.iterdir()) and not (path / "spec.yaml").exists()):
                raise InputError(f"{path} exists and is no run, so it is left alone: choose another run folder.")
            if any(path.iterdir()) and not overwrite:
                raise InputError(
                    f"{path} holds a run already: choose another folder, or replace it with overwrite=True (on the "
                    "command line --overwrite)."
                )
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise InputError(f"{path} cannot be written: {parent} is no folder that you may write to.")
        return cls(path)

    def write(self, vae: Any, rows: Rows, held: Rows | None, history: History, settings: Mapping[str, Any]) -> None:
        """Write the whole run, then put it in place.

        Args:
            vae: the trained model.
            rows: the training data.
            held: the validation data.
            history: the training history.
            settings: the arguments of `fit` that shaped it.
        """
        path = self.path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh, old = (path.with_name(f".{path.name}.{word}-{os.getpid()}") for word in ("writing", "replaced"))
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            (fresh / "figures").mkdir(parents=True)
            (fresh / "spec.yaml").write_text(spec.dump(_record(vae, rows, history, settings)))
            (fresh / "history.csv").write_text(history.to_csv())
            if (module := as_module(vae)).state_dict():  # what lies in Pyro's store only is left there
                safetensors.torch.save_model(module, str(fresh / "model.safetensors"))
            if isinstance(vae, VAE) and len(history):
                figures.write(fresh / "figures", vae, held or rows, history)
            if path.exists():
                path.rename(old)
            fresh.rename(path)
        finally:
            if old.exists() and not path.exists():  # the move failed: the run that was there stays
                old.rename(path)
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)

    def spec(self) -> dict[str, Any]:
        """Read spec.yaml as plain values.

        Raises:
            InputError: this is no run, or one of a newer version.
        """
        file = self.path / "spec.yaml"
        if not file.is_file():
            near = [p.name for p in self.path.parent.glob("*/spec.yaml")] if self.path.parent.is_dir() else []
            found = sorted(p.parent.name for p in self.path.parent.glob("*/spec.yaml")) if near else []
            hint = f" Runs in {self.path.parent}: {', '.join(found)}." if found else ""
            raise InputError(f"{self.path} is no run: it has no spec.yaml.{hint}")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
        plain = spec.parse(text, str(file))
        found_format = plain.get("format")
        if not isinstance(found_format, int):
            raise InputError(f"{file} has no whole number 'format', so it was not written by this package.")
        if found_format > FORMAT:
            raise InputError(
                f"{self.path} was written by a newer pyro_vae (format {found_format}; this one reads up to {FORMAT}): "
                "upgrade with pip install --upgrade pyro-vae."
            )
        return plain

    def history(self) -> History:
        """Read the training history."""
        plain = self.spec()
        return History.from_csv(self.path / "history.csv", plain.get("caveat", ""), plain.get("stopped", ""))

    def declared(self) -> VAE:
        """Build the model as declared, without its weights."""
        plain = self.spec()
        names = [field.name for field in fields(Declaration)]
        if missing := [name for name in names if name not in plain]:
            raise InputError(
                f"{self.path}/spec.yaml declares no VAE (it has no {missing[0]}): it was fitted to programs of your "
                "own; load its weights with pv.load(run, vae=programs)."
            )
        try:
            parts = {name: spec.from_plain(name, plain[name]) if name in spec.KINDS else plain[name] for name in names}
            return VAE(**parts)
        except InputError as error:
            raise InputError(f"{self.path}/spec.yaml: {error}") from error

    def load(self, vae: Programs | None = None) -> Any:
        """Load the trained model; see `load`."""
        file = self.path / "model.safetensors"
        loaded: Any = self.declared() if vae is None else vae
        module = as_module(loaded)
        if not file.is_file():
            raise InputError(f"{self.path} has no weights: model.safetensors is missing.")
        try:
            with safetensors.safe_open(str(file), "pt") as opened:
                dtypes = {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118 - no mapping
            if "F64" in dtypes:
                module.double()
            safetensors.torch.load_model(module, str(file))
        except (SafetensorError, RuntimeError, OSError) as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise InputError(f"{file} does not hold the weights of this model: {first}") from error
        if isinstance(loaded, VAE):
            loaded.trained_on = self.spec().get("fingerprint")
        module.eval()
        return loaded


Pair = TypeVar("Pair", bound=Programs)


@overload
def load(run: str | Path, vae: None = None) -> VAE: ...


@overload
def load(run: str | Path, vae: Pair) -> Pair: ...


def load(run: str | Path, vae: Programs | None = None) -> Programs:
    """Load a fitted VAE from its run folder; nothing the folder names is imported or run.

    Args:
        run: the folder.
        vae: for programs or parts of your own: the object that was fitted, as you built it; its weights are replaced.

    Returns:
        The VAE, or that object, in evaluation mode on the CPU.

    Raises:
        InputError: no run, a broken one, one of a newer version, or weights of another model.
    """
    loaded: Programs = Run(Path(run)).load(vae)
    return loaded


def _record(vae: Any, rows: Rows, history: History, settings: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "format": FORMAT,
        "versions": {name: importlib.metadata.version(name) for name in ("pyro-vae", "pyro-ppl", "torch")},
    }
    if isinstance(vae, VAE):
        record |= {field.name: spec.to_plain(getattr(vae.declaration, field.name)) for field in fields(Declaration)}
    record |= {"data": None, **{name: value for name, value in rows.source.items() if name != "split"}}
    record |= {"rows": len(rows), "fingerprint": fingerprint(rows.x)}
    record |= {name: spec.to_plain(value) for name, value in settings.items()}
    record |= {name: note for name in ("caveat", "stopped") if (note := getattr(history, name))}
    return record
