"""Lowering: a function that runs Pyro programs, as one compiled graph.

`torch.compile` cannot read Pyro's handlers; `torch.export` runs them once, in Python, and records the tensor
operations, which the compiler then fuses. What was recorded is one shape of batch and one run of the programs, so it
is trusted only after two looks: two recordings have to be the same graph, for a program whose structure or constants
change has no single one, and by the same random numbers the compiled graph has to give the function's own values,
gradients and buffers (a custom `autograd.Function` can lose its backward pass without a word).
"""

import contextlib
import functools
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Batch = Mapping[str, Tensor]
Function = Callable[..., Any]


class CannotLower(RuntimeError):
    """Why a function was not compiled, in words that end a sentence."""


def lowered(function: Function, held: nn.Module, *arguments: Batch) -> Function:
    """Compile a function of batches of one shape, and hold it to the function itself.

    Args:
        function: from mappings of named tensors to a tree of tensors; it may draw random numbers of torch, but wait
            for nothing. Where its first tensor has a gradient, that is compiled too.
        held: the module of the weights it reads.
        arguments: arguments of these shapes.

    Returns:
        The compiled function. The same random numbers give the same values and gradients, up to rounding.

    Raises:
        CannotLower: it cannot be compiled, what was compiled is another function, or there is no one graph of it.
    """
    subject = _Subject(function, held, tuple(dict(argument) for argument in arguments))
    with subject.as_before(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, about the code of torch
        try:
            options: dict[str, Any] = {"fallback_random": True, "triton.cudagraphs": subject.device.type == "cuda"}
            compiled: Function = torch.compile(subject.recorded().module(), options=options)
            difference = subject.difference(compiled, backward=True) or subject.difference(compiled, backward=False)
        except CannotLower:
            raise
        except Exception as error:  # whatever a compiler may raise
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            raise CannotLower(f"{type(error).__name__}: {first}") from error
    if difference:
        raise CannotLower(difference)
    return functools.partial(compiled)  # a function: as an attribute a module would be a part of whoever holds it


def difference(compiled: Function, function: Function, held: nn.Module, *arguments: Batch) -> str:
    """In what a compiled function no longer gives the values of the function itself; nothing where it does."""
    subject = _Subject(function, held, tuple(dict(argument) for argument in arguments))
    with subject.as_before():
        return subject.difference(compiled, backward=False)


class _Recorded(nn.Module):
    """A function of named tensors, with the weights it reads."""

    def __init__(self, function: Function, held: nn.Module) -> None:
        super().__init__()
        self.function, self.held = function, held

    def forward(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class _Subject:
    """A function at some arguments, which is recorded and looked at without a trace of either."""

    def __init__(self, function: Function, held: nn.Module, given: tuple[dict[str, Tensor], ...]) -> None:
        self.function, self.held, self.given = function, held, given
        self.device = next(iter(given[0].values())).device
        self.weights = {name: weight for name, weight in held.named_parameters() if weight.requires_grad}

    @contextlib.contextmanager
    def as_before(self) -> Iterator[None]:
        """Leave all random states and buffers as they were."""
        python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - what a program may draw from
        buffers = {name: buffer.clone() for name, buffer in self.held.named_buffers()}
        try:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002
            self._put_back(buffers)

    def _put_back(self, buffers: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, buffer in self.held.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])

    def recorded(self) -> torch.export.ExportedProgram:
        """The graph of the function, recorded twice."""
        graphs = []
        with torch.no_grad():  # what is found out in a first run, and remembered, is no change
            self.function(*self.given)
        for _ in range(2):
            with pyro.get_param_store().scope():  # `pyro.module` would leave the recorder's tensors in it
                graphs.append(torch.export.export(_Recorded(self.function, self.held), self.given, strict=False))
        first, second = ({name: str(value) for name, value in graph.constants.items()} for graph in graphs)
        if first != second or graphs[0].graph_module.code != graphs[1].graph_module.code:
            raise CannotLower("its structure or its constants change from run to run")
        return graphs[1]

    def difference(self, compiled: Function, *, backward: bool) -> str:
        """In what a compiled function differs by more than rounding, in words; nothing where it does not."""
        found, expected = (self._outcome(each, backward) for each in (compiled, self.function))
        sizes = {name: float(value.double().norm()) for name, value in expected.items()}
        whole = math.hypot(*(size for name, size in sizes.items() if name.startswith("the gradient")), 0.0)
        for name, value in expected.items():
            if found[name].shape != value.shape:
                return f"{name} has another shape"
            eps = self.eps if value.is_floating_point() else 0.0
            gap = float((found[name].double() - value.double()).norm())
            least = whole / 100 if name.startswith("the gradient") else 1.0  # what is nearly 0 is rounding alone
            if not gap <= eps**0.5 * max(sizes[name], least):
                return f"{name} differs by {gap:.2g} from one of size {sizes[name]:.2g}"
        return ""

    @property
    def eps(self) -> float:
        """The rounding of the coarsest type that anything is computed in."""
        types = {t.dtype for t in (*self.weights.values(), *self.given[0].values()) if t.is_floating_point()}
        if torch.is_autocast_enabled(self.device.type):
            types.add(torch.get_autocast_dtype(self.device.type))
        return max(torch.finfo(dtype).eps for dtype in types)

    def _outcome(self, function: Function, backward: bool) -> dict[str, Tensor]:
        """Values, and gradients and buffers too, after a run from the same random numbers and buffers."""
        buffers = {name: buffer.clone() for name, buffer in self.held.named_buffers()}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            outputs = pytree.tree_leaves(function(*self.given))
        named = {f"value {number}": output.detach().clone() for number, output in enumerate(outputs)}
        if backward and outputs[0].requires_grad:
            gradients = torch.autograd.grad(outputs[0].sum(), list(self.weights.values()), allow_unused=True)
            for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
                named[f"the gradient to {name}"] = torch.zeros_like(weight) if gradient is None else gradient.clone()
        named |= {f"buffer {name}": buffer.clone() for name, buffer in self.held.named_buffers()}
        self._put_back(buffers)
        return named
