"""Whether there is room in memory for what a file says that it holds, before any of it is expanded."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from pyro_vae.core.errors import InputError

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""How a file begins that numpy reads as `.npz`, whatever its name."""

CGROUP = Path("/sys/fs/cgroup")


def available() -> float:
    """The memory that this process may still take, in bytes; infinite where the system does not tell."""
    limits = [float("inf")]
    told = (line.split() for line in _lines(Path("/proc/meminfo")))
    limits += [1024 * float(words[1]) for words in told if words[0] == "MemAvailable:"]
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
    """Refuse what does not fit into memory.

    Args:
        size: its size in bytes.
        what: what that is, as the subject of a sentence.

    Raises:
        InputError: there is less room than that.

    >>> require_room(1e6, "it")
    """
    if size > (room := available()):
        raise InputError(
            f"{what} would take {describe_bytes(size)} of memory, and {describe_bytes(room)} are free: give fewer "
            "rows or smaller ones, in a smaller type such as float32."
        )


def describe_bytes(size: float) -> str:
    """Write a number of bytes.

    >>> describe_bytes(3.2e9), describe_bytes(2048)
    ('3.2 GB', '2.05 kB')
    """
    for power, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= power:
            return f"{size / power:.3g} {unit}"
    return f"{size:.0f} bytes"


def require_file(path: Path) -> None:
    """Refuse a pipe or a device, which might never end.

    Raises:
        InputError: it is one of these.
    """
    if not path.is_file():
        raise InputError("it is no regular file: copy what it gives into one.")


def require_honest(path: Path) -> None:
    """Look at what a `.npy` or `.npz` file declares, and refuse what is not in it or does not fit into memory.

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
        for length in shape:  # in whole numbers without end, for numpy's would overflow
            count *= length
        size = count * dtype.itemsize
        if size > held - stream.tell():
            raise InputError(
                f"{what} is declared with shape {shape}, {describe_bytes(size)}, and the file has "
                f"{describe_bytes(max(held - stream.tell(), 0))} of it: it is damaged, so get or save it anew."
            )
        pictures = dtype == np.uint8 and len(shape) in (3, 4)
        total += size * (5 if pictures else 1)  # they become float32
        require_room(total, what)


def _arrays(path: Path) -> Iterator[tuple[str, IO[bytes], int]]:
    """Every array of a file: its name, a stream that begins with its header, and its size in bytes."""
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
