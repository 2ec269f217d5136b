"""Arrays of the tree that `pv.predictive_check` returns, in the form that figures need."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.sampler import KINDS
from pyro_vae.data.images import is_image

if TYPE_CHECKING:
    from xarray import Dataset, DataTree

Numbers = NDArray[Any]


def group(tree: "DataTree", name: str) -> "Dataset":
    """One group of a predictive check's tree.

    Raises:
        InputError: this is no such tree, or it lacks the group.
    """
    children = getattr(tree, "children", None)
    if children is None or "kind" not in getattr(tree, "attrs", {}):
        raise InputError(
            f"this picture takes what a predictive check returned, not a {type(tree).__name__}: write "
            "tree = pv.predictive_check(vae, x)."
        )
    if name not in children:
        remedy = "two_sample=True" if name == "two_sample" else 'kind="population"'
        raise InputError(
            f"the tree has no /{name}, it has {', '.join(children)}: write pv.predictive_check(vae, x, {remedy})."
        )
    return children[name].to_dataset()


def kind_of(tree: "DataTree") -> str:
    """What the replicates are, as the beginning of a sentence."""
    kind = tree.attrs["kind"]
    return f"{kind.capitalize()} replicates: {KINDS[kind]}"


def shape_of(tree: "DataTree") -> tuple[int, ...]:
    """The shape of an event."""
    group(tree, "observed_data")
    return tuple(json.loads(tree.attrs["event_shape"]))


def across_chains(values: Any) -> Numbers:
    """A variable with its chains and draws as one first dimension."""
    ordered = values.transpose("chain", "draw", ...).to_numpy()
    return ordered.reshape(-1, *ordered.shape[2:])


@dataclass(frozen=True, eq=False)
class Events:
    """The rows of data that a check kept, and their replicates.

    Args:
        rows: the number of each row, (N,).
        observed: the data, (N, *event).
        replicates: draws of them, (S, N, *event).
        discrete: whether values are whole numbers.
        names: what each of the P elements of an event is called.
    """

    rows: Numbers
    observed: Numbers
    replicates: Numbers
    discrete: bool
    names: tuple[str, ...]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of an event."""
        return self.observed.shape[1:]

    @property
    def image(self) -> bool:
        """Whether events can be looked at."""
        return is_image(self.event_shape)

    @property
    def columns(self) -> Numbers:
        """The data, one column for each element of an event, (N, P)."""
        return self.observed.reshape(len(self.observed), -1)

    @property
    def replicated_columns(self) -> Numbers:
        """The replicates likewise, (S, N, P)."""
        return self.replicates.reshape(*self.replicates.shape[:2], -1)

    @cached_property
    def binary(self) -> bool:
        """Whether all values are 0 or 1."""
        return self.discrete and all(bool(np.isin(x, (0, 1)).all()) for x in (self.observed, self.replicates))


def events(tree: "DataTree") -> Events:
    """The rows that a check kept, in the shape of events again.

    Raises:
        InputError: this is no tree of a predictive check.
    """
    shape = shape_of(tree)
    data = group(tree, "observed_data")
    drawn = group(tree, "prior_predictive" if tree.attrs["kind"] == "prior" else "posterior_predictive")
    discrete = tree.attrs["discrete"] == "true"
    names = tuple(map(str, data.data_vars))
    if "element" in data.dims:
        observed = data[names[0]].to_numpy().reshape(-1, *shape)
        replicates = across_chains(drawn[names[0]])
        rows = data["row"].to_numpy().reshape(len(observed), -1)[:, 0]
        names = tuple(f"x[{', '.join(map(str, at))}]" for at in np.ndindex(*shape))
    else:
        observed = np.stack([data[name].to_numpy() for name in names], axis=-1).reshape(-1, *shape)
        replicates = np.stack([across_chains(drawn[name]) for name in names], axis=-1)
        rows = data["row"].to_numpy()
    if "calibration" in tree.children and len(known := feature_names(tree)) == len(names):
        names = known  # those of variables may not have every character
    return Events(rows, observed, replicates.reshape(-1, *observed.shape), discrete, names)


def feature_names(tree: "DataTree") -> tuple[str, ...]:
    """What each element of an event is called."""
    return tuple(map(str, group(tree, "calibration")["feature"].to_numpy()))


def as_maps(values: Numbers, event_shape: tuple[int, ...]) -> tuple[Numbers, tuple[str, ...]]:
    """One number for each pixel as maps (C, H, W), and what each channel is called."""
    channels = values.reshape((1, *event_shape) if len(event_shape) == 2 else event_shape)
    return channels, tuple(f"channel {i}" for i in range(len(channels))) if len(channels) > 1 else ("",)
