"""Atomic writes of files and folders, and the lock of a folder."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pyro_vae.core.errors import InputError

LOCK = ".lock"
"""Name of the file in a folder that is locked, and that holds the number of the locking process."""


@contextmanager
def write_atomically(target: Path, *, durable: bool = False) -> Iterator[Path]:
    """Path beside the target to write a file or folder to, which takes the target's place when it is complete.

    Args:
        target: the file or folder; what was there is replaced at the end, and stays if anything fails.
        durable: whether to wait until the file is on the disk, so that a power failure cannot tear it.

    Raises:
        OSError: the target cannot be written.
    """
    fresh = target.with_name(f".{target.name}.writing-{os.getpid()}")
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    _remove(fresh)
    try:
        yield fresh
        if durable:
            sync(fresh)
        if fresh.is_dir() and target.exists():  # a folder cannot take the place of a full one in one step
            target.rename(old)
        fresh.replace(target)
        if durable:
            sync(target.parent)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        _remove(fresh)
        _remove(old)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming_unwritable(path: Path) -> Iterator[None]:
    """Context in which a file or folder is written, and an error of the file system names its path.

    Raises:
        InputError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}): choose another place, or make room there.") from error


def lock_folder(folder: Path, owner: Path | None = None) -> FileLock:
    """Lock of a folder, held until it is released or its process ends in whatever way.

    Args:
        folder: the folder.
        owner: what is written there, for the message; the folder itself by default.

    Raises:
        InputError: another process, or another part of this one, holds it.
        OSError: the lock cannot be made.
    """
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{owner or folder} is being written by another process{_holder(folder / LOCK)}: wait for it, or take "
            "another folder."
        ) from None
    with contextlib.suppress(OSError):  # on Windows others may not be allowed to write there, or to read
        (folder / LOCK).write_text(f"{os.getpid()}\n")
    return lock


def _holder(file: Path) -> str:
    try:
        return f" ({file.read_text(errors='replace')[:20].strip()})"
    except OSError:
        return ""
