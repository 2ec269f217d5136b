"""`Stream`: rows that are read while training, for data larger than memory, with the interface of `Rows`."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.core.progress import track
from pyro_vae.data.columns import column_order, select_columns
from pyro_vae.data.rows import Rows, binarize, concat, fingerprint, quantize, require_probabilities
from pyro_vae.data.source import Source
from pyro_vae.data.torch_datasets import IterableSource

CHUNK_BYTES = 2**26
"""Bytes of a chunk of rows."""

SAMPLE_ROWS, SAMPLE_ITEMS = 10_000, 1_000
"""Largest default sample of a file, and of a data set, as for initial values; in rows."""

FINGERPRINT_ROWS, FINGERPRINT_ITEMS = 1_000, 64
"""Rows of a file, and of a data set, in its fingerprint."""


@dataclass(frozen=True, eq=False, repr=False)
class Stream:
    """N rows of named tensors outside of memory, in a file or a data set.

    Args:
        origin: where they lie; `stream` makes one of a path or a data set.
        numbers: which rows of it these are, ascending; None for all.
        workers: processes that read ahead.
        dynamic: whether x holds probabilities of which every batch draws a new binary x; see `Rows`.
        levels: how many levels x in [0, 1] is rounded to; see `load`.
        source: the arguments of `load` that made it, as plain values.
        device: where batches go; None leaves them in memory.
        dtype: the type of x and of every other floating tensor; None for that of the origin.
        check: the check of each batch before it is used; None where all rows were checked before.
        columns: positions of the columns of x in the origin; None for all in their order.

    >>> import numpy, tempfile, pyro_vae
    >>> folder = tempfile.TemporaryDirectory()
    >>> numpy.save(f"{folder.name}/x.npy", numpy.arange(12.0).reshape(6, 2))
    >>> rows = pyro_vae.data.stream(f"{folder.name}/x.npy")
    >>> [batch["x"].tolist() for batch in rows.read([torch.tensor([5, 0])])]
    [[[10.0, 11.0], [0.0, 1.0]]]
    >>> folder.cleanup()
    """

    origin: Source
    numbers: Tensor | None = None
    workers: int = 0
    dynamic: bool = False
    levels: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    check: Callable[[dict[str, Any]], None] | None = None
    columns: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the first row."""
        _ = self.origin.first

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.origin) if self.numbers is None else len(self.numbers)

    def __repr__(self) -> str:
        """Describe shapes and types in one line."""
        inside = repr(self.origin.first)[len("Rows(N=1, ") : -1]
        more = f", {self.workers} workers" if self.workers else ""
        return f"Stream({self.origin.name}, N={len(self)}, {inside}{more})"

    @property
    def x(self) -> Tensor:
        """Raise an error, for the rows are not in memory.

        Raises:
            InputError: always.
        """
        raise InputError(f"the rows of {self.origin.name} are not in memory: take some, rows.head_sample(1000).x.")

    @property
    def labels(self) -> None:
        """None; a sample of rows in memory has its labels."""
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors of a batch."""
        return self.origin.first.names

    @property
    def features(self) -> Sequence[str]:
        """Names of the elements of each row, where they have names."""
        features = self.origin.features
        return features if self.columns is None else tuple(features[i] for i in self.columns.tolist())

    def aligned(self, features: Sequence[str]) -> "Stream":
        """Rows whose columns have the order of these names: see `Rows.aligned`."""
        index = column_order(self.features, features)
        if index is None:
            return self
        return replace(self, columns=index if self.columns is None else self.columns[index])

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum."""
        return self.origin.first.event_shape

    @cached_property
    def n_observed(self) -> float:
        """Mean number of observed elements of x per row: those that the mask selects; of a data set, in a sample."""
        if "mask" not in self.names:
            return float(math.prod(self.event_shape))
        if not self.origin.cheap_to_scan:
            return self.head_sample().n_observed
        return sum(piece.n_observed * len(piece) for piece in self.chunks()) / len(self)

    def order(self, generator: torch.Generator) -> Tensor:
        """The row numbers of one epoch in its order: see `Rows.order`."""
        return self.origin.order(self.numbers, generator)

    def read(self, plan: Sequence[Tensor], epoch: int = 1) -> Iterator[dict[str, Tensor]]:
        """Batches of an epoch, or of the rest of it: see `Rows.read`.

        Args:
            plan: the row numbers of each batch, in order; they ascend where the data have an order of their own.
            epoch: which pass over the data it is: data sets that shuffle or augment do so by it.

        Raises:
            InputError: a row cannot be used, by its number in the file or data set.
        """
        plan = [numbers.cpu() for numbers in plan]
        for numbers, rows in zip(plan, self._rows(plan, epoch), strict=True):
            placed = _to_device(rows, self.device, self.dtype)
            batch = binarize(placed.tensors) if self.dynamic else dict(placed.tensors)
            if self.check is not None:
                self._checked(self.check, batch, self._numbers(numbers))
            yield batch

    def select(self, index: Tensor) -> "Stream":
        """Rows of these numbers, ascending; not of an iterable data set."""
        if isinstance(self.origin, IterableSource):
            raise InputError(f"{self.origin.name} can only be read from its start: make a data set for each part.")
        return replace(self, numbers=self._numbers(index))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Stream":
        """Rows on a device and in a precision: see `Rows.to`."""
        return replace(self, device=device or self.device, dtype=dtype or self.dtype)

    def head_sample(self, n: int | None = None) -> Rows:
        """At most n representative rows, in memory; by default as many as may be held."""
        n = self._sample_rows if n is None else n
        return concat(list(self._in_memory(self._spread(n), min(n, self._chunk_rows))))

    def chunks(self, size: int | None = None) -> Iterator[Rows]:
        """All rows in order, in memory, at most `size` at a time; by default as many as may be held."""
        return self._in_memory(torch.arange(len(self)), size or self._chunk_rows)

    def checked(self, check: Callable[[dict[str, Any]], None], progress: bool = False) -> "Stream":
        """Rows that a model has checked: all of them where that is cheap; else a sample, and then each batch.

        Args:
            check: raises an `InputError` for a batch that cannot be used.
            progress: whether to show how far it is, if it takes long.

        Returns:
            The rows to train on.

        Raises:
            InputError: the error of `check`, with the number in the file of the first row that fails.
        """
        if not self.origin.cheap_to_scan:
            self._checked(check, self.head_sample().batch(), self._numbers(self._spread(self._sample_rows)))
            return replace(self, check=check)
        start, seen, total = 0, "mask" not in self.names, -(-len(self) // self._chunk_rows)
        for piece in track(self.chunks(), f"checking {self.origin.name}", progress, total, transient=True):
            batch = piece.batch()
            if "mask" not in batch or bool(batch["mask"].any()):  # a masked row is never used
                seen = True
                self._checked(check, batch, self._numbers(torch.arange(start, start + len(piece))))
            start += len(piece)
        if not seen:
            check(self.head_sample().batch())
        return self

    def fingerprint(self, name: str = "x") -> str:
        """Hash of the source and of a sample of rows, which identifies the rows.

        The sample is 1,000 rows of a file, or 64 of a data set: a change of a few rows may go unnoticed.
        """
        some = replace(self, device=None, dtype=None, check=None, dynamic=False)
        rows = some.head_sample(FINGERPRINT_ROWS if self.origin.cheap_to_scan else FINGERPRINT_ITEMS)
        picked = "" if self.numbers is None else hashlib.sha256(self.numbers.numpy().tobytes()).hexdigest()
        known = f"{len(self)} {picked} {self.origin.content_id} {self.levels} {fingerprint(rows.tensors[name])}"
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory."""
        return max(sum(t.numel() * max(t.itemsize, 4) for t in self.origin.first.tensors.values()), 1)

    @property
    def _sample_rows(self) -> int:
        return max(
            min(SAMPLE_ROWS if self.origin.cheap_to_scan else SAMPLE_ITEMS, 4 * CHUNK_BYTES // self.row_bytes), 2
        )

    def _spread(self, n: int) -> Tensor:
        """Positions of at most n representative rows."""
        return torch.arange(len(self)) if n >= len(self) else self.origin.representative_rows(len(self), n)

    @property
    def _chunk_rows(self) -> int:
        return max(CHUNK_BYTES // self.row_bytes, 1)

    def _numbers(self, index: Tensor) -> Tensor:
        return index if self.numbers is None else self.numbers[index]

    def _rows(self, plan: Sequence[Tensor], epoch: int) -> Iterator[Rows]:
        read = self.origin.read([self._numbers(numbers) for numbers in plan], self.workers, epoch)
        for numbers, rows in zip(plan, read, strict=True):
            if rows.event_shape != self.event_shape or rows.names != self.names:
                raise InputError(
                    f"row {int(self._numbers(numbers)[0])} of {self.origin.name} is {rows!r}, and the first row is "
                    f"{self.origin.first!r}: give every row the same tensors of the same shapes."
                )
            x = rows.x if rows.x.is_floating_point() or not (self.dynamic or self.levels) else rows.x.float()
            if self.levels:
                x = quantize(x, self.levels)
            tensors = {**rows.tensors, "x": x}
            if self.columns is not None:
                tensors = select_columns(tensors, self.columns)
            yield rows if tensors["x"] is rows.x else replace(rows, tensors=tensors, features=())

    def _in_memory(self, positions: Tensor, size: int) -> Iterator[Rows]:
        plan = positions.split(size)
        for numbers, rows in zip(plan, self._rows(plan, 1), strict=True):
            placed = _to_device(rows, self.device, self.dtype)
            if self.dynamic:
                self._checked(lambda batch: require_probabilities(batch["x"]), placed.batch(), self._numbers(numbers))
            features = self.features if len(self.features) == math.prod(self.event_shape) else ()
            yield replace(placed, dynamic=self.dynamic, source=self.source, features=features)

    def _checked(self, check: Callable[[dict[str, Any]], None], batch: Mapping[str, Tensor], numbers: Tensor) -> None:
        """Check a batch; an error names the first row that fails by itself, found by bisection."""
        try:
            check(dict(batch))
        except InputError as error:
            low, high = 0, len(numbers)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if _error_of(check, batch, low, middle) else (middle, high)
            if (found := _error_of(check, batch, low, high)) is None:  # no single row fails
                raise InputError(f"{self.origin.name}: {error}") from None
            raise InputError(f"row {int(numbers[low])} of {self.origin.name}, which is x[0] here: {found}") from None


def _error_of(check: Callable[[Any], None], batch: Mapping[str, Tensor], low: int, high: int) -> InputError | None:
    """Error of some rows of a batch, unless all of them are masked."""
    some = {name: tensor[low:high] for name, tensor in batch.items()}
    if "mask" in some and not bool(some["mask"].any()):
        return None
    try:
        check(some)
    except InputError as error:
        return error
    return None


def _to_device(rows: Rows, device: torch.device | str | None, dtype: torch.dtype | None) -> Rows:
    """Rows on a device; the copy to a GPU is asynchronous."""
    if device is None or torch.device(device).type != "cuda":
        return rows.to(device, dtype)
    pinned = {name: tensor.pin_memory() for name, tensor in rows.to(dtype=dtype).tensors.items()}
    there = {name: tensor.to(device, non_blocking=True) for name, tensor in pinned.items()}
    return replace(rows, tensors=there, labels=None if rows.labels is None else rows.labels.to(device))
