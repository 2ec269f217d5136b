"""Checks of files before they are read: that they exist, hold what they declare, and fit into memory."""

import difflib
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from rich.filesize import decimal

from pyro_vae.core.errors import InputError

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of the files that numpy reads as `.npz`, whatever their names."""

CGROUP = Path("/sys/fs/cgroup")

NOT_NUMBERS = (
    "Python objects, which are not read because they can run code: save numbers, `numpy.save(file, "
    "x.astype('float32'))`."
)
"""End of a message on an array that would have to be unpickled."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context in which errors of reading a file name the file.

    Raises:
        InputError: the file cannot be read.

    >>> with naming(Path("flowers.csv")):
    ...     raise InputError("column 3 has no name.")
    Traceback (most recent call last):
        ...
    pyro_vae.core.errors.InputError: 'flowers.csv': column 3 has no name.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"'{path}': {error}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' cannot be read ({error}): is it complete, and of this format?") from error


def check_exists(path: Path) -> None:
    """Check that a path exists.

    Raises:
        InputError: it does not; with the nearest name that does.
    """
    if not path.exists():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, beside, n=1)
        hint = f": did you mean '{path.with_name(close[0])}'?" if close else "; give the path of one that does."
        raise InputError(f"the file '{path}' does not exist{hint}")


def available_memory() -> float:
    """Memory that this process may still use, in bytes; infinite where the system does not report it."""
    limits = [float("inf")]
    entries = (line.split() for line in _lines(Path("/proc/meminfo")))
    limits += [1024 * float(words[1]) for words in entries if words[0] == "MemAvailable:"]
    limit, used = (next(iter(_lines(CGROUP / f"memory.{name}")), "") for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():  # of a container
        limits.append(max(float(limit) - float(used), 0.0))
    if len(limits) == 1 and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    return min(limits)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def check_memory(size: float, what: str) -> None:
    """Check that `what`, the subject of a sentence, of `size` bytes, fits into memory.

    Raises:
        InputError: less memory is available.
    """
    if size > (room := available_memory()):
        raise InputError(
            f"{what} would take {decimal(int(size))} of memory, and {decimal(int(room))} are free: give fewer "
            "rows or smaller ones, in a smaller type such as float32."
        )


def check_regular_file(path: Path) -> None:
    """Check that a path is a file, not a pipe or a device, which might never end.

    Raises:
        InputError: it is not a file.
    """
    if not path.is_file():
        raise InputError("it is not a regular file: copy its content into one.")


def check_declared(path: Path) -> None:
    """Check that the arrays that a `.npy` or `.npz` file declares are in it and fit into memory.

    Raises:
        InputError: Python objects, a shape with more numbers than the file holds, or more than there is room for.
        ValueError: it is damaged.
    """
    check_regular_file(path)
    total = 0.0
    for name, stream, held in _arrays(path):
        what = f"the array {name!r} in it" if name else "its array"
        shape, dtype = _header(stream)
        if dtype.hasobject:
            raise InputError(f"{what} holds {NOT_NUMBERS}")
        size = math.prod(shape) * dtype.itemsize  # of Python integers, for numpy's would overflow
        if size > held - stream.tell():
            raise InputError(
                f"{what} is declared with shape {shape}, {decimal(size)}, and the file has "
                f"{decimal(max(held - stream.tell(), 0))} of it: it is damaged, so download or save it again."
            )
        pictures = dtype == np.uint8 and len(shape) in (3, 4)
        total += size * (5 if pictures else 1)  # they become float32
        check_memory(total, what)


def _arrays(path: Path) -> Iterator[tuple[str, IO[bytes], int]]:
    """Arrays of a file: the name, a stream that begins with the header, and the size in bytes of each."""
    with path.open("rb") as stream:
        if stream.read(4) not in ZIP:
            stream.seek(0)
            yield "", stream, path.stat().st_size
            return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():  # no more is expanded than a member says
            with archive.open(member) as stream:
                yield member.filename.removesuffix(".npy"), stream, member.file_size


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype
