"""Which source reads what a user gave."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from pyro_vae.core.errors import InputError
from pyro_vae.data.parquet import Parquet
from pyro_vae.data.paths import require_there
from pyro_vae.data.rows import Rows
from pyro_vae.data.source import Arrays, Source
from pyro_vae.data.torch_datasets import IterableSource, MapSource


def origin_of(x: Any, workers: int, length: int | None, columns: Sequence[str] | None) -> Source:
    """Where rows lie, by what was given: see `stream`.

    Raises:
        InputError: rows cannot be read from it one by one.
    """
    if isinstance(x, str | Path):
        origin = located(Path(x).expanduser(), columns)
        if workers and isinstance(origin, Parquet):
            raise InputError("Parquet is decoded in threads: leave workers out.")
        return origin
    if isinstance(x, np.memmap):
        return Arrays.mapped({"x": x})
    if isinstance(x, Mapping):
        if "x" not in x:
            raise InputError(f"the data has no 'x', which is what is modelled; it has {', '.join(map(repr, x))}.")
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


def located(path: Path, columns: Sequence[str] | None = None) -> Source:
    """Find the rows of a file that can be read row by row, without reading it.

    Args:
        path: a `.npy` or `.parquet` file, or a folder of `.parquet` files.
        columns: the columns of Parquet to read; None for all.

    Raises:
        InputError: where there is no such file or format, or what its reader refuses.
    """
    require_there(path)
    if path.suffix.lower() == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet"))):
        return Parquet(path, columns)
    if columns is not None:
        raise InputError("columns are those of Parquet: leave columns out.")
    if path.suffix.lower() == ".npy":
        return Arrays.file(path)
    hint = ": write it as Parquet, `pandas.read_csv(file).to_parquet(file)`" if path.suffix.lower() == ".csv" else ""
    raise InputError(f"rows are read one by one from .npy and .parquet, not from '{path.suffix or path.name}'{hint}.")
