"""The protocol of whatever can be fitted or criticised: a pair of Pyro programs, and the tensors that train."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from pyro_vae.core.errors import InputError


@runtime_checkable
class Programs(Protocol):
    """A model and a guide: two Pyro programs that take one batch of named tensors by keyword."""

    @property
    def model(self) -> Callable[..., Any]:
        """The generative program."""

    @property
    def guide(self) -> Callable[..., Any]:
        """The program of the approximate posterior."""


def require_programs(given: Any, what: str) -> None:
    """Refuse an object that is not a pair of programs.

    Args:
        given: the object a user passed.
        what: the name of the function it was passed to.

    Raises:
        InputError: it has no `model` or no `guide`.
    """
    if not isinstance(given, Programs):
        raise InputError(
            f"{what} takes an object with .model and .guide, two Pyro programs; {type(given).__name__} has not."
        )


def as_module(programs: Programs) -> nn.Module:
    """One module with the weights of a pair: the pair itself, or one that holds the modules among its attributes."""
    if isinstance(programs, nn.Module):
        return programs
    holder = nn.Module()
    for name, part in {"model": programs.model, "guide": programs.guide, **getattr(programs, "__dict__", {})}.items():
        if isinstance(part, nn.Module):
            holder.add_module(name, part)
    return holder


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers of a module by name, shared ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
