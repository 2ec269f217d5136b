"""Conversion of arrays, tables and lists in memory to one dense tensor of real numbers."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_vae.core.errors import InputError

LABELS = ("label", "class", "target", "species")
"""Names that mark a column of a table as labels."""


def as_tensor(name: str, values: object) -> Tensor:
    """Tensor of values, with their dtype, float64 of a DataFrame, and in shared memory where possible.

    Values are a tensor, a numpy array, a pandas DataFrame of numbers or a nested list, of any shape. Errors say `name`.

    Raises:
        InputError: for text, Python objects, complex numbers, sparse or masked arrays, and ragged lists.

    >>> as_tensor("x", [[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    if _is_frame(values):
        values = _from_frame(name, values)
    elif isinstance(values, list | tuple):
        values = _from_list(name, values)
    if isinstance(values, np.ndarray):
        values = _from_array(name, values)
    if not isinstance(values, Tensor):
        raise InputError(f"{name!r} is a {type(values).__name__}, which cannot be used as rows: {_fix(values)}.")
    if values.layout != torch.strided:
        raise InputError(f"{name!r} is a sparse tensor, and rows are dense: give `{name}.to_dense()`.")
    if values.is_complex():
        raise InputError(f"{name!r} is complex; give real numbers, such as `torch.view_as_real({name})`.")
    return values.detach()


def check_has_x(named: Mapping[str, object], where: str) -> None:
    """Check that named values have x among them.

    Raises:
        InputError: they have not.
    """
    if "x" not in named:
        present = ", ".join(map(repr, named)) or "nothing"
        raise InputError(f"{where} has no 'x', which is what is modelled; it has {present}: rename one to 'x'.")


def label_column(names: Sequence[str], fix: str) -> str | None:
    """Name of the column of labels, if there is one.

    Raises:
        InputError: there are several; with a `fix`.
    """
    named = [name for name in names if name.lower() in LABELS]
    if len(named) > 1:
        raise InputError(f"columns {' and '.join(map(repr, named))} are all labels: {fix}.")
    return named[0] if named else None


def columns_of(values: object) -> tuple[str, ...]:
    """The names of the columns of a DataFrame; none of anything else."""
    frame: Any = values
    return tuple(map(str, frame.columns)) if _is_frame(values) else ()


def _is_frame(values: object) -> bool:
    pandas = sys.modules.get("pandas")  # a DataFrame exists only where pandas has been imported
    return pandas is not None and isinstance(values, pandas.DataFrame)


def _from_frame(name: str, frame: Any) -> np.ndarray:
    from pandas.api.types import is_numeric_dtype

    for column, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if not is_numeric_dtype(dtype):
            raise InputError(
                f"column {column!r} of {name!r} is of type {dtype}, not a number: leave it out, "
                f"`{name}.drop(columns={column!r})`, or code it, "
                f"`pandas.get_dummies({name}, columns=[{column!r}])`."
            )
    array: np.ndarray = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return array


def _from_list(name: str, values: Sequence[object]) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:
        sizes = [len(row) if isinstance(row, Sequence) else 1 for row in values]
        odd = next((row for row, size in enumerate(sizes) if size != sizes[0]), 0)
        where = f": row 0 has {sizes[0]} entries, row {odd} has {sizes[odd]}" if odd else ""
        raise InputError(f"{name!r} is a list whose rows differ in shape{where}; give every row the same.") from None


def _from_array(name: str, array: np.ndarray) -> Tensor:
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(
            f"{name!r} is a masked array; give the mask as a tensor of its own: "
            f"{{'x': {name}.filled(0), 'mask': ~numpy.ma.getmaskarray({name})}}."
        )
    if array.dtype.kind not in "biufc":
        raise InputError(
            f"{name!r} has dtype {array.dtype}, and rows are numbers: leave out what is text or missing, "
            f"and give `{name}.astype('float32')`."
        )
    # torch reads native, writable memory only, and computes with no unsigned type but uint8
    native: Any = array.dtype.newbyteorder("=")
    if array.dtype.kind == "u" and array.itemsize > 1:
        native = np.int64
    elif array.dtype.kind == "f" and array.itemsize > 8:
        native = np.float64
    return torch.from_numpy(np.require(array, native, ["C", "W"]))


def _fix(values: object) -> str:
    """Advice on how to convert values of a wrong type to rows."""
    if isinstance(values, DataLoader):
        return "give the tensor or the dataset it loads, for rows live on the device as one tensor"
    if type(values).__name__ == "Stream":
        return "take some of its rows into memory, `rows.head_sample(1000)`"
    if isinstance(values, Dataset):
        return "give its rows as one tensor, `torch.stack([row[0] for row in dataset])`"
    if hasattr(values, "toarray"):
        return "it is sparse, and rows are dense: give `x.toarray()`"
    if isinstance(values, str):
        return f"read it first, `pyro_vae.data.load({values!r}).train`"
    if type(values).__name__ == "Dataset":
        return "give one of its splits, `data.train`"
    return "give a tensor, an array, a DataFrame, a nested list, or a mapping of names to those"
