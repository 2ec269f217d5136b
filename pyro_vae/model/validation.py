"""Checks of data against a declaration, made once before the first step and never in a loop."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.distributions.constraints import any_element, element_of

if TYPE_CHECKING:
    from pyro_vae.families.conditional import Conditional


def check_batch(batch: Mapping[str, Any], event_shape: tuple[int, ...], likelihood: "Conditional") -> None:
    """Check the rows of a batch against a declaration.

    Args:
        batch: named tensors with x, (N, *event_shape).
        event_shape: the declared shape of one row.
        likelihood: the conditional whose support x has to lie in.

    Raises:
        InputError: the first fault, its position, and how to correct it.
    """
    x, mask, size = batch.get("x"), batch.get("mask"), batch.get("size_factor")
    if not isinstance(x, Tensor):
        raise InputError(f"x has to be a tensor, not {type(x).__name__}: give torch.as_tensor(x).")
    check_shape(x, event_shape)
    if size is not None:
        check_size(size, len(x))
    if mask is not None:
        check_mask(mask, x)
        likelihood.dummy_distribution(mask=torch.ones_like(mask[:1]))  # raises for families without masks
        x = torch.where(mask, x, any_element(likelihood.support))
    check_finite(x)
    check_support(x, likelihood, {} if size is None else {"size_factor": size})


def check_mask(mask: Any, x: Tensor) -> None:
    """Refuse a mask that is not a bool tensor of the shape of x, or is false everywhere."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = str(mask.dtype).removeprefix("torch.") if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(
            f"mask is {kind}, and has to be a bool tensor, true where x is observed: give mask.bool(), or "
            "~torch.isnan(x)."
        )
    if mask.shape != x.shape:
        raise InputError(f"mask has shape {tuple(mask.shape)}, and x has {tuple(x.shape)}: give one value for each.")
    if not bool(mask.any()):
        raise InputError("mask leaves out every value of x: it has to be true where x is observed.")


def check_size(size: Any, rows: int) -> None:
    """Refuse a size factor that is not one positive number per row."""
    if not isinstance(size, Tensor) or size.shape != (rows,):
        shape = tuple(size.shape) if isinstance(size, Tensor) else type(size).__name__
        raise InputError(f"size_factor has to be one number per row, shape ({rows},), and is {shape}.")
    wrong = ~(torch.isfinite(size) & (size > 0))
    if bool(wrong.any()):
        where, value, count = _first(size, wrong)
        raise InputError(
            f"size_factor[{where}] = {value}, and {count} of {rows} are not positive: a row without counts has no size "
            "factor, so drop it."
        )


def impute(x: Tensor, mask: Tensor, otherwise: float) -> Tensor:
    """Rows with observed values of the same element, in turn, where the mask is false: the distribution is kept.

    Args:
        x: rows (N, *event).
        mask: (N, *event), true where x is observed.
        otherwise: the value for an element without any observed value.

    >>> x, mask = torch.tensor([1.0, math.nan, 3.0, math.nan]), torch.tensor([True, False, True, False])
    >>> impute(x, mask, 0.0)
    tensor([1., 1., 3., 3.])
    """
    observed_first = torch.argsort((~mask).to(torch.uint8), dim=0, stable=True)
    counts = mask.sum(0)
    turn = ((~mask).cumsum(0) - 1).clamp(min=0) % counts.clamp(min=1)  # the first gap gets the first value
    others = x.gather(0, observed_first.gather(0, turn))
    return torch.where(mask, x, torch.where(counts > 0, others, otherwise))


def check_shape(x: Tensor, event_shape: tuple[int, ...]) -> None:
    """Refuse complex values, rows of another shape than declared, and no rows."""
    if x.is_complex():
        raise InputError("x is complex; families describe real numbers: split it with torch.view_as_real(x).")
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
    """Refuse NaN and infinite values, with the position of the first."""
    if not x.is_floating_point():
        return
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        where, value, count = _first(x, ~finite)
        raise InputError(
            f"x[{where}] is {value}, and {count} of {x.numel()} values are not finite: drop those rows with "
            "x = x[torch.isfinite(x).flatten(1).all(1)], or give {'x': x, 'mask': torch.isfinite(x)}."
        )


def check_support(x: Tensor, likelihood: "Conditional", given: Mapping[str, Tensor]) -> None:
    """Refuse values outside the likelihood's support, with the position of the first."""
    family = likelihood.family
    element = element_of(family.data_support or likelihood.dummy_distribution(**given).support)
    inside = element.check(x)
    if not bool(inside.all()):
        where, value, count = _first(x, ~inside)
        total = f"{inside.numel()} vectors" if element.event_dim else f"{x.numel()} values"
        hint = family.fix_hint or "take a family whose support holds it, such as Normal(scale='learned')"
        raise InputError(
            f"x[{where}] = {value} lies outside of the support of {family!r} ({count} of {total} do): {hint}."
        )


def _first(x: Tensor, wrong: Tensor) -> tuple[str, str, int]:
    """Position of the first wrong number or vector, its value, and the number of wrong ones."""
    flat = wrong.reshape(-1)
    position = int(flat.to(torch.uint8).argmax())
    index = torch.unravel_index(torch.tensor(position), wrong.shape)
    value = x[tuple(int(i) for i in index)]
    numbers = [str(round(float(number), 6)) for number in value.flatten()[:6]]
    text = f"[{', '.join(numbers)}{', ...' if value.numel() > 6 else ''}]" if value.ndim else numbers[0]
    return _join(tuple(int(i) for i in index)), text, int(flat.sum())


def _join(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
