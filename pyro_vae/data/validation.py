"""Data is checked once, before the first step; nothing is checked inside a loop."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.errors import InputError

if TYPE_CHECKING:
    from pyro_vae.conditional import Conditional


def check_batch(batch: Mapping[str, Any], event_shape: tuple[int, ...], likelihood: "Conditional") -> None:
    """Check the rows of a batch against a declaration.

    Args:
        batch: named tensors with x, (N, *event_shape).
        event_shape: the declared shape of one row.
        likelihood: the conditional whose support x has to lie in.

    Raises:
        InputError: the first thing that is wrong, where it is, and how to mend it.
    """
    x = batch.get("x")
    if not isinstance(x, Tensor):
        raise InputError(f"x has to be a tensor, and is {type(x).__name__}: give torch.as_tensor(x).")
    check_shape(x, event_shape)
    check_finite(x)
    check_support(x, likelihood)


def check_shape(x: Tensor, event_shape: tuple[int, ...]) -> None:
    """Refuse rows of another shape than declared, and no rows at all."""
    if x.is_complex():
        raise InputError("x is complex; a family here describes real numbers: split it with torch.view_as_real(x).")
    if tuple(x.shape[1:]) != event_shape or x.ndim == 0:
        fix = f"declare VAE(event_shape={tuple(x.shape[1:])}, ...)"
        if x.ndim and x.shape[0] and x[0].numel() == math.prod(event_shape):
            fix = f"give x.reshape{(-1, *event_shape)}"
        elif x.ndim == len(event_shape) and tuple(x.shape) == event_shape:
            fix = "give x[None], one row of that shape"
        raise InputError(f"x has shape {tuple(x.shape)}, and this VAE wants (N, {_join(event_shape)}): {fix}.")
    if x.shape[0] == 0:
        raise InputError(f"x has no rows: its shape is {tuple(x.shape)}.")


def check_finite(x: Tensor) -> None:
    """Refuse NaN and infinity, naming the first."""
    if not x.is_floating_point():
        return
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        where, value, count = _first(x, ~finite)
        raise InputError(
            f"x[{where}] is {value}, and {count} of {x.numel()} values are not finite: drop those rows with "
            "x = x[torch.isfinite(x).flatten(1).all(1)], or fill them in."
        )


def check_support(x: Tensor, likelihood: "Conditional") -> None:
    """Refuse values that the likelihood gives no probability, naming the first."""
    support: Any = likelihood.support
    element = support
    while hasattr(element, "base_constraint"):
        element = element.base_constraint
    inside = element.check(x)
    if not bool(inside.all()):
        family = likelihood.family
        where, value, count = _first(x, ~inside)
        remedy = family.remedy or "take a family whose support holds it, such as Normal(scale='learned')"
        raise InputError(
            f"x[{where}] = {value} lies outside of the support of {family!r} ({count} of {x.numel()} values do): "
            f"{remedy}."
        )


def _first(x: Tensor, wrong: Tensor) -> tuple[str, float, int]:
    flat = wrong.reshape(-1)
    position = int(flat.to(torch.uint8).argmax())
    index = torch.unravel_index(torch.tensor(position), wrong.shape)
    value = x[tuple(int(i) for i in index)]
    return _join(tuple(int(i) for i in index)), round(float(value.flatten()[0]), 6), int(flat.sum())


def _join(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
