"""`Parquet`: tables whose rows are stored in groups, each read at once.

Rows are shuffled by groups: as many as fit into `SHUFFLE_BYTES` are drawn at random, and their rows are mixed.
A table that fits there is shuffled as in memory. Each group is read once an epoch.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.data.convert import label_column
from pyro_vae.data.rows import Rows, concat
from pyro_vae.data.source import Source

SHUFFLE_BYTES = 2**28
"""Approximate bytes of the groups whose rows are mixed."""

MAX_GROUP_BYTES = 2**30
"""Largest group, in bytes."""

SAMPLED_PLACES = 8
"""Places of a table that representative rows are read from."""


def require_pyarrow() -> Any:
    """Module `pyarrow`, with what reads Parquet.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError('Parquet is read by pyarrow, which is missing: pip install "pyro-vae[parquet]".') from None
    return pyarrow


class Parquet(Source):
    """The rows of a Parquet file, or of all Parquet files below a folder in the order of their names.

    A column `x` of lists, all of one shape, is x, and every other column a tensor by its name; without such a column
    all columns are numbers, and x is what they are side by side. A column `label`, `class`, `target` or `species` of
    integers is the labels.

    Args:
        path: the file or folder.
        columns: the columns to read, and the label's; None for all.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        pyarrow = require_pyarrow()
        self.name, found = f"'{path}'", sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        try:
            opened = {file: pyarrow.parquet.ParquetFile(file) for file in found}
        except (OSError, ValueError) as error:
            raise InputError(f"it cannot be read ({error}): is it complete, and Parquet?") from error
        schema = next(iter(opened.values())).schema_arrow
        if other := [file for file, one in opened.items() if not one.schema_arrow.equals(schema)]:
            raise InputError(f"{other[0].name} has other columns than {found[0].name}: put it elsewhere.")
        if columns is not None and (missing := [name for name in columns if name not in schema.names]):
            raise unknown_name_error("column", missing[0], schema.names)
        self.columns = list(schema.names if columns is None else columns)
        self.label = label_column(self.columns, "give columns= with but one")
        if self.label is not None and not pyarrow.types.is_integer(schema.field(self.label).type):
            raise InputError(
                f"column {self.label!r} is of type {schema.field(self.label).type}, and labels are integers: "
                "number the classes, or leave it out with columns=."
            )
        self.flat = "x" not in self.columns
        self.features = tuple(name for name in self.columns if name != self.label) if self.flat else ()
        for name in self.columns:
            _require_numbers(schema.field(name), nested=not self.flat)
        if not set(self.columns) - {self.label}:
            raise InputError("it has no column of data.")
        metadata = {file: one.metadata for file, one in opened.items()}
        self.groups = [(file, i) for file, one in metadata.items() for i in range(one.num_row_groups)]
        counts = [metadata[file].row_group(i).num_rows for file, i in self.groups]
        self.ends = np.cumsum(counts, dtype=np.int64)
        if not len(self):
            raise InputError("it has no rows.")
        self.bytes = max(_bytes(metadata[file].row_group(i), self.columns) for file, i in self.groups)
        if self.bytes > MAX_GROUP_BYTES:
            raise InputError(
                f"its groups of {max(counts):,} rows take {self.bytes / 2**30:.1f} GB of memory each, and are read "
                "at once: write it in smaller ones, pyarrow.parquet.write_table(table, file, row_group_size=10_000)."
            )
        self.stamp_parts = [(file.name, file.stat().st_size, one.num_rows) for file, one in metadata.items()]

    @property
    def content_id(self) -> str:
        """Names, sizes and lengths of the files."""
        return f"{self.columns} {self.stamp_parts}"

    def __len__(self) -> int:
        """The number of rows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @cached_property
    def mixed(self) -> int:
        """Number of groups that are mixed."""
        return max(1, SHUFFLE_BYTES // max(self.bytes, 1))

    def order(self, numbers: Tensor | None, generator: torch.Generator) -> Tensor:
        """Positions of an epoch: groups are shuffled, then the rows of some groups at a time."""
        count = len(self) if numbers is None else len(numbers)
        if len(self.groups) <= self.mixed:
            return torch.randperm(count, generator=generator)
        ends = torch.from_numpy(self.ends)
        bounds = ends if numbers is None else torch.searchsorted(numbers, ends)  # `numbers` ascend
        lengths = bounds.diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist()
        members = list(torch.arange(count).split(lengths))
        windows = torch.randperm(len(members), generator=generator).split(self.mixed)
        rows = [torch.cat([members[i] for i in window.tolist()]) for window in windows]
        return torch.cat([some[torch.randperm(len(some), generator=generator)] for some in rows])

    def representative_rows(self, count: int, n: int) -> Tensor:
        """Positions in contiguous runs at some places, for each place costs the reading of a group."""
        each = -(-n // SAMPLED_PLACES)
        if each * SAMPLED_PLACES >= count:
            return super().representative_rows(count, n)
        places = (torch.arange(SAMPLED_PLACES)[:, None] * count // SAMPLED_PLACES + torch.arange(each)).flatten()
        return places[super().representative_rows(len(places), n)]

    def read(self, plan: Sequence[Tensor], workers: int, epoch: int) -> Iterator[Rows]:
        """The rows of each batch; pyarrow decodes in threads, so there are no workers."""
        kept: OrderedDict[int, Rows] = OrderedDict()
        for numbers in plan:
            rows = numbers.numpy()
            groups = np.searchsorted(self.ends, rows, side="right")
            needed = np.unique(groups).tolist()
            for group in needed:
                if group not in kept:
                    kept[group] = self._group(group)
                kept.move_to_end(group)
            while len(kept) > max(self.mixed + 1, len(needed)):
                kept.popitem(last=False)
            yield self._gathered(kept, rows, groups)

    def _gathered(self, kept: "OrderedDict[int, Rows]", rows: NDArray[np.int64], groups: NDArray[Any]) -> Rows:
        begins = np.concatenate([[0], self.ends[:-1]])
        order = np.argsort(groups, kind="stable")
        parts = [
            kept[group].select(torch.from_numpy(rows[order][groups[order] == group] - begins[group]))
            for group in np.unique(groups).tolist()
        ]
        return concat(parts).select(torch.from_numpy(np.argsort(order)))

    def _group(self, number: int) -> Rows:
        file, group = self.groups[number]
        try:
            table = require_pyarrow().parquet.ParquetFile(file).read_row_group(group, columns=self.columns)
        except (OSError, ValueError) as error:
            raise InputError(f"'{file}', group {group}, cannot be read ({error}): is it complete?") from error
        first = int(self.ends[number]) - table.num_rows
        arrays = {name: _array(table.column(name), f"column {name!r} of '{file}'", first) for name in self.columns}
        label = arrays.pop(self.label) if self.label else None
        if self.flat:
            arrays = {"x": np.stack([array.astype(np.float32) for array in arrays.values()], axis=1)}
        tensors = {name: torch.from_numpy(np.require(array, requirements="W")) for name, array in arrays.items()}
        return Rows(tensors, None if label is None else torch.from_numpy(label.astype(np.int64)))


def _require_numbers(field: Any, nested: bool) -> None:
    import pyarrow

    inner = field.type
    while nested and (pyarrow.types.is_list(inner) or pyarrow.types.is_fixed_size_list(inner)):
        inner = inner.value_type
    if not (pyarrow.types.is_integer(inner) or pyarrow.types.is_floating(inner) or pyarrow.types.is_boolean(inner)):
        hint = "name it 'x' if it is the data" if "list" in str(inner) else "leave it out with columns="
        raise InputError(f"column {field.name!r} is of type {field.type}, not a number: {hint}.")


def _bytes(group: Any, columns: Sequence[str]) -> int:
    """Bytes of a group in memory, decoded."""
    read = [group.column(i) for i in range(group.num_columns)]
    return sum(8 * column.num_values for column in read if column.path_in_schema.split(".")[0] in columns)


def _array(column: Any, where: str, first: int) -> NDArray[Any]:
    """Values of a column, (N, ...); missing values become NaN, which the model's check finds."""
    import pyarrow
    import pyarrow.compute

    values, shape = column.combine_chunks(), [len(column)]
    while pyarrow.types.is_list(values.type) or pyarrow.types.is_fixed_size_list(values.type):
        sizes = pyarrow.compute.list_value_length(values).to_numpy(zero_copy_only=False)
        if wrong := np.flatnonzero(sizes != sizes[0]).tolist():  # a missing list has the size NaN
            row = first + wrong[0] // int(np.prod(shape[1:], dtype=np.int64))
            raise InputError(f"{where}, row {row} has another length than others, and rows are of one shape: mend it.")
        values = values.flatten()
        shape.append(int(sizes[0]))
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype == object:  # booleans with missing ones
        array = array.astype(np.float32)
    return np.asarray(array).reshape(shape)
