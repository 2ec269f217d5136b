"""The checkpoints of a run: when they are written, which are kept, and which one a training resumes from.

RUN/checkpoints/
  spec.yaml                       the declaration of the unfinished training
  step-0000001200.safetensors     everything after 1,200 steps; the last few of these
  best.safetensors                everything after the best epoch
"""

import contextlib
import re
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.core.config import Record, field
from pyro_vae.core.errors import InputError
from pyro_vae.core.files import LOCK, lock_folder, naming_unwritable, write_atomically
from pyro_vae.training import snapshot

BEST, SPEC = "best.safetensors", "spec.yaml"
STEP = re.compile(r"step-(\d{10})\.safetensors")


@dataclass(frozen=True)
class Checkpoints(Record):
    """When checkpoints are written, and how many are kept.

    One is written at the end too, and when the training is interrupted (SIGINT, SIGTERM). From the newest,
    `fit(..., run=RunOptions(path, resume=True))` continues to the weights of an uninterrupted training, bit for bit.

    Args:
        every_minutes: the time between two, in minutes, after whichever step is then done; 0 for after every step;
            None for no such rule.
        every_epochs: the epochs between two; None for no such rule.
        keep: how many of the last ones are kept; with 2, one is there if the newest is damaged.
        best: whether to keep that of the epoch with the lowest loss too, on validation data where there are any.

    >>> Checkpoints(every_minutes=5)
    Checkpoints(every_minutes=5.0, every_epochs=None, keep=2, best=True)
    """

    every_minutes: float | None = field(10.0, low=0.0)
    every_epochs: int | None = field(None, low=1)
    keep: int = field(2, low=1)
    best: bool = True


class CheckpointManager:
    """The folder of checkpoints of one training, which nobody else writes to in the meantime.

    Args:
        folder: where they are, or will be.
        plan: when they are written.

    Raises:
        InputError: on entering: the folder cannot be written, or another process works in it.
    """

    def __init__(self, folder: Path, plan: Checkpoints) -> None:
        self.folder, self.plan = folder, plan
        self.best: float | None = None
        self.pending: tuple[Any, dict[str, Any]] | None = None  # the best, not yet written
        self.saved: tuple[int, int] | None = None
        self.due = self._next()

    def __enter__(self) -> "CheckpointManager":
        with naming_unwritable(self.folder):
            self.made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = lock_folder(self.folder, self.folder.parent)
            for left in self.folder.glob(".*.writing-*"):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.pending is not None:
            self._flush()
        if error is not None and not self.files():  # nothing to resume from, so nothing is left
            for name in (SPEC, LOCK):
                (self.folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for made in dict.fromkeys((self.folder, *self.made)):
                    made.rmdir()
        self.lock.release()

    def declare(self, spec: str, restart: bool) -> None:
        """Write the declaration, as YAML, of the unfinished training; `restart` removes the checkpoints of another one.

        Raises:
            InputError: the folder cannot be written.
        """
        with naming_unwritable(self.folder):
            for file in self.files() if restart else ():
                file.unlink()
            with write_atomically(self.folder / SPEC, durable=True) as fresh:
                fresh.write_text(spec, encoding="utf-8")

    def files(self) -> list[Path]:
        """Paths of all checkpoints, the newest first and the best one last."""
        names = sorted((p for p in self.folder.iterdir() if STEP.fullmatch(p.name)), reverse=True)
        return names + [self.folder / BEST] * (self.folder / BEST).exists()

    def newest(self) -> tuple[dict[str, Any], str] | None:
        """Tree and path, as text, of the newest intact checkpoint; damaged ones are named in a warning, and renamed.

        Raises:
            InputError: there are some, and all are damaged.
        """
        damages: dict[Path, str] = {}
        for file in self.files():
            try:
                tree = snapshot.read(file)
                self.best = None if tree["best"] is None else float(tree["best"])
            except InputError:
                raise
            except (snapshot.Damaged, KeyError, TypeError, ValueError) as error:
                damages[file] = f"{file.name} is damaged ({error})"
                continue
            if damages:
                warnings.warn(f"{self.folder}: {'; '.join(damages.values())}; {file.name} is used.", stacklevel=4)
            for damaged in damages:
                damaged.replace(damaged.with_suffix(".damaged"))
            return tree, str(file)
        if damages:
            raise InputError(
                f"{self.folder}: {'; '.join(damages.values())}. None is left to resume: start again by overwrite=True."
            )
        return None

    def is_due(self, epoch: int | None = None) -> bool:
        """Whether a checkpoint is due; given the number of a finished epoch, by epochs too."""
        by_epochs = epoch is not None and self.plan.every_epochs is not None and epoch % self.plan.every_epochs == 0
        return by_epochs or time.monotonic() >= self.due

    def is_better(self, score: float) -> bool:
        """Whether the loss after an epoch is the lowest so far, and the best is kept."""
        return self.plan.best and (self.best is None or score < self.best)

    def advice(self) -> str:
        """Advice after a divergence: a sentence with a space before it, or nothing."""
        where = f"pv.load({str(self.folder.parent)!r}, checkpoint='last')"
        kept = self.files() or self.pending is not None
        return f" Its last good state stays: {where} gives that model, to be fitted again." if kept else ""

    def keep(self, score: float, tree: dict[str, Any]) -> None:
        """Keep the state after the best epoch, until it is written with the next checkpoint."""
        self.best = score
        self.pending = snapshot.pack(tree | {"best": score})

    def save(self, tree: dict[str, Any]) -> bool:
        """Write a checkpoint now, and remove old ones.

        A full disk ends no training: it is a warning, earlier checkpoints stay, and the next is tried.

        Returns:
            Whether this moment has a checkpoint.
        """
        tree = tree | {"best": self.best}
        now = (tree["at"]["steps"], tree["at"]["epoch"])
        self.due = self._next()
        if now == self.saved:
            return True
        if self.pending is not None and not self._flush():
            return False
        if not self._write(f"step-{now[0]:010d}.safetensors", snapshot.pack(tree)):
            return False
        self.saved = now
        for old in [file for file in self.files() if file.name != BEST][self.plan.keep :]:
            old.unlink(missing_ok=True)
        return True

    def _flush(self) -> bool:
        assert self.pending is not None
        if written := self._write(BEST, self.pending):
            self.pending = None
        return written

    def _write(self, name: str, packed: tuple[Any, dict[str, Any]]) -> bool:
        try:
            snapshot.write(self.folder / name, packed)
        except OSError as error:
            there = self.files()
            last = f"{there[0].name} stays the newest" if there else "there is none yet"
            warnings.warn(f"no checkpoint could be written to {self.folder} ({error}): {last}.", stacklevel=5)
            return False
        return True

    def _next(self) -> float:
        minutes = self.plan.every_minutes
        return float("inf") if minutes is None else time.monotonic() + 60 * minutes
