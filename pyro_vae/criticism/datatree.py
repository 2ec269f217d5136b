"""Arrays in ArviZ's form: an `xarray.DataTree` with its groups and dimensions, to and from NetCDF."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.core.files import naming_unwritable, write_atomically

if TYPE_CHECKING:
    import xarray as xr

FEATURES = 30
"""Features at most that have a variable each."""

AXES: Mapping[int, tuple[str, ...]] = {
    1: ("feature",),
    2: ("height", "width"),
    3: ("channel", "height", "width"),
}
"""What the dimensions of an event are called."""

TAKEN = ("chain", "draw", "row", "element", "feature", "height", "width", "channel")


def feature_names(event_shape: Sequence[int], named: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the elements of a row: those of a table's columns, or indices.

    >>> feature_names((2, 2))
    ('x[0, 0]', 'x[0, 1]', 'x[1, 0]', 'x[1, 1]')
    >>> feature_names(())
    ('x',)
    """
    if named:
        return tuple(named)
    return tuple(f"x[{', '.join(map(str, at))}]" if at else "x" for at in np.ndindex(*event_shape))


def variables(x: Tensor, features: Sequence[str], event_rank: int, *, discrete: bool, draws: bool) -> "xr.Dataset":
    """Data, or replicates of them, as variables whose dimensions ArviZ's pictures take.

    Vectors of up to 30 features become one variable each, on a dimension "row"; longer ones and images one variable "x"
    of all elements of all rows, on a dimension "element" that knows row, height and width. Replicates have "chain" and
    "draw" in front.

    Args:
        x: rows (R, *event_shape), or with draws in front, (S, R, *event_shape).
        features: the names of a row's elements.
        event_rank: how many dimensions an event has.
        discrete: whether the values are whole numbers, and kept as such.
        draws: whether the first dimension is one of draws.
    """
    import xarray as xr

    values = x.detach().cpu().numpy()
    values = values.astype(np.int32) if discrete else values.astype(np.float32 if values.itemsize <= 4 else np.float64)
    lead: tuple[str, ...] = ("chain", "draw") if draws else ()
    coords: dict[str, Any] = {"chain": [0], "draw": np.arange(len(values))} if draws else {}
    values = values[None] if draws else values
    rows = values.shape[len(lead)]
    if event_rank <= 1 and len(features) <= FEATURES:
        columns = values.reshape(*values.shape[: len(lead) + 1], -1)
        named = {name: ((*lead, "row"), columns[..., at]) for at, name in enumerate(_as_variables(features))}
        return xr.Dataset(named, coords={**coords, "row": np.arange(rows)})
    event = values.shape[len(lead) + 1 :]
    index = np.indices((rows, *event)).reshape(1 + event_rank, -1)
    axes = AXES.get(event_rank, tuple(f"axis_{at}" for at in range(event_rank)))
    coords |= {name: ("element", index[at]) for at, name in enumerate(("row", *axes))}
    return xr.Dataset({"x": ((*lead, "element"), values.reshape(*values.shape[: len(lead)], -1))}, coords=coords)


def assembled(groups: Mapping[str, "xr.Dataset"], attrs: Mapping[str, Any]) -> "xr.DataTree":
    """A tree of groups; attributes that are no text are written as JSON, for a NetCDF file takes neither dict nor None.

    Args:
        groups: data sets by name.
        attrs: what made them.
    """
    import xarray as xr

    tree: xr.DataTree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = {name: value if isinstance(value, str) else json.dumps(value) for name, value in attrs.items()}
    return tree


def save(tree: "xr.DataTree", path: str | Path) -> Path:
    """Write a tree as NetCDF, whole or not at all; what was there is replaced.

    Args:
        tree: what `pv.predictive_check` returned.
        path: the file.

    Raises:
        InputError: it cannot be written.
    """
    target = Path(path)
    packed = {f"/{name}": {v: {"zlib": True} for v in ("x",) if v in group} for name, group in tree.children.items()}
    with naming_unwritable(target), write_atomically(target) as fresh:
        tree.to_netcdf(fresh, engine="h5netcdf", encoding={name: how for name, how in packed.items() if how})
    return target


def read(path: str | Path) -> "xr.DataTree":
    """Read a tree back into memory.

    Raises:
        InputError: there is no such file, or it is no NetCDF.
    """
    import xarray as xr

    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            return opened.load()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as NetCDF: {error}") from error


def _as_variables(features: Sequence[str]) -> list[str]:
    """Names that variables may have: each once, none of a dimension, no slash, which parts groups in NetCDF."""
    found: list[str] = []
    for name in features:
        one = name.replace("/", "|") or "x"
        while one in TAKEN or one in found:
            one += "_"
        found.append(one)
    return found
