"""The arguments of a VAE, checked, with defaults filled in."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from pyro_vae.core.calls import check_kind
from pyro_vae.core.errors import InputError, abbreviated_repr, check_integers, is_integer
from pyro_vae.families.base import Family
from pyro_vae.families.site import Shape
from pyro_vae.networks import MLP, Conv, Network

CHANNELS = (1, 3, 4)
"""Usual numbers of channels of an image."""


@dataclass(frozen=True)
class Declaration:
    """The arguments of a `VAE`, with defaults filled in."""

    event_shape: Shape
    latent_dim: int
    prior: Family
    likelihood: Family
    guide: Family
    encoder: Network | nn.Module
    decoder: Network | nn.Module

    @classmethod
    def of(
        cls, event_shape: Any, latent_dim: Any, prior: Any, likelihood: Any, guide: Any, encoder: Any, decoder: Any
    ) -> "Declaration":
        """Declaration of the arguments of a `VAE`.

        Raises:
            InputError: one has a wrong type or value.
        """
        event_shape, latent_dim = check_declared_shapes(event_shape, latent_dim)
        for role, family in (("prior", prior), ("likelihood", likelihood), ("guide", guide)):
            check_kind(role, family, Family, "pv.Normal()")
        for role, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, nn.Module | None):
                check_kind(role, network, Network, _example_network(network), " or a torch.nn.Module")
        _check_channels(event_shape, encoder)
        encoder = encoder if encoder is not None else (Conv() if len(event_shape) == 3 else MLP())
        if decoder is None:
            if not isinstance(encoder, Network):
                raise InputError(
                    "an encoder of your own has no mirror image as decoder: give decoder=, a torch.nn.Module or a "
                    "declared network such as pv.MLP(hidden=(400,))."
                )
            decoder = encoder.mirror()
        return cls(event_shape, latent_dim, prior, likelihood, guide, encoder, decoder)


def check_declared_shapes(event_shape: Any, latent_dim: Any) -> tuple[tuple[int, ...], int]:
    """The shape of a row and the number of latents as Python's integers, refused where they are none."""
    sizes = event_shape if isinstance(event_shape, tuple | list) else (None,)
    if not all(is_integer(size) and size > 0 for size in sizes):
        if (shape := _shape_of_data(event_shape)) is not None:
            raise InputError(
                f"event_shape is data of shape {shape}, and a model is declared by the shape of one row: write "
                f"event_shape={shape[1:]}, and give the data to pv.fit(vae, x)."
            )
        is_size = is_integer(event_shape) and event_shape > 0
        fix = f": write event_shape=({event_shape},)" if is_size else ", such as (4,)"
        is_plain = isinstance(event_shape, tuple | list | str | int | float | None)
        shown = abbreviated_repr(event_shape) if is_plain else f"a {type(event_shape).__name__}"
        raise InputError(
            f"event_shape = {shown} has to be a tuple of positive integers{fix} for a vector, (1, 28, 28) for an "
            "image, () for a number."
        )
    check_integers(latent_dim=(latent_dim, 1))
    return tuple(int(size) for size in sizes), int(latent_dim)


def _shape_of_data(given: Any) -> tuple[int, ...] | None:
    """Shape of data that were given for the shape of a row; None where they are not data."""
    if isinstance(given, Mapping) and "x" in given:
        given = given["x"]
    if isinstance(given, list | tuple) and any(not is_integer(one) for one in given):
        try:
            given = np.asarray(given)
        except (ValueError, RuntimeError):  # rows differ in shape
            return None
        if given.dtype.kind not in "biuf" or given.ndim < 2:
            return None
    shape = getattr(given, "shape", ())
    return tuple(map(int, shape)) or None


def _example_network(given: Any) -> str:
    """Declaration of a network, as it is written, that is near to what was given in its place."""
    sizes = given if isinstance(given, list | tuple) else (given,)
    if all(is_integer(size) and size > 0 for size in sizes) and sizes:
        return f"pv.MLP(hidden=({', '.join(map(str, sizes))}{',' * (len(sizes) == 1)}))"
    return "pv.MLP(hidden=(400,))"


def _check_channels(event_shape: Shape, encoder: Any) -> None:
    """Refuse images whose channels come last under the default network, and warn under a declared one."""
    if len(event_shape) != 3 or not isinstance(encoder, Conv | None):
        return
    height, width, channels = event_shape
    if channels not in CHANNELS or height in CHANNELS or min(height, width) <= max(CHANNELS):
        return
    advice = (
        f"event_shape = {event_shape} has its channels last, and Conv takes them first: write event_shape="
        f"{(channels, height, width)}, and give the data as x.permute(0, 3, 1, 2)"
    )
    if encoder is None:
        raise InputError(f"{advice}; encoder=pv.Conv() takes {height} channels.")
    warnings.warn(f"{advice}.", stacklevel=5)
