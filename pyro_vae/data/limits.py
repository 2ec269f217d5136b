"""Checks that the arrays a file declares are in it and fit into memory, before they are read."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from pyro_vae.core.errors import InputError

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of the files that numpy reads as `.npz`, whatever their names."""

CGROUP = Path("/sys/fs/cgroup")


def available() -> float:
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


def require_room(size: float, what: str) -> None:
    """Check that something fits into memory.

    Args:
        size: its size in bytes.
        what: its name, as the subject of a sentence.

    Raises:
        InputError: less memory is available.

    >>> require_room(1e6, "it")
    """
    if size > (room := available()):
        raise InputError(
            f"{what} would take {describe_bytes(size)} of memory, and {describe_bytes(room)} are free: give fewer "
            "rows or smaller ones, in a smaller type such as float32."
        )


def describe_bytes(size: float) -> str:
    """Number of bytes with a unit.

    >>> describe_bytes(3.2e9), describe_bytes(2048)
    ('3.2 GB', '2.05 kB')
    """
    for power, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= power:
            return f"{size / power:.3g} {unit}"
    return f"{size:.0f} bytes"


def require_file(path: Path) -> None:
    """Check that a path is a file, not a pipe or a device, which might never end.

    Raises:
        InputError: it is not a file.
    """
    if not path.is_file():
        raise InputError("it is not a regular file: copy its content into one.")


def require_honest(path: Path) -> None:
    """Check that the arrays that a `.npy` or `.npz` file declares are in it and fit into memory.

    Args:
        path: the file.

    Raises:
        InputError: Python objects, a shape with more numbers than the file holds, or more than there is room for.
        ValueError: it is damaged.
    """
    require_file(path)
    total = 0.0
    for name, stream, held in _arrays(path):
        what = f"the array {name!r} in it" if name else "its array"
        shape, dtype = _header(stream)
        if dtype.hasobject:
            raise InputError(
                f"{what} holds Python objects, which are not read because they can run code: save numbers, "
                "`numpy.save(file, x.astype('float32'))`."
            )
        count = 1
        for length in shape:  # Python integers, for numpy's would overflow
            count *= length
        size = count * dtype.itemsize
        if size > held - stream.tell():
            raise InputError(
                f"{what} is declared with shape {shape}, {describe_bytes(size)}, and the file has "
                f"{describe_bytes(max(held - stream.tell(), 0))} of it: it is damaged, so download or save it again."
            )
        pictures = dtype == np.uint8 and len(shape) in (3, 4)
        total += size * (5 if pictures else 1)  # they become float32
        require_room(total, what)


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
