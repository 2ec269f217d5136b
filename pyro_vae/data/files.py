"""Rows of a user's own file: `.npy`, `.npz`, `.csv`, `.parquet`, or a folder of images.

Numbers are taken as they are, with one exception: `x` of bytes (dtype uint8) of shape (N, H, W) or
(N, C, H, W) is a stack of pictures and becomes x / 255, float32, shape (N, C, H, W), like every image here.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.data import images
from pyro_vae.data.convert import LABELS, columns_of, label_column
from pyro_vae.data.dispatch import is_parquet
from pyro_vae.data.file_checks import (
    NOT_NUMBERS,
    check_declared,
    check_exists,
    check_memory,
    check_regular_file,
    naming,
)
from pyro_vae.data.parquet import Parquet
from pyro_vae.data.precision import MERGING
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream

if TYPE_CHECKING:
    from pandas import DataFrame, Series

LABELS_IN_NPZ = ("y", "label", "labels")

TABLE = 3
"""Memory that reading a table takes, in units of the size of its text."""


def read(path: Path) -> Rows:
    """Rows of a file of a format in `FORMATS`, in its order, or of a folder of images.

    Raises:
        InputError: the file does not exist, has an unknown format, or cannot be read; with its name.
    """
    check_exists(path)
    with naming(path):
        if is_parquet(path):
            return FORMATS[".parquet"](path)
        if path.is_dir():
            return images.folder(path)
        if path.suffix.lower() not in FORMATS:
            raise unknown_name_error("file format", path.suffix, [*FORMATS, "a folder of images"])
        return FORMATS[path.suffix.lower()](path)


def arrays(path: Path) -> Rows:
    """Rows of an `.npy` (one array, x) or `.npz` (named arrays, `x` among them or the only one).

    In an `.npz` a one-dimensional integer array `y`, `label` or `labels` beside the data is the labels; all
    others become named tensors. Pickled objects are never read.

    Raises:
        InputError: for Python objects, for bytes with the channels last, and for what `Rows` refuses.
    """
    try:
        check_declared(path)
        with path.open("rb") as stream:  # numpy leaves a damaged .npz open
            content = np.load(stream, allow_pickle=False)
            named = {"x": content} if isinstance(content, np.ndarray) else dict(content)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"it is damaged or holds {NOT_NUMBERS}") from error
    keys = (key for key in LABELS_IN_NPZ if len(named) > 1 and _is_classes(named.get(key)))
    label = next(keys, None)
    labels = None if label is None else torch.from_numpy(named.pop(label).astype(np.int64))
    if len(named) == 1:
        named = {"x": named.popitem()[1]}
    tensors: Mapping[str, object] = {name: images.pictures(a) if name == "x" else a for name, a in named.items()}
    return Rows(Rows.of(tensors).tensors, labels)


def table(path: Path) -> Rows:
    """Rows of a `.csv` with a header row and a number in every cell: x of shape (N, P), float32 where that keeps it.

    A column named `label`, `class`, `target` or `species`, of text or integers, becomes the labels; text is
    numbered in alphabetical order.

    Raises:
        InputError: without a header or rows, for a column without a name of its own, and naming column
            and row (counted from 1 below the header) of the first cell that is missing or not a number.
    """
    import pandas

    check_regular_file(path)
    check_memory(TABLE * path.stat().st_size, "this table")
    header = pandas.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].to_list()
    _check_separator(header)
    _check_header(header)
    try:
        frame = pandas.read_csv(path, header=None, skiprows=1, low_memory=False)
    except pandas.errors.EmptyDataError:
        raise InputError("there are no rows below the header.") from None
    if frame.shape[1] != len(header):
        raise InputError(f"the header names {len(header)} columns, and row 1 has {frame.shape[1]} values.")
    frame.columns = pandas.Index(header)
    label = label_column(header, "keep or rename but one")
    for column in frame:
        _check_column(frame[column], text=column == label)
    labels = None if label is None else _classes(frame.pop(label))
    if not frame.shape[1]:
        raise InputError(f"it has no column of data beside {label!r}.")
    exact = torch.from_numpy(_numbers(frame))
    single, sd = exact.to(torch.float32), exact.std(0, correction=0)
    x = exact if bool(((exact - single.double()).abs().amax(0) > MERGING * sd)[sd > 0].any()) else single
    return Rows({"x": x}, labels, features=columns_of(frame))


def parquet(path: Path) -> Rows:
    """Rows of a `.parquet` file, or of a folder of them; see `parquet.Parquet`."""
    rows = Stream(Parquet(path))
    return rows.head_sample(len(rows))


FORMATS: Mapping[str, Callable[[Path], Rows]] = {
    ".npy": arrays,
    ".npz": arrays,
    ".csv": table,
    ".parquet": parquet,
}


def _is_classes(array: np.ndarray | None) -> bool:
    return array is not None and array.ndim == 1 and array.dtype.kind in "iu"


def _check_separator(names: list[str]) -> None:
    """Refuse a header that holds the names of several columns in one."""
    found = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
    if found is not None:
        decimal = ", decimal=','" if found == ";" else ""
        raise InputError(
            f"its columns are separated by {found!r}, and a comma is meant: write it with commas, "
            f"`pandas.read_csv(file, sep={found!r}{decimal}).to_csv(file, index=False)`."
        )


def _check_header(names: list[str]) -> None:
    import pandas

    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise InputError(
                f"column {number} has no name in the header (pandas writes its row numbers so: save with "
                "`frame.to_csv(file, index=False)`)."
            )
        if name in names[: number - 1]:
            raise InputError(f"columns {names.index(name) + 1} and {number} are both named {name!r}: rename one.")
    numbered = names == [str(number) for number in range(len(names))]  # as pandas names them by default
    if pandas.to_numeric(pandas.Series(names), errors="coerce").notna().all() and not numbered:
        raise InputError(f"line 1 is {','.join(names[:5])!r}..., not a header: put the columns' names there.")


def _check_column(column: "Series", *, text: bool) -> None:
    """Refuse the first cell that is missing, or that is text in the place of a number."""
    import pandas

    if column.isna().any():
        row = int(column.isna().to_numpy().argmax())
        raise InputError(
            f"column {column.name!r}, row {row + 1} is missing: fill it in, or leave the rows out that miss "
            "something, `pandas.read_csv(file).dropna().to_csv(file, index=False)`."
        )
    if text or pandas.api.types.is_numeric_dtype(column):
        return
    row = int(pandas.to_numeric(column, errors="coerce").isna().to_numpy().argmax())
    if re.fullmatch(r"\s*[-+]?\d*,\d+\s*", str(column.iloc[row])):
        raise InputError(
            f"column {column.name!r}, row {row + 1} holds {column.iloc[row]!r}, with a decimal comma: write it with "
            "points, `pandas.read_csv(file, decimal=',').to_csv(file, index=False)`."
        )
    raise InputError(
        f"column {column.name!r}, row {row + 1} holds {column.iloc[row]!r}, not a number: correct it, leave "
        f"the column out, or, if it is the class, name it {' or '.join(map(repr, LABELS))}."
    )


def _classes(column: "Series") -> Tensor:
    """Numbers of classes: integers stay, text is numbered in alphabetical order."""
    import pandas

    if not pandas.api.types.is_numeric_dtype(column):
        return torch.from_numpy(np.unique(column.to_numpy(dtype=str), return_inverse=True)[1])
    values = _numbers(column)
    fractional = values != np.round(values)
    if fractional.any():
        row = int(fractional.argmax())
        raise InputError(
            f"column {column.name!r}, row {row + 1} holds {values[row]:g}, and a class is text or an "
            "integer: rename the column to keep it as data."
        )
    return torch.from_numpy(values.astype(np.int64))


def _numbers(cells: "DataFrame | Series") -> np.ndarray:
    array: np.ndarray = cells.to_numpy(dtype=np.float64)
    return array if array.flags.writeable else array.copy()
