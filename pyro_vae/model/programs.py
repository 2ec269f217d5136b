"""Pairs of Pyro programs: the protocol of all that can be fitted or criticised, their traits, modules and tensors."""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import seeded
from pyro_vae.networks.base import evaluating


@runtime_checkable
class Programs(Protocol):
    """A model and a guide: two Pyro programs that take a batch of named tensors by keyword."""

    @property
    def model(self) -> Callable[..., Any]:
        """Generative program."""

    @property
    def guide(self) -> Callable[..., Any]:
        """Program of the approximate posterior."""


@dataclass(frozen=True)
class Traits:
    """Optional attributes of a pair, with a default for each that it lacks.

    Args:
        caveat: a note on its log-likelihood; empty for a density.
        is_pixel: whether rows are levels of pixels, so that bits per dimension have a meaning.
        trained_on: the fingerprint of the rows that it was fitted to.
        feature_names: the names of the columns that it was fitted to; empty for data without.
        trained_with: the names of the tensors of a batch that it was fitted to.
        row_type: the floating type in which it takes rows, where that may be another one than that of its weights.
        row_type_for: gives the row type that starting values from rows x will have.
        check: raises an `InputError` for a batch that cannot be used.
        initialize: starts the weights at a batch, given by keyword.
        no_param_store: a block that leaves Pyro's parameter store as it was.
    """

    caveat: str = ""
    is_pixel: bool = False
    trained_on: str | None = None
    feature_names: Sequence[str] = ()
    trained_with: Sequence[str] = ()
    row_type: torch.dtype | None = None
    row_type_for: Callable[[Tensor], torch.dtype] | None = None
    check: Callable[[dict[str, Any]], None] | None = None
    initialize: Callable[..., Any] | None = None
    no_param_store: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    @classmethod
    def of(cls, programs: Programs) -> "Traits":
        """Traits of a pair."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: getattr(programs, name) for name in names if hasattr(programs, name)})


def check_programs(given: Any, what: str) -> None:
    """Refuse an object that is not a pair of programs.

    Args:
        given: the argument of a user.
        what: the name of the function that got it.

    Raises:
        InputError: it has no `model` or no `guide`.
    """
    if isinstance(given, Programs) and not isinstance(given, type):
        return
    name = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
    fix = ""
    if isinstance(given, type):
        fix = ": make a model of it, such as vae = pv.VAE(event_shape=(3,), latent_dim=2)"
    elif isinstance(given, str | Path):
        fix = f": a model that is in a run folder is loaded by pv.load({str(given)!r})"
    elif hasattr(given, "stopped") and hasattr(given, "last"):
        fix = ": pv.fit trains the model in place and returns its history, so give the model"
    elif hasattr(given, "shape") or isinstance(given, Mapping | list | tuple):
        fix = f": the model comes first, and then the data, {what}(vae, x)"
    raise InputError(f"{what} takes an object with .model and .guide, two Pyro programs, not {name}{fix}.")


def check_arguments(programs: Programs, names: Iterable[str]) -> None:
    """Check that both programs take the tensors of a batch, which they get by keyword.

    Raises:
        InputError: one takes a tensor by another name, or needs one that is not there.
    """
    names = list(names)
    for role in ("model", "guide"):
        try:
            parameters = inspect.signature(getattr(programs, role)).parameters.values()
        except (TypeError, ValueError):
            continue
        if any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in parameters):
            continue
        known = [one.name for one in parameters]
        needed = [one.name for one in parameters if one.default is one.empty]
        unknown = [name for name in names if name not in known]
        missing = [name for name in needed if name not in names]
        if unknown and missing:
            raise InputError(
                f"the {role} takes {', '.join(known)}, and a batch has {', '.join(names)}, given by keyword: rename "
                f"its argument {missing[0]!r} to {unknown[0]!r}."
            )
        if unknown:
            raise InputError(
                f"the {role} takes {', '.join(known) or 'nothing'}, and a batch has {unknown[0]!r}, given by keyword: "
                f"add {unknown[0]}=None to its arguments, or leave the tensor out."
            )
        if missing:
            raise InputError(
                f"the {role} needs {missing[0]!r}, and a batch has {', '.join(names)}: give it with the data, "
                f"{{'x': x, {missing[0]!r}: {missing[0]}}}."
            )


def remember_data(programs: Programs, feature_names: Sequence[str], trained_with: Sequence[str]) -> None:
    """Keep with a pair the names of the columns and tensors that it is fitted to; see `Traits`."""
    with contextlib.suppress(AttributeError):  # of objects that take no further attributes
        for name, value in (("feature_names", tuple(feature_names)), ("trained_with", tuple(trained_with))):
            setattr(programs, name, value)


def as_module(programs: Programs) -> nn.Module:
    """Module with the weights of a pair: the pair itself, or a module that holds those among its attributes."""
    if isinstance(programs, nn.Module):
        return programs
    holder = nn.Module()
    for name, part in {"model": programs.model, "guide": programs.guide, **getattr(programs, "__dict__", {})}.items():
        if isinstance(part, nn.Module):
            holder.add_module(name, part)
    return holder


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers of a module by name, shared ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def reference_tensor(module: nn.Module) -> Tensor:
    """First floating tensor of a module, for its device and type; a scalar on the CPU where there is none."""
    held = chain(module.parameters(), module.buffers())
    return next((tensor for tensor in held if tensor.is_floating_point()), torch.zeros(()))


@contextlib.contextmanager
def evaluation(programs: Programs, seed: int) -> Iterator[None]:
    """Block in which programs are evaluated; after it their modes, Pyro's store and all random states are as before.

    Args:
        programs: a pair; within the block its modules are in eval mode and get no gradient.
        seed: of torch's random numbers within the block.
    """
    module = as_module(programs)
    outside = Traits.of(programs).no_param_store()
    with seeded(seed, reference_tensor(module).device), torch.no_grad(), outside, evaluating(module):
        yield
