"""What holds rows: memory, or a place from which they are read while training."""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyro_vae.core.errors import InputError
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream

SHARE = 0.25
"""Of the memory: rows that would fill more are read while training, unless told otherwise."""


def stream(x: Any, *, workers: int = 0, length: int | None = None, columns: Sequence[str] | None = None) -> Stream:
    """Rows that are read while training, for data larger than memory.

    `fit(vae, stream("big.npy"))` ends with the weights that it has on the same rows in memory, bit for bit, but for the
    starting values, which come of 10,000 rows at most (1,000 of a data set), and the order of some: Parquet of many
    groups is shuffled by groups, and an iterable data set has an order of its own. What is random in a data set
    (augmentation) depends on the row numbers of a batch, or on the epoch, and not on the number of workers.

    Args:
        x: the path of a `.npy` or `.parquet` file, or of a folder of `.parquet` files; a mapped array
            (`numpy.load(file, mmap_mode="r")`), or a mapping of names to those; a torch `Dataset` or `IterableDataset`,
            or anything with a length whose `x[n]` is row n. A row is a tensor, an array, a pair (x, label), or a
            mapping of named tensors with "x".
        workers: processes that read ahead, of everything but Parquet.
        length: the rows in an epoch of a data set that can only be iterated, and has no length of its own.
        columns: the columns of Parquet to read; all by default.

    Returns:
        The rows; values are checked by `fit`.

    Raises:
        InputError: it cannot be read so, or is no rows.

    >>> import torch
    >>> stream(torch.utils.data.StackDataset(x=torch.zeros(5, 3)))
    Stream(StackDataset, N=5, x=(3,) float32)
    """
    return Stream.of(x, workers=workers, length=length, columns=columns)


def as_data(x: Any) -> Rows | Stream:
    """Rows in memory or rows that are read while training, by what holds them.

    Args:
        x: what `Rows.of` takes, or what lies elsewhere: a mapped array, or one among others; a torch data set.

    Raises:
        InputError: it is none of these.

    >>> import torch
    >>> as_data([[0.0]]), as_data(torch.utils.data.StackDataset(x=torch.zeros(5, 3)))
    (Rows(N=1, x=(1,) float64), Stream(StackDataset, N=5, x=(3,) float32))
    """
    if isinstance(x, DataLoader):
        raise InputError(
            "x is a DataLoader, and batches are made by fit: give the data set it loads, x = loader.dataset, with "
            "batch_size=, and with workers by pv.data.stream(loader.dataset, workers=...)."
        )
    mapped = isinstance(x, np.memmap) or (isinstance(x, Mapping) and any(isinstance(v, np.memmap) for v in x.values()))
    if mapped or isinstance(x, Stream) or (isinstance(x, Dataset) and not isinstance(x, TensorDataset)):
        return stream(x)
    return Rows.of(x)


def is_large(path: Path) -> bool:
    """Whether the rows of a file would fill more than a quarter of the memory, and can be read one by one.

    Args:
        path: a file or folder that is there.
    """
    if path.suffix.lower() == ".npy":
        return path.stat().st_size > SHARE * _memory()
    if path.suffix.lower() != ".parquet" and not (path.is_dir() and any(path.rglob("*.parquet"))):
        return False
    rows = stream(path)
    return len(rows) * rows.row_bytes > SHARE * _memory()


def _memory() -> float:
    """Bytes of memory that this process may fill; without end where nobody says."""
    known = [math.inf]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(ValueError, OSError):  # of a container; "max" is no number
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(known)
