"""Conversion of arrays, tables and lists in memory to one dense tensor of real numbers."""

import numbers
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_vae.core.errors import InputError
from pyro_vae.core.libraries import library_of

LABELS = ("label", "class", "target", "species")
"""Names that mark a column of a table as labels."""


def as_tensor(name: str, values: object) -> Tensor:
    """Tensor of values, with their dtype, float64 of a DataFrame, and in shared memory where possible.

    Values are a tensor, a numpy array, a pandas DataFrame or Series of numbers, a number or a nested list, of any
    shape, or anything that numpy takes for an array. bfloat16, which numpy lacks, becomes float32. Errors say `name`.

    Raises:
        InputError: for text, Python objects, complex numbers, sparse or masked arrays, and ragged lists.

    >>> as_tensor("x", [[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    library, found = library_of(values), values
    if isinstance(values, Tensor):
        found = values.detach()
    elif library == "pandas":
        found = _from_pandas(name, values)
    elif isinstance(values, list | tuple):
        found = _from_list(name, values)
    elif isinstance(values, numbers.Number) or hasattr(values, "__array__") or hasattr(values, "__array_interface__"):
        found = np.asanyarray(values)
    if isinstance(found, np.ndarray):
        found = _from_array(name, found)
    if not isinstance(found, Tensor):
        raise InputError(f"{name!r} is a {type(values).__name__}, which cannot be used as rows: {_fix(values)}.")
    if found.layout != torch.strided:
        raise InputError(f"{name!r} is a sparse tensor, and rows are dense: give `{name}.to_dense()`.")
    if found.is_complex():
        parts = f"numpy.stack([numpy.real({name}), numpy.imag({name})], axis=-1)"
        fix = f"torch.view_as_real({name})" if library == "torch" else parts
        raise InputError(f"{name!r} is complex; give real numbers, such as `{fix}`.")
    tensor: Any = found.float() if found.dtype == torch.bfloat16 else found
    if library != "torch":
        tensor.given_library = library
    result: Tensor = tensor
    return result


def check_has_x(named: Mapping[str, object], where: str) -> None:
    """Check that named values have x among them.

    Raises:
        InputError: they have not.
    """
    if "x" not in named:
        present = ", ".join(map(repr, named)) or "nothing"
        fix = f", `{{'x': data[{next(iter(named))!r}]}}`" if len(named) == 1 else ""
        raise InputError(f"{where} has no 'x', which is what is modelled; it has {present}: rename one to 'x'{fix}.")


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
    return tuple(map(str, frame.columns)) if library_of(values) == "pandas" and frame.ndim == 2 else ()


def _from_pandas(name: str, values: Any) -> np.ndarray:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    values = values.infer_objects()  # numbers of Python are objects in pandas
    is_series = values.ndim == 1
    for column, held in [(None, values)] if is_series else values.items():
        if not is_numeric_dtype(held.dtype):
            subject = repr(name) if is_series else f"column {column!r} of {name!r}"
            raise InputError(f"{subject} is of type {held.dtype}, not a number: {_fix_column(name, column, held)}.")
    dtypes = [values.dtype] if is_series else values.dtypes
    if all(map(is_bool_dtype, dtypes)) and not values.isna().to_numpy().any():
        return np.asarray(values.to_numpy(dtype=bool))
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def _fix_column(name: str, column: object, held: Any) -> str:
    """Advice on a column of a DataFrame, or a Series if `column` is None, that does not hold numbers."""
    part = name if column is None else f"{name}[{column!r}]"
    try:
        days = getattr(held.dt, "total_seconds", None)
        what, new = "count days", f"({part} - {part}.min()).dt.total_seconds() / 86400"
        if days is not None:
            new = f"{part}.dt.total_seconds() / 86400"
    except AttributeError:
        try:
            held.astype(float)
            what, new = "make it numbers", f"{part}.astype(float)"
        except (TypeError, ValueError):
            if column is not None:
                code = f"pandas.get_dummies({name}, columns=[{column!r}])"
                return f"leave it out, `{name}.drop(columns={column!r})`, or code it, `{code}`"
            what, new = "code it", f"{part}.astype('category').cat.codes"
    return f"{what}, `{new if column is None else f'{name}.assign(**{{{column!r}: {new}}})'}`"


def _from_list(name: str, values: Sequence[object]) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:
        if len(values) == 2 and all(len(getattr(part, "shape", ())) > 0 for part in values):
            raise InputError(
                f"{name!r} is a pair of {type(values[0]).__name__}s, and a model is fitted to one of them: give "
                f"`{name}[0]` alone; labels are for pictures, as in pv.plots.latent(vae, x, labels=y)."
            ) from None
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
    if array.dtype.kind == "O" and all(value is None or isinstance(value, numbers.Real) for value in array.flat):
        array = array.astype(np.float64)  # None becomes NaN
    if array.dtype.kind not in "biufc":
        raise InputError(f"{name!r} has dtype {array.dtype}, and rows are numbers: {_fix_array(name, array)}.")
    # torch reads native, writable memory only, and computes with no unsigned type but uint8
    native: Any = array.dtype.newbyteorder("=")
    if array.dtype.kind == "u" and array.itemsize > 1:
        native = np.int64
    elif array.dtype.kind == "f" and array.itemsize > 8:
        native = np.float64
    return torch.from_numpy(np.require(array, native, ["C", "W"]))


def _fix_array(name: str, array: np.ndarray) -> str:
    """Advice on how to convert an array that does not hold numbers."""
    if array.dtype.names:
        return f"give its fields as columns, `numpy.stack([{name}[field] for field in {name}.dtype.names], axis=-1)`"
    if array.dtype.kind == "M":
        return f"give seconds, `numpy.asarray({name}).astype('datetime64[s]').astype('float64')`"
    if array.dtype.kind == "m":
        return f"give seconds, `numpy.asarray({name}) / numpy.timedelta64(1, 's')`"
    try:
        array.astype(np.float64)
    except (TypeError, ValueError):
        coded = f"numpy.unique({name}, return_inverse=True)[1].reshape(numpy.shape({name}))"
        return f"leave out what is text, or give the numbers of its values, `{coded}`"
    return f"give `numpy.asarray({name}, dtype='float64')`"


def _fix(values: object) -> str:
    """Advice on how to convert values of a wrong type to rows."""
    if isinstance(values, DataLoader):
        return "give the tensor or the dataset it loads, for rows live on the device as one tensor"
    if type(values).__name__ == "Stream":
        return "take some of its rows into memory, `rows.head_sample(1000)`"
    if isinstance(values, Dataset):
        return "give its rows as one tensor, `torch.stack([row[0] for row in dataset])`"
    if hasattr(values, "model") and hasattr(values, "guide"):
        return "it is a model: give the model first, and then its data"
    if values is not None and isinstance(values, Iterator):
        return "it can be read once, and rows are read in every epoch: give `list(x)`"
    if type(values).__name__ == "History":
        return "it is what pv.fit returns: give the data that it was fitted to"
    if hasattr(values, "toarray"):
        return "it is sparse, and rows are dense: give `x.toarray()`"
    if isinstance(values, str | Path):
        return f"read it first, `pyro_vae.data.load({str(values)!r}).train`"
    if type(values).__name__ == "Dataset":
        return "give one of its splits, `data.train`"
    return "give a tensor, an array, a DataFrame, a nested list, or a mapping of names to those"
