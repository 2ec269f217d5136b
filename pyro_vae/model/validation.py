"""Checks of data against a declaration, made once before the first step and never in a loop."""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae.core.calls import REMARKS, CallError
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.core.libraries import array_expression, library_of
from pyro_vae.distributions.constraints import any_element, describe, element_of, supports_equal

if TYPE_CHECKING:
    from pyro_vae.families.base import Family
    from pyro_vae.families.conditional import Conditional


LARGEST_RATE = 5e7
"""Counts in a unit of size up to which a rate, below 1e8, can follow them."""


def check_batch(batch: Mapping[str, Any], event_shape: tuple[int, ...], likelihood: "Conditional") -> None:
    """Check the rows of a batch against a declaration.

    Args:
        batch: named tensors with x, (N, *event_shape).
        event_shape: the declared shape of one row.
        likelihood: the conditional whose support x has to lie in.

    Raises:
        InputError: the first fault, its position, and how to correct it.
    """
    from pyro_vae.data.convert import as_tensor, check_has_x  # here, for they import what reads data

    check_has_x(batch, "the batch")
    batch = {name: as_tensor(name, values) for name, values in batch.items()}
    x, mask, size = batch["x"], batch.get("mask"), batch.get("size_factor")
    check_shape(x, event_shape)
    if size is not None:
        check_size(size, len(x))
    library = library_of(x)
    if mask is not None:
        check_mask(mask, x)
        likelihood.dummy_distribution(mask=torch.ones_like(mask[:1]))  # raises for families without masks
        x = torch.where(mask, x, any_element(likelihood.support))
    if not is_finite(x):
        mended = _mend_nonfinite(x, library, "mask" in batch, len(batch) > 1, _takes_mask(likelihood))
        check_finite(x, fix=mended)
    check_support(x, likelihood, {} if size is None else {"size_factor": size})


def check_pairing(declared: Any, prior: TorchDistribution, posterior: TorchDistribution) -> None:
    """Check that a guide has the support of the prior.

    Args:
        declared: the declaration, with `prior` and `guide`.
        prior: a distribution of that prior.
        posterior: a distribution of that guide.

    Raises:
        InputError: the supports differ, or the prior has point masses.
    """
    if declared.prior.has_point_masses:
        raise InputError(
            f"prior={declared.prior!r} has point masses, which no continuous guide can match: take one without, "
            "such as prior=pv.Truncated(pv.Normal(0, 1)) with guide=pv.Truncated()."
        )
    if not supports_equal(prior.support, posterior.support):
        raise InputError(
            f"guide={declared.guide!r} has support {describe(posterior.support)} and prior={declared.prior!r} has "
            f"{describe(prior.support)}: under the guide the prior's density would be undefined, or part of the "
            "prior never drawn. Take a pair over the same set, such as prior=pv.Normal(0, 1), guide=pv.Normal()."
        )


def warn_without_size(trained_with: Sequence[str], given: Mapping[str, Any]) -> None:
    """Warn where a model that was fitted with `size_factor` is used without."""
    if "size_factor" in trained_with and given.get("size_factor") is None:
        warnings.warn(
            "this model was fitted with size_factor and is used without, as if each row had size 1: give "
            "size_factor=, or {'x': x, 'size_factor': size} as rows.",
            stacklevel=3,
        )


def check_names(given: Mapping[str, Any], optional: Sequence[str], likelihood: "Family") -> None:
    """Check the names of tensors that are given beside x.

    Raises:
        InputError: a model with this likelihood takes none of that name.
    """
    for name in given:
        if name == "size_factor" and name not in optional:
            raise InputError(
                f"size_factor is given, and {likelihood!r} has no size to multiply: leave it out, "
                "or take a family of counts, such as likelihood=pv.NegativeBinomial()."
            )
        if name in REMARKS and name not in optional:
            raise CallError(f"unknown keyword {name!r}: {REMARKS[name]}.")
        if name not in optional:
            raise CallError(str(unknown_name_error("tensor of the batch", name, ["x", *optional])))


def check_mask(mask: Any, x: Tensor) -> None:
    """Refuse a mask that is not a bool tensor of the shape of x, or is false everywhere."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = str(mask.dtype).removeprefix("torch.") if isinstance(mask, Tensor) else type(mask).__name__
        by_library = {"torch": "mask.bool()", "list": "numpy.asarray(mask, dtype=bool)"}
        raise InputError(
            f"mask is {kind}, and has to be a bool tensor, true where x is observed: give "
            f"{by_library.get(library_of(mask), 'mask.astype(bool)')}, or {_observed(library_of(x))}."
        )
    if mask.shape != x.shape:
        raise InputError(f"mask has shape {tuple(mask.shape)}, and x has {tuple(x.shape)}: give one value for each.")
    if not bool(mask.any()):
        raise InputError("mask leaves out every value of x: it has to be true where x is observed.")


def check_size(size: Any, rows: int) -> None:
    """Refuse a size factor that is not one positive number per row."""
    if not isinstance(size, Tensor) or size.shape != (rows,):
        shape = tuple(size.shape) if isinstance(size, Tensor) else type(size).__name__
        column = isinstance(size, Tensor) and size.numel() == rows
        fix = f": give {array_expression('size_factor', library_of(size))}.reshape(-1)" if column else ""
        raise InputError(f"size_factor has to be one number per row, shape ({rows},), and is {shape}{fix}.")
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
        fix = _mend_shape(x, event_shape) or f"declare VAE(event_shape={tuple(x.shape[1:])}, ...)"
        raise InputError(f"x has shape {tuple(x.shape)}, and this VAE wants (N, {_join(event_shape)}): {fix}.")
    if x.shape[0] == 0:
        raise InputError(f"x has no rows: its shape is {tuple(x.shape)}.")


def _mend_shape(x: Tensor, event_shape: tuple[int, ...]) -> str:
    """Advice that gives x the declared shape and leaves every value at its place; empty where none is sure to."""
    library, shape, rank = library_of(x), tuple(x.shape), len(event_shape)
    array = array_expression("x", library)
    if shape == event_shape:
        return f"give {array}[None], one row of that shape"
    row = shape[1:]
    if [size for size in row if size != 1] == [size for size in event_shape if size != 1] and shape:
        return f"give {array}.reshape{(-1, *event_shape)}"
    if rank > 1 and len(row) == 1 and row[0] == math.prod(event_shape):
        flat = f"give {array}.reshape{(-1, *event_shape)}"
        if rank < 3 or event_shape[0] == 1:
            return flat
        last = (-1, *event_shape[1:], event_shape[0])
        return f"{flat}, or, where the channels come last, {_permute(f'{array}.reshape{last}', library, (0, 3, 1, 2))}"
    if rank == 1 and x.ndim > 2 and shape[0] and math.prod(row) == event_shape[0]:
        return f"give {array}.reshape(len(x), -1)"
    if x.ndim == rank + 1:
        orders = itertools.permutations(range(1, rank + 1))
        first = [(0, rank, *range(1, rank))] if rank > 1 else []  # channels last
        for order in (*first, *((0, *order) for order in orders), (rank, *range(rank))):
            if tuple(shape[axis] for axis in order[1:]) == event_shape:
                if order == (1, 0):
                    return "give x.T" if library != "list" else f"give {array}.T"
                return f"give {_permute(array, library, order)}"
    return ""


def _permute(array: str, library: str, order: tuple[int, ...]) -> str:
    if library != "torch":
        return f"{array}.transpose{order}"
    return f"{array}.transpose(1, 2)" if order == (0, 2, 1) else f"{array}.permute{order}"


def is_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return not x.is_floating_point() or bool(torch.isfinite(x).all())


def check_finite(x: Tensor, name: str = "x", *, fix: str = "drop them") -> None:
    """Refuse NaN and infinite values, with the position of the first, and how to mend it."""
    if not is_finite(x):
        wrong = ~torch.isfinite(x)
        where, value, count = _first(x, wrong)
        overflow = x.dtype == torch.float16 and bool(torch.isinf(x).any())
        cause = " (float16 ends at 65,504: take float32 before values become float16)" if overflow else ""
        raise InputError(f"{name}[{where}] is {value}, and {count} of {x.numel()} values are not finite{cause}: {fix}.")


def _observed(library: str) -> str:
    """Python of a mask of the values of x that are not missing."""
    return {"torch": "~torch.isnan(x)", "pandas": "x.notna()"}.get(library, "~numpy.isnan(x)")


def _mend_nonfinite(x: Tensor, library: str, masked: bool, accompanied: bool, takes_mask: bool) -> str:
    """Advice on x with values that are not finite, in the words of the library it was given in.

    Args:
        x: the rows.
        library: of `library_of`.
        masked: whether there is a mask already.
        accompanied: whether other tensors of these rows are given, which would have to lose the same rows.
        takes_mask: whether the likelihood's family can leave elements out.
    """
    array, finite = array_expression("x", library), {"torch": "torch.isfinite(x)"}.get(library, "numpy.isfinite(x)")
    if library == "pandas" and not bool(torch.isinf(x).any()):
        finite = "x.notna()"
    rows = f"{array_expression(finite, library) if library == 'pandas' else finite}.reshape(len(x), -1).all(1)"
    dropped = f"drop those rows with x = {'x' if library == 'pandas' else array}[{rows}]"
    if accompanied:
        dropped = f"drop those rows of all tensors, name[{rows}]"
    if not takes_mask:
        return dropped
    return f"{dropped}, or give {{'x': x, 'mask': {'mask & ' * masked}{finite}}}"


def _takes_mask(likelihood: "Conditional") -> bool:
    try:
        likelihood.dummy_distribution(mask=torch.ones(1, *likelihood.site.event_shape, dtype=torch.bool))
    except InputError:
        return False
    return True


def check_support(x: Tensor, likelihood: "Conditional", given: Mapping[str, Tensor]) -> None:
    """Refuse values outside the likelihood's support, with the position of the first."""
    family = likelihood.family
    element = element_of(family.data_support or likelihood.dummy_distribution(**given).support)
    if family.is_count:
        check_counts(x, likelihood.row_type)
        if (size := given.get("size_factor")) is not None:
            check_rates(x, size)
    inside = element.check(x)
    if not bool(inside.all()):
        where, value, count = _first(x, ~inside)
        total = f"{inside.numel()} vectors" if element.event_dim else f"{x.numel()} values"
        hint = family.fix_hint or "take a family whose support holds it, such as Normal(scale='learned')"
        raise InputError(
            f"x[{where}] = {value} lies outside of the support of {family!r} ({count} of {total} do): {hint}."
        )


def check_counts(x: Tensor, dtype: torch.dtype) -> None:
    """Refuse counts so large that a floating type skips integers, or that no rate is as large."""
    exact = (2**24, "float32 skips integers")
    limit, beyond = exact if dtype == torch.float32 else (LARGEST_RATE, "no rate follows it")
    wrong = x > limit
    if bool(wrong.any()):
        where, value, count = _first(x, wrong)
        wider = "`vae.double()`, or " if dtype == torch.float32 and float(x.max()) <= LARGEST_RATE else ""
        raise InputError(
            f"x[{where}] = {value} is a count above {limit:,.0f}, beyond which {beyond} ({count} of {x.numel()} "
            f"values are): take {wider}a family of real numbers, `likelihood=pv.Normal()`, since so large "
            "counts have no steps that matter."
        )


def check_rates(x: Tensor, size: Tensor) -> None:
    """Refuse size factors so small that no rate, in counts per unit of size, is as large as their rows need."""
    rates = x.double().reshape(len(x), -1).amax(1) / size
    if bool((rates > LARGEST_RATE).any()):
        row = int(rates.argmax())
        raise InputError(
            f"size_factor[{row}] = {float(size[row]):.3g}, and x[{row}] has counts up to {float(x[row].max()):,.0f}: "
            f"{float(rates[row]):.3g} in a unit of size, and rates reach {LARGEST_RATE:.0e}. Give sizes of about 1, "
            "`x.sum(1) / x.sum(1).mean()`."
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
