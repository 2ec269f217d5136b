"""`xarray.DataTree`s with ArviZ's groups and dimensions, written to NetCDF and read from it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.core.files import naming_unwritable, write_atomically

FEATURES = 30
"""Maximum number of features that have a variable each."""

AXES: Mapping[int, tuple[str, ...]] = {
    1: ("feature",),
    2: ("height", "width"),
    3: ("channel", "height", "width"),
}
"""Names of an event's dimensions, by their number."""

RESERVED_NAMES = ("chain", "draw", "row", "element", "feature", "height", "width", "channel")
"""Names of dimensions, which no variable may have."""


def feature_names(event_shape: Sequence[int], named: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the elements of a row: those of a table's columns, or indices.

    Args:
        event_shape: the shape of a row.
        named: the names of a table's columns, if there are any.

    >>> feature_names((2, 2))
    ('x[0, 0]', 'x[0, 1]', 'x[1, 0]', 'x[1, 1]')
    >>> feature_names(())
    ('x',)
    """
    if named:
        return tuple(named)
    return tuple(f"x[{', '.join(map(str, at))}]" if at else "x" for at in np.ndindex(*event_shape))


def to_dataset(x: Tensor, features: Sequence[str], event_rank: int, *, discrete: bool, draws: bool) -> xr.Dataset:
    """Dataset of data, or of replicates of them, with the dimensions that ArviZ's plots expect.

    Vectors of up to 30 features become one variable each, on a dimension "row"; longer ones and images become one
    variable "x" of all elements of all rows, on a dimension "element" with the coordinates row, height and width.
    Replicates have the dimensions "chain" and "draw" first.

    Args:
        x: rows (R, *event_shape), or with draws in front, (S, R, *event_shape).
        features: the names of a row's elements.
        event_rank: the number of dimensions of an event.
        discrete: whether the values are integers, which are stored as int32.
        draws: whether the first dimension of x counts draws.
    """
    values = x.detach().cpu().numpy()
    values = values.astype(np.int32) if discrete else values.astype(np.float32 if values.itemsize <= 4 else np.float64)
    lead: tuple[str, ...] = ("chain", "draw") if draws else ()
    coords: dict[str, Any] = {"chain": [0], "draw": np.arange(len(values))} if draws else {}
    values = values[None] if draws else values
    rows = values.shape[len(lead)]
    if event_rank <= 1 and len(features) <= FEATURES:
        columns = values.reshape(*values.shape[: len(lead) + 1], -1)
        named = {name: ((*lead, "row"), columns[..., at]) for at, name in enumerate(_variable_names(features))}
        return xr.Dataset(named, coords={**coords, "row": np.arange(rows)})
    event = values.shape[len(lead) + 1 :]
    index = np.indices((rows, *event)).reshape(1 + event_rank, -1)
    axes = AXES.get(event_rank, tuple(f"axis_{at}" for at in range(event_rank)))
    coords |= {name: ("element", index[at]) for at, name in enumerate(("row", *axes))}
    return xr.Dataset({"x": ((*lead, "element"), values.reshape(*values.shape[: len(lead)], -1))}, coords=coords)


def to_datatree(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> xr.DataTree:
    """Tree of groups by name; attributes that are not strings become JSON: NetCDF stores neither dict nor None."""
    tree: xr.DataTree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = {name: value if isinstance(value, str) else json.dumps(value) for name, value in attrs.items()}
    return tree


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Path of a NetCDF file to which a tree is written atomically; an existing file is replaced.

    Raises:
        InputError: the file cannot be written.
    """
    target = Path(path).expanduser()
    packed = {f"/{name}": {v: {"zlib": True} for v in ("x",) if v in group} for name, group in tree.children.items()}
    with naming_unwritable(target), write_atomically(target) as fresh:
        tree.to_netcdf(fresh, engine="h5netcdf", encoding={name: how for name, how in packed.items() if how})
    return target


def read(path: str | Path) -> xr.DataTree:
    """Tree read from a NetCDF file into memory.

    Raises:
        InputError: the file does not exist, or is not NetCDF.
    """
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            return opened.load()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as NetCDF: {error}") from error


def _variable_names(features: Sequence[str]) -> list[str]:
    """Valid names of variables: unique, none of a dimension, and without slashes, which separate groups in NetCDF."""
    found: list[str] = []
    for name in features:
        one = name.replace("/", "|") or "x"
        while one in RESERVED_NAMES or one in found:
            one += "_"
        found.append(one)
    return found
