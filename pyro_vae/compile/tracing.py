"""A function that runs Pyro programs, and may change tensors in place, as one compiled and checked graph.

`torch.compile` cannot trace Pyro's handlers. Here Python runs the function once, while torch traces every operation on
tensors down to its kernels: handlers, gradients and the step of an optimizer alike. The compiler then fuses the graph.
It holds for one shape of arguments and one run of the programs, so it is used only after two checks: two traces, with
other rows and other weights, have to be the same graph, since programs whose structure or constants change have no
single one; and with the same random numbers the compiled graph has to return, and write to every tensor, the same
values as the function.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from pyro_vae.compile.decompositions import DECOMPOSITIONS
from pyro_vae.core.rng import isolate_rng

Function = Callable[..., Any]
Tensors = Sequence[Tensor]
Held = Mapping[str, Mapping[str, Tensor]]
"""Tensors that a function reads or changes, by kind and by name."""

WEIGHTS = "weights"
"""The kind of tensors that an optimizer updates; see `CompiledFunction.difference`."""

PERTURBATION = 1.001
"""Factor of all floating tensors for the second trace."""


class NotCompilable(RuntimeError):
    """The reason why a function was not compiled, as the end of a sentence."""


def compile_function(function: Function, held: Held, *arguments: Any) -> "CompiledFunction":
    """Compiled function for arguments of one shape, checked against the function itself.

    Args:
        function: from trees of tensors to a tree of tensors; it may draw torch's random numbers and change the tensors
            it holds in place, with no host sync.
        held: every tensor that it reads or changes besides its arguments.
        arguments: arguments of these shapes, with which the function is run; all tensors and random states are
            restored.

    Returns:
        The compiled function. The same random numbers give the same values and changes, up to rounding.

    Raises:
        NotCompilable: the compiler fails, its graph differs from the function, or the function has no single graph.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the compiler about torch's own code
        try:
            made = CompiledFunction(function, held, arguments)
            difference = made.difference(*arguments)
        except NotCompilable:
            raise
        except Exception as error:  # a compiler may raise any
            reason = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
            if "out of a tracing tensor" in reason:
                reason = "it needs a value on the host, as .item(), float() or an if of a tensor do"
            raise NotCompilable(reason) from error
    if difference:
        raise NotCompilable(difference)
    return made


class CompiledFunction:
    """A compiled function; see `compile_function`, which makes it."""

    def __init__(self, function: Function, held: Held, arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.held = {(kind, name): tensor for kind, named in held.items() for name, tensor in named.items()}
        self.tensors = list(self.held.values())
        given, self.shape = pytree.tree_flatten(arguments)
        self.layouts = [_layout(tensor) for tensor in given]
        self.device = given[0].device
        self.returned: Any = None
        graph = self._trace_twice(given)
        values = [node.meta.get("val") for node in graph.graph.nodes]
        types = {value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()}
        self.eps = max(torch.finfo(dtype).eps for dtype in types)  # of the coarsest that anything is computed in
        with isolate_rng(self.device), self._restored(), torch.no_grad():
            self.graph = compile_graph(graph, [*self.tensors, *given])
            if self.device.type == "cuda":
                self.graph = CapturedGraph(self.graph, self.tensors, given)

    def __call__(self, *arguments: Any) -> Any:
        """Value of the function, after its changes in place.

        Raises:
            ValueError: arguments have another type, shape or stride.
        """
        given = pytree.tree_leaves(arguments)
        if [*map(_layout, given)] != self.layouts:  # which a graph does not check
            raise ValueError(f"this graph is for {self.layouts}, and for no other types, shapes and strides.")
        with torch.no_grad():
            return pytree.tree_unflatten(self.graph(*self.tensors, *given), self.returned)

    def difference(self, *arguments: Any) -> str:
        """Description of a difference between the graph and the function at present; empty where there is none.

        Values and changes have to agree up to the square root of the rounding error. The change that an optimizer makes
        for a gradient near zero may be the sign of rounding, so changes of weights have to agree up to its fourth root
        only; a wrong gradient shows in the optimizer's moments.
        """
        with isolate_rng(self.device), self._restored():
            found = [tensor.detach().clone() for tensor in [*self._values(self, arguments), *self.tensors]]
        with isolate_rng(self.device), self._restored() as before:
            values = self._values(self.function, arguments)
            names = [*(("value", str(number)) for number in range(len(values))), *self.held]
            if len(names) != len(found):
                return f"there are {len(values)} values, and not {len(found) - len(before)}"
            with torch.no_grad():
                starts = [*map(torch.zeros_like, values), *before]
                return self._describe_difference(names, starts, [*values, *self.tensors], found)

    def _describe_difference(
        self, names: list[tuple[str, str]], starts: Tensors, expected: Tensors, found: Tensors
    ) -> str:
        """Description of the first tensor that differs from the expected one."""
        starts, expected, found = ([*map(_upcast, tensors)] for tensors in (starts, expected, found))
        sizes = [_finite_norm(value - start) for value, start in zip(expected, starts, strict=True)]
        of_kind: dict[str, float] = {}
        for (kind, _), size in zip(names, sizes, strict=True):
            of_kind[kind] = math.hypot(of_kind.get(kind, 0.0), size)
        for (kind, name), start, value, other, size in zip(names, starts, expected, found, sizes, strict=True):
            if value.shape != other.shape:
                return f"{name} has another shape"
            least = 1.0 if kind == "value" else of_kind[kind] / 100  # values near zero are rounding alone
            relative = self.eps ** (0.25 if kind == WEIGHTS else 0.5)
            allowed = relative * max(size, least) + 4 * self.eps * _finite_norm(start)
            gap = _distance(value, other)
            if not gap <= allowed:
                of = f"{kind} {name}" if kind == "value" else f"its change of {name} ({kind})"
                return f"{of} differs by {gap:.2g} from one of size {size:.2g}"
        return ""

    def _trace_twice(self, given: list[Tensor]) -> torch.fx.GraphModule:
        """Graph of the function, if two traces of it agree."""
        with isolate_rng(self.device):  # around all runs, so that each has other random numbers
            with self._restored():
                self.function(*pytree.tree_unflatten(given, self.shape))  # a first run may fill caches
            with self._restored():
                first = self._trace(given)
            with self._restored():
                with torch.no_grad():
                    for tensor in self.tensors:
                        if tensor.is_floating_point():
                            tensor.mul_(PERTURBATION)
                second = self._trace([_repeat_first_row(tensor) for tensor in given])
        if _graph_key(first) != _graph_key(second):
            raise NotCompilable("its structure or its constants change from run to run")
        return first

    def _trace(self, given: list[Tensor]) -> torch.fx.GraphModule:
        def flat(*tensors: Tensor) -> list[Tensor]:
            result = self.function(*pytree.tree_unflatten(list(tensors[len(self.tensors) :]), self.shape))
            leaves, self.returned = pytree.tree_flatten(result)
            return leaves

        # Validation would sync with the host, and gradients on other threads would not be traced.
        with pyro.validation_enabled(False), torch.autograd.set_multithreading_enabled(False):
            graph: torch.fx.GraphModule = make_fx(flat, decomposition_table=DECOMPOSITIONS)(*self.tensors, *given)
        return graph

    def _values(self, function: Function, arguments: tuple[Any, ...]) -> list[Tensor]:
        return [value.detach() for value in pytree.tree_leaves(function(*arguments)) if value is not None]

    @contextlib.contextmanager
    def _restored(self) -> Iterator[list[Tensor]]:
        """Block with copies of all tensors; after it, the tensors and their gradients are as before."""
        kept = [tensor.detach().clone() for tensor in self.tensors]
        gradients = [tensor.grad for tensor in self.tensors]
        try:
            yield kept
        finally:
            with torch.no_grad():
                for tensor, before, gradient in zip(self.tensors, kept, gradients, strict=True):
                    tensor.copy_(before)
                    tensor.grad = gradient


class CapturedGraph:
    """A CUDA graph of a function: tensors at fixed addresses, and all kernels in one launch."""

    def __init__(self, function: Function, held: list[Tensor], given: list[Tensor]) -> None:
        self.given = [tensor.clone() for tensor in given]
        self.count = len(held)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # allocations and autotuning of the first runs cannot be captured
                function(*held, *self.given)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.returned = function(*held, *self.given)

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """Values of the function at the arguments, which follow the held tensors."""
        for place, tensor in zip(self.given, tensors[self.count :], strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return [value.clone() for value in self.returned]


def compile_graph(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Function:
    """Function that Inductor compiles from a graph."""
    from torch import _inductor  # its import takes a second

    # `CompiledFunction` checks the sizes of all arguments, so that no kernel has to.
    options = {"fallback_random": True, "size_asserts": False}
    return _inductor.compile(graph, [*inputs], options=options)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.shape, tensor.stride()


def _upcast(tensor: Tensor) -> Tensor:
    """Tensor in a type in which subtraction loses nothing."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else torch.float64)


def _distance(one: Tensor, other: Tensor) -> float:
    """Euclidean distance of two tensors, in which equal infinities and NaN in both count as 0."""
    difference = one - other
    distance = float(torch.linalg.vector_norm(difference))
    if math.isfinite(distance):
        return distance
    alike = (one == other) | (one.isnan() & other.isnan())
    return float(torch.linalg.vector_norm(difference.masked_fill(alike, 0.0)))


def _finite_norm(tensor: Tensor) -> float:
    """Euclidean norm of the finite elements."""
    size = float(torch.linalg.vector_norm(tensor))
    return size if math.isfinite(size) else float(torch.linalg.vector_norm(tensor.nan_to_num(0.0, 0.0, 0.0)))


def _repeat_first_row(tensor: Tensor) -> Tensor:
    """Tensor of the same shape with its first row in every row."""
    return tensor[:1].expand_as(tensor).contiguous() if tensor.ndim else tensor.clone()


def _graph_key(graph: torch.fx.GraphModule) -> tuple[str, dict[str, str]]:
    """Code of a graph, and the values of its constant tensors by name."""
    named = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    others = {name: value for name, value in vars(graph).items() if isinstance(value, Tensor)}
    return graph.code, {name: repr(value.tolist()) for name, value in (named | others).items()}
