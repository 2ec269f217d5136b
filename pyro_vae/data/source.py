"""`Source`: N rows outside of memory that are read while training, by their numbers 0, ..., N - 1.

It reads a plan of batches. Which order is cheap differs: rows of an array can be read one by one, those of Parquet in
groups, and an iterable data set has an order of its own.
"""

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_vae.core.errors import InputError
from pyro_vae.data import images
from pyro_vae.data.convert import as_tensor
from pyro_vae.data.file_checks import NOT_NUMBERS
from pyro_vae.data.rows import Rows


class Source(ABC):
    """N rows outside of memory, read by their numbers.

    Attributes:
        name: the name in messages.
        cheap_to_scan: whether a pass over all rows before training costs little beside an epoch.
        features: names of the elements of a row, where they have some.
    """

    name: str
    cheap_to_scan: bool = True
    features: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """The number N of rows."""

    @abstractmethod
    def read(self, plan: Sequence[Tensor], workers: int, epoch: int) -> Iterator[Rows]:
        """The rows of each batch of row numbers, in that order, in memory.

        Args:
            plan: row numbers by batch.
            workers: processes that read ahead.
            epoch: which pass over the data it is.
        """

    @cached_property
    def first(self) -> Rows:
        """Row 0, whose names and shapes all others must have."""
        return next(iter(self.read([torch.zeros(1, dtype=torch.int64)], 0, 1)))

    def order(self, numbers: Tensor | None, generator: torch.Generator) -> Tensor:
        """Shuffled positions of an epoch.

        Args:
            numbers: the numbers of the rows to shuffle, ascending; None for all N.
            generator: the random state.

        Returns:
            Positions in `numbers`, each once.
        """
        return torch.randperm(len(self) if numbers is None else len(numbers), generator=generator)

    def representative_rows(self, count: int, n: int) -> Tensor:
        """Positions, ascending, of n representative rows among `count`."""
        return torch.arange(n) * count // n

    @property
    def content_id(self) -> str:
        """Identifier of the content that needs no reading, as names and sizes of files; part of the fingerprint."""
        return ""


class RandomAccessSource(Source):
    """A source whose rows can be fetched in any order, by processes that read ahead too."""

    @abstractmethod
    def fetch(self, numbers: Tensor) -> Rows:
        """The rows of these numbers."""

    def read(self, plan: Sequence[Tensor], workers: int, epoch: int) -> Iterator[Rows]:
        """The rows of each batch, by torch's `DataLoader` where there are workers."""
        if workers:
            return raise_errors(loader(_Batches(self), workers, epoch, plan))
        return map(self.fetch, plan)


class _Batches(Dataset):
    """A data set whose items are batches, so that a worker makes all of one."""

    def __init__(self, source: RandomAccessSource) -> None:
        self.source = source

    def __getitem__(self, numbers: Tensor) -> Rows | InputError:
        try:
            return self.source.fetch(numbers)
        except InputError as error:  # raised in a worker, it would come out buried in a traceback
            return error


def loader(dataset: Any, workers: int, epoch: int, plan: Sequence[Tensor] | None = None) -> "DataLoader[Any]":
    """A `DataLoader` of a data set of batches, whose indices are in `plan`; the epoch seeds its workers."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=plan,
        num_workers=workers,
        generator=torch.Generator().manual_seed(epoch),
        worker_init_fn=_leave_signals,
    )


def _leave_signals(worker: int) -> None:
    """Ignore signals that a terminal or scheduler sends to all processes: workers end with the training."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


def raise_errors(batches: Iterable[Rows | InputError]) -> Iterator[Rows]:
    """Batches, or the error that a worker returned in the place of one."""
    for batch in batches:
        if isinstance(batch, InputError):
            raise batch
        yield batch


@dataclass(frozen=True)
class FileArray:
    """An array in a file, read row by row without mapping it: what was read is not kept in memory.

    Args:
        path: the file.
        offset: where its first row begins, in bytes.
        shape: (N, *event_shape).
        dtype: of its numbers.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: "np.memmap[Any, Any]") -> "FileArray | None":
        """Location of a mapped array in its file; None where its rows are not contiguous."""
        root: Any = array
        while isinstance(root.base, np.memmap):
            root = root.base
        private = root.mode == "c"  # what was changed there is not in the file
        if private or root.filename is None or not array.flags.c_contiguous:
            return None
        offset = root.offset + array.ctypes.data - root.ctypes.data
        return cls(Path(root.filename), offset, array.shape, array.dtype)

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these numbers; neighbours are read at once."""
        size = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        read = np.empty(len(numbers) * size, np.uint8)
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1).tolist()
        with self.path.open("rb", buffering=0) as file:
            for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
                file.seek(self.offset + int(numbers[start]) * size)
                if file.readinto(read.data[start * size : stop * size]) != (stop - start) * size:
                    raise InputError(
                        f"'{self.path}' ends before its row {int(numbers[stop - 1])}: it has changed while it was "
                        "read, or is not complete."
                    )
        return read.view(self.dtype).reshape(len(numbers), *self.shape[1:])


class Arrays(RandomAccessSource):
    """Named arrays, in memory or in files.

    Args:
        columns: arrays that are indexed by row numbers, by name, with `x` among them.
        name: the name in messages.
        pictures: whether x of bytes is made intensities, as in `files.arrays`.
    """

    def __init__(self, columns: dict[str, Any], name: str, pictures: bool = False) -> None:
        self.columns, self.name, self.pictures = columns, name, pictures
        lengths = {key: len(column) for key, column in columns.items()}
        if wrong := [key for key, length in lengths.items() if length != lengths["x"]]:
            raise InputError(f"{wrong[0]!r} has {lengths[wrong[0]]} rows but 'x' has {lengths['x']}: give as many.")

    @classmethod
    def file(cls, path: Path) -> "Arrays":
        """The array of a `.npy` file.

        Raises:
            InputError: for Python objects, an array without rows, and rows that are not contiguous.
        """
        try:
            array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InputError(f"it is empty, damaged or holds {NOT_NUMBERS}") from error
        if not array.ndim:
            raise InputError(f"its shape is {array.shape}, and rows are (N, *event_shape).")
        if (located := FileArray.of(array)) is None:
            raise InputError(
                "it is stored by columns (Fortran order), so that a row lies all over the file: save it by rows, "
                "`numpy.save(file, numpy.ascontiguousarray(x))`."
            )
        return cls({"x": located}, f"'{path}'", pictures=True)

    @classmethod
    def mapped(cls, named: dict[str, Any]) -> "Arrays":
        """Arrays in memory and mapped ones (`numpy.memmap`) by name."""
        columns = {
            name: (FileArray.of(values) or values) if isinstance(values, np.memmap) else as_tensor(name, values)
            for name, values in named.items()
        }
        located = [column for column in columns.values() if isinstance(column, FileArray)]
        return cls(columns, f"'{located[0].path}'" if located else "the mapped array")

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.columns["x"])

    def fetch(self, numbers: Tensor) -> Rows:
        """The rows of these numbers."""
        index = numbers.numpy()
        read: dict[str, Any] = {
            name: column[numbers] if isinstance(column, Tensor) else column[index]
            for name, column in self.columns.items()
        }
        if self.pictures:
            read["x"] = images.pictures(read["x"])
        return Rows({name: as_tensor(name, values) for name, values in read.items()})
