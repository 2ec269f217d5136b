"""Rows that a user's own data set makes, item by item: by number, or in an order of its own.

Such a data set may draw random numbers, to augment or to shuffle. It draws from states of its own, seeded by what is
read, and not from those of training: the rows are then the same with any number of workers, and after a crash.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import PrivateRng
from pyro_vae.data.convert import as_tensor, check_has_x
from pyro_vae.data.rows import Rows, concat
from pyro_vae.data.source import RandomAccessSource, Source, loader, raise_errors

CHUNK = 64
"""Items of a data set without numbers that are read at once."""


class MapSource(RandomAccessSource):
    """Map-style data set: it has a length and gives `dataset[n]`."""

    cheap_to_scan = False

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.name = dataset, type(dataset).__name__
        if not len(dataset):
            raise InputError(f"{self.name} has no rows: its length is 0.")

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.dataset)

    def fetch(self, numbers: Tensor) -> Rows:
        """Rows of these numbers; random augmentation depends on the numbers alone."""
        digest = hashlib.sha256(numbers.numpy().tobytes()).digest()
        with PrivateRng(int.from_bytes(digest[:7], "little")).numbers():
            return rows_of([self._item(n) for n in numbers.tolist()], numbers.tolist(), self.name)

    def _item(self, n: int) -> Any:
        try:
            return self.dataset[n]
        except Exception as error:
            error.add_note(f"This is from {self.name}[{n}], while row {n} was read.")
            raise


class IterableSource(Source):
    """Iterable data set, whose rows are numbered in its order.

    To resume in the middle, everything before is read again and dropped.

    Args:
        dataset: the data set. What it yields may depend on the epoch, by `dataset.set_epoch(epoch)` or by random
            numbers, and on nothing else.
        length: how many rows are read of it in an epoch.
    """

    cheap_to_scan = False

    def __init__(self, dataset: "IterableDataset[Any]", length: int) -> None:
        self.dataset, self.length, self.name = dataset, length, type(dataset).__name__

    def __len__(self) -> int:
        """The number of rows."""
        return self.length

    def order(self, numbers: Tensor | None, generator: torch.Generator) -> Tensor:
        """The order of the data set itself."""
        return torch.arange(self.length)

    def representative_rows(self, count: int, n: int) -> Tensor:
        """The first positions, for others need all before them to be read."""
        return torch.arange(n)

    def read(self, plan: Sequence[Tensor], workers: int, epoch: int) -> Iterator[Rows]:
        """The rows of each batch, whose numbers ascend from batch to batch."""
        chunks, kept, first = self._chunks(workers, epoch), list[Rows](), 0
        for numbers in plan:
            low, high = int(numbers[0]), int(numbers[-1])
            while first + sum(map(len, kept)) <= high:
                try:
                    kept.append(next(chunks))
                except StopIteration:
                    end = first + sum(map(len, kept))
                    raise InputError(
                        f"{self.name} ended after {end} rows, and length={self.length} was given: give "
                        f"pv.data.stream(dataset, length={end})."
                    ) from None
                while kept and first + len(kept[0]) <= low:
                    first += len(kept.pop(0))
            yield concat(kept).select(numbers - first)
            while kept and first + len(kept[0]) <= high + 1:
                first += len(kept.pop(0))

    def _chunks(self, workers: int, epoch: int) -> Iterator[Rows]:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        chunks = _Chunks(self.dataset, self.name)
        if not workers:
            yield from raise_errors(_with_private_rng(iter(chunks), PrivateRng(epoch)))
            return
        made = raise_errors(iter(loader(chunks, workers, epoch)))
        start = list(itertools.islice(made, 2))  # of the first two workers
        if workers > 1 and len(start) == 2 and all(map(torch.equal, *(one.tensors.values() for one in start))):
            raise InputError(
                f"{workers} workers read the same rows of {self.name}: let it share them out by "
                "torch.utils.data.get_worker_info() in its __iter__, or give workers=1."
            )
        yield from itertools.chain(start, made)


class _Chunks(IterableDataset):
    """Rows of a data set, some at a time, so that a worker hands over few large things and not many small ones."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self.name = dataset, name

    def __iter__(self) -> Iterator[Rows | InputError]:
        items, first = iter(self.dataset), 0
        try:
            while some := list(itertools.islice(items, CHUNK)):
                yield rows_of(some, range(first, first + len(some)), self.name)
                first += len(some)
        except InputError as error:
            yield error


def _with_private_rng(made: Iterator[Any], own: PrivateRng) -> Iterator[Any]:
    """Items of an iterator whose steps draw from random states of their own."""
    while True:
        with own.numbers():
            item = next(made, None)
        if item is None:
            return
        yield item


def rows_of(items: Sequence[Any], numbers: Sequence[int], name: str) -> Rows:
    """Rows of items of a data set.

    Args:
        items: the items: each x alone, as tensor, array or number; a pair of x and an integer label; or a mapping
            of named ones with "x".
        numbers: their row numbers, for messages.
        name: the name of the data set.

    Raises:
        InputError: an item has another type or shape; with the number of its row.

    >>> rows_of([(torch.zeros(2), 3), (torch.ones(2), 4)], [0, 1], "Mine")
    Rows(N=2, x=(2,) float32, labels)
    """
    named = [_named(item, f"row {n} of {name}") for item, n in zip(items, numbers, strict=True)]
    for row, n in zip(named, numbers, strict=True):
        for key in row.keys() | named[0].keys():
            if key not in row or key not in named[0] or row[key].shape != named[0][key].shape:
                here, there = (tuple(one[key].shape) if key in one else "missing" for one in (row, named[0]))
                what = "label" if key == LABEL else repr(key)
                raise InputError(
                    f"row {n} of {name} differs from row {numbers[0]}: its {what} is {here}, and there "
                    f"{there}: give every row the same tensors of the same shapes."
                )
    tensors = {key: torch.stack([row[key] for row in named]) for key in named[0]}
    labels = tensors.pop(LABEL, None)
    return Rows(tensors, labels)


LABEL = ""
"""Name of the label of a pair (x, label), which no tensor has."""


def _named(item: Any, where: str) -> dict[str, Tensor]:
    """Tensors of an item by name, a label under `LABEL`."""
    if isinstance(item, Mapping):
        check_has_x(item, where)
        return {str(key): _tensor(value, f"{key!r} of {where}") for key, value in item.items()}
    if not isinstance(item, tuple | list):
        return {"x": _tensor(item, where)}
    if len(item) not in (1, 2):
        raise InputError(
            f"{where} is a {type(item).__name__} of {len(item)}, and rows are x, a pair (x, label) or a mapping of "
            "named tensors: give {'x': ..., 'mask': ...}, or numpy.asarray of it if its numbers are x."
        )
    named = {"x": _tensor(item[0], where)}
    if len(item) == 2:
        label = _tensor(item[1], f"the label of {where}")
        if label.ndim or label.is_floating_point() or label.dtype == torch.bool:
            raise InputError(
                f"{where} is a pair whose second is not an integer, so it is not a label: give a mapping, "
                "{'x': ..., 'covariates': ...}, with the names that your programs take."
            )
        named[LABEL] = label.long()
    return named


def _tensor(value: Any, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, int | float | np.number):
        return torch.as_tensor(value)
    if hasattr(value, "getbands"):
        raise InputError(f"{where} is a Pillow image: give the data set transform=torchvision.transforms.ToTensor().")
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"{where} is a {type(value).__name__}, and rows are x (a tensor, an array or a number), a pair (x, label) "
            "or a mapping of named tensors: let the data set give one of these."
        )
    try:
        return as_tensor("x", value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
