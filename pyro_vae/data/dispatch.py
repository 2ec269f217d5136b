"""Rows by what a user gave: in memory, or read while training from the source that suits."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.data.convert import check_has_x
from pyro_vae.data.file_checks import available_memory, check_exists, naming
from pyro_vae.data.parquet import Parquet
from pyro_vae.data.rows import Rows
from pyro_vae.data.source import Arrays, Source
from pyro_vae.data.streaming import Stream
from pyro_vae.data.torch_datasets import IterableSource, MapSource

MEMORY_SHARE = 0.25
"""Fraction of the free memory: a file whose rows would fill more is read while training by default."""


@explained
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
        InputError: x cannot be read row by row, or does not hold rows.

    >>> import torch
    >>> stream(torch.utils.data.StackDataset(x=torch.zeros(5, 3)))
    Stream(StackDataset, N=5, x=(3,) float32)
    """
    if isinstance(x, Stream):
        return x
    check_integers(workers=(workers, 0), **({} if length is None else {"length": (length, 1)}))
    with naming(Path(x)) if isinstance(x, str | Path) else contextlib.nullcontext():
        return Stream(source_of(x, workers, length, columns), workers=workers)


@explained
def as_data(x: Any) -> Rows | Stream:
    """`Rows` in memory, or a `Stream` of rows that are read while training, by the type of x.

    Args:
        x: what `Rows.of` takes, or a mapped array, a mapping with one, or a torch data set.

    Raises:
        InputError: x has another type.

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


def is_parquet(path: Path) -> bool:
    """Whether a path is a `.parquet` file, or a folder with some below it."""
    return path.suffix.lower() == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet")))


def is_large(path: Path) -> bool:
    """Whether an existing file's rows can be read one by one, and would fill more than a quarter of the free memory."""
    if path.suffix.lower() == ".npy":
        return path.stat().st_size > MEMORY_SHARE * available_memory()
    if not is_parquet(path):
        return False
    rows = stream(path)
    return len(rows) * rows.row_bytes > MEMORY_SHARE * available_memory()


def source_of(x: Any, workers: int, length: int | None, columns: Sequence[str] | None) -> Source:
    """Source of the rows of a path, a mapped array or a data set: see `stream`.

    Raises:
        InputError: rows cannot be read from it one by one.
    """
    if isinstance(x, str | Path):
        path = Path(x).expanduser()
        check_exists(path)
        if is_parquet(path):
            if workers:
                raise InputError("Parquet is decoded in threads: leave workers out.")
            return Parquet(path, columns)
        if columns is not None:
            raise InputError("columns are those of Parquet: leave columns out.")
        if path.suffix.lower() == ".npy":
            return Arrays.file(path)
        kind = path.suffix or path.name
        hint = ": write it as Parquet, `pandas.read_csv(file).to_parquet(file)`" if kind.lower() == ".csv" else ""
        raise InputError(f"rows are read one by one from .npy and .parquet, not from '{kind}'{hint}.")
    if isinstance(x, np.memmap):
        return Arrays.mapped({"x": x})
    if isinstance(x, Mapping):
        check_has_x(x, "the data")
        return Arrays.mapped(dict(x))
    if isinstance(x, IterableDataset):
        known = length or (len(x) if hasattr(x, "__len__") else None)
        if known is None:
            raise InputError(
                f"{type(x).__name__} can only be iterated, and does not say how many rows it has: give the rows of an "
                "epoch, pv.data.stream(dataset, length=100_000)."
            )
        return IterableSource(x, known)
    if isinstance(x, DataLoader) or not (hasattr(x, "__getitem__") and hasattr(x, "__len__")):
        raise InputError(
            f"a {type(x).__name__} cannot be read row by row: give the path of a .npy or .parquet file, a mapped array "
            "(numpy.load(file, mmap_mode='r')), or a torch Dataset."
        )
    if isinstance(x, Rows):
        raise InputError("these rows are in memory: give them to fit as they are.")
    return MapSource(x)
