"""Arrays of the tree that `pv.predictive_check` returns, in the form that figures need."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray import Dataset, DataTree

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.sampler import KINDS
from pyro_vae.data.images import is_image

Numbers = NDArray[Any]


def group(tree: DataTree, name: str) -> Dataset:
    """Group of a predictive check's tree.

    Raises:
        InputError: not such a tree, or one without the group.
    """
    children = getattr(tree, "children", None)
    if children is None or "kind" not in getattr(tree, "attrs", {}):
        raise InputError(
            f"this picture takes the tree of a predictive check, not a {type(tree).__name__}: write "
            "tree = pv.predictive_check(vae, x)."
        )
    if name not in children:
        remedy = "two_sample=True" if name == "two_sample" else 'kind="population"'
        raise InputError(
            f"the tree has no /{name}, it has {', '.join(children)}: write pv.predictive_check(vae, x, {remedy})."
        )
    return children[name].to_dataset()


def describe_kind(tree: DataTree) -> str:
    """Description of the replicates, as the beginning of a sentence."""
    kind = tree.attrs["kind"]
    return f"{kind.capitalize()} replicates: {KINDS[kind]}"


def event_shape(tree: DataTree) -> tuple[int, ...]:
    """Shape of an event."""
    group(tree, "observed_data")
    return tuple(json.loads(tree.attrs["event_shape"]))


def stack_draws(values: Any) -> Numbers:
    """Values of a variable, with chains and draws as one first dimension."""
    ordered = values.transpose("chain", "draw", ...).to_numpy()
    return ordered.reshape(-1, *ordered.shape[2:])


@dataclass(frozen=True, eq=False)
class Events:
    """Rows of data that a check kept, and their replicates.

    Args:
        rows: the number of each row, (N,).
        observed: the data, (N, *event).
        replicates: draws of them, (S, N, *event).
        discrete: whether values are integers.
        names: the names of the P elements of an event.
    """

    rows: Numbers
    observed: Numbers
    replicates: Numbers
    discrete: bool
    names: tuple[str, ...]

    @property
    def image(self) -> bool:
        """Whether events are images."""
        return is_image(self.observed.shape[1:])

    @property
    def columns(self) -> Numbers:
        """Data by element of an event, (N, P)."""
        return self.observed.reshape(len(self.observed), -1)

    @property
    def replicated_columns(self) -> Numbers:
        """Replicates by element of an event, (S, N, P)."""
        return self.replicates.reshape(*self.replicates.shape[:2], -1)

    @cached_property
    def binary(self) -> bool:
        """Whether all values are 0 or 1."""
        return self.discrete and all(bool(np.isin(x, (0, 1)).all()) for x in (self.observed, self.replicates))


def events(tree: DataTree) -> Events:
    """Rows that a check kept, in the shape of events.

    Raises:
        InputError: not the tree of a predictive check.
    """
    shape, data = event_shape(tree), group(tree, "observed_data")
    drawn = group(tree, "prior_predictive" if tree.attrs["kind"] == "prior" else "posterior_predictive")
    # One variable holds all elements of all rows, or each element has one.
    observed = np.stack([data[name].to_numpy() for name in data.data_vars], axis=-1).reshape(-1, *shape)
    replicates = np.stack([stack_draws(drawn[name]) for name in data.data_vars], axis=-1)
    rows = data["row"].to_numpy().reshape(len(observed), -1)[:, 0]
    names = tuple(map(str, group(tree, "calibration")["feature"].to_numpy()))
    discrete = tree.attrs["discrete"] == "true"
    return Events(rows, observed, replicates.reshape(-1, *observed.shape), discrete, names)


def as_maps(values: Numbers, shape: tuple[int, ...]) -> tuple[Numbers, tuple[str, ...]]:
    """Numbers of pixels as maps (C, H, W) of events of a shape, and the names of the channels."""
    channels = values.reshape((1, *shape) if len(shape) == 2 else shape)
    return channels, tuple(f"channel {i}" for i in range(len(channels))) if len(channels) > 1 else ("",)
