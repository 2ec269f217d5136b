"""Lowering: a function that runs Pyro programs, and may change tensors, as one compiled graph.

`torch.compile` cannot read Pyro's handlers. Here the function itself is run, once, by Python, while torch records
every operation on tensors down to its kernels: handlers, gradients and the step of an optimizer are all the same to
it. The compiler then fuses what was recorded. That is one shape of arguments and one run of the programs, so it is
trusted only after two looks: two recordings, by other rows and other weights, have to be the same graph, for programs
whose structure or constants change have no single one; and by the same random numbers the compiled graph has to
return, and leave behind in every tensor, what the function itself does.
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
"""Tensors that a function reads or changes, by what they are and by name."""

WEIGHTS = "weights"
"""What tensors are called that an optimizer moves; see `CompiledFunction.difference`."""

OTHER = 1.001
"""Times which all numbers are taken for a second recording."""


class NotCompilable(RuntimeError):
    """Why a function was not compiled, in words that end a sentence."""


def compile_function(function: Function, held: Held, *arguments: Any) -> "CompiledFunction":
    """Compile a function at arguments of one shape, and hold it to the function itself.

    Args:
        function: from trees of tensors to a tree of tensors; it may draw random numbers of torch and change the
            tensors it holds in place, but wait for nothing.
        held: every tensor that it reads or changes beside its arguments.
        arguments: arguments of these shapes. The function is run on them; then all is as it was.

    Returns:
        The compiled function. The same random numbers give the same values and changes, up to rounding.

    Raises:
        NotCompilable: it cannot be compiled, what was compiled is another function, or there is no one graph of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, about the code of torch
        try:
            made = CompiledFunction(function, held, arguments)
            difference = made.difference(*arguments)
        except NotCompilable:
            raise
        except Exception as error:  # whatever a compiler may raise
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            if "out of a tracing tensor" in first:
                first = "it waits for a value, as .item(), float() or an if of a tensor do, and a graph has none"
                raise NotCompilable(first) from error
            raise NotCompilable(f"{type(error).__name__}: {first}") from error
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
        graph = self._only(given)
        values = [node.meta.get("val") for node in graph.graph.nodes]
        types = {value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()}
        self.eps = max(torch.finfo(dtype).eps for dtype in types)  # of the coarsest that anything is computed in
        with isolate_rng(self.device), self._kept(), torch.no_grad():
            self.graph = compile_graph(graph, [*self.tensors, *given])
            if self.device.type == "cuda":
                self.graph = CapturedGraph(self.graph, self.tensors, given)

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns, and changes; a ValueError where arguments lie in memory in another way."""
        given = pytree.tree_leaves(arguments)
        if [*map(_layout, given)] != self.layouts:  # of which a graph takes no notice
            raise ValueError(f"this graph is of {self.layouts}, and of no other types, shapes and strides.")
        with torch.no_grad():
            return pytree.tree_unflatten(self.graph(*self.tensors, *given), self.returned)

    def difference(self, *arguments: Any) -> str:
        """In what the graph differs from the function itself at present, in words; nothing where it does not.

        Values and changes have to be the same up to the square root of rounding. What an optimizer makes of a gradient
        that is nearly nothing may be the sign of rounding, so that the changes of weights have to be the same up to
        its fourth root only; what it remembers of gradients tells a wrong one.
        """
        with isolate_rng(self.device), self._kept():
            found = [tensor.detach().clone() for tensor in [*self._values(self, arguments), *self.tensors]]
        with isolate_rng(self.device), self._kept() as before:
            values = self._values(self.function, arguments)
            names = [*(("value", str(number)) for number in range(len(values))), *self.held]
            if len(names) != len(found):
                return f"there are {len(values)} values, and not {len(found) - len(before)}"
            with torch.no_grad():
                starts = [*map(torch.zeros_like, values), *before]
                return self._told(names, starts, [*values, *self.tensors], found)

    def _told(self, names: list[tuple[str, str]], starts: Tensors, expected: Tensors, found: Tensors) -> str:
        """The first of the tensors found that is not what was expected, in words."""
        starts, expected, found = ([*map(_wide, tensors)] for tensors in (starts, expected, found))
        sizes = [_size(value - start) for value, start in zip(expected, starts, strict=True)]
        of_kind: dict[str, float] = {}
        for (kind, _), size in zip(names, sizes, strict=True):
            of_kind[kind] = math.hypot(of_kind.get(kind, 0.0), size)
        for (kind, name), start, value, other, size in zip(names, starts, expected, found, sizes, strict=True):
            if value.shape != other.shape:
                return f"{name} has another shape"
            least = 1.0 if kind == "value" else of_kind[kind] / 100  # what is nearly nothing is rounding alone
            relative = self.eps ** (0.25 if kind == WEIGHTS else 0.5)
            allowed = relative * max(size, least) + 4 * self.eps * _size(start)
            gap = _apart(value, other)
            if not gap <= allowed:
                of = f"{kind} {name}" if kind == "value" else f"what it makes of {name} ({kind})"
                return f"{of} differs by {gap:.2g} from one of size {size:.2g}"
        return ""

    def _only(self, given: list[Tensor]) -> torch.fx.GraphModule:
        """The one graph of the function, recorded twice."""
        with isolate_rng(self.device):  # but from run to run random numbers go on
            with self._kept():
                self.function(*pytree.tree_unflatten(given, self.shape))  # what it remembers of a first run is in none
            with self._kept():
                first = self._recorded(given)
            with self._kept():
                with torch.no_grad():
                    for tensor in self.tensors:
                        if tensor.is_floating_point():
                            tensor.mul_(OTHER)
                second = self._recorded([_alike(tensor) for tensor in given])
        if _read(first) != _read(second):
            raise NotCompilable("its structure or its constants change from run to run")
        return first

    def _recorded(self, given: list[Tensor]) -> torch.fx.GraphModule:
        def flat(*tensors: Tensor) -> list[Tensor]:
            result = self.function(*pytree.tree_unflatten(list(tensors[len(self.tensors) :]), self.shape))
            leaves, self.returned = pytree.tree_flatten(result)
            return leaves

        with pyro.validation_enabled(False), torch.autograd.set_multithreading_enabled(False):  # that waits for values
            graph: torch.fx.GraphModule = make_fx(flat, decomposition_table=DECOMPOSITIONS)(*self.tensors, *given)
        return graph

    def _values(self, function: Function, arguments: tuple[Any, ...]) -> list[Tensor]:
        return [value.detach() for value in pytree.tree_leaves(function(*arguments)) if value is not None]

    @contextlib.contextmanager
    def _kept(self) -> Iterator[list[Tensor]]:
        """Leave all tensors as they were, of which there are copies within."""
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
    """A function of tensors at fixed places of a GPU, whose kernels are launched all at once."""

    def __init__(self, function: Function, held: list[Tensor], given: list[Tensor]) -> None:
        self.given = [tensor.clone() for tensor in given]
        self.count = len(held)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # what is allocated, or tuned, at first has to be there before
                function(*held, *self.given)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.returned = function(*held, *self.given)

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """Run it on the tensors after those that are held."""
        for place, tensor in zip(self.given, tensors[self.count :], strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return [value.clone() for value in self.returned]


def compile_graph(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Function:
    """What the compiler makes of a graph."""
    from torch import _inductor  # which takes a second to import

    options = {
        "fallback_random": True,
        "size_asserts": False,
    }  # of each kernel, for `CompiledFunction` looks at all arguments
    made: Function = _inductor.compile(graph, [*inputs], options=options)
    return made


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.shape, tensor.stride()


def _wide(tensor: Tensor) -> Tensor:
    """In numbers that can be subtracted without loss."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else torch.float64)


def _apart(one: Tensor, other: Tensor) -> float:
    """The Euclidean distance of two tensors; the same non-number in both is no distance, and any other one is."""
    difference = one - other
    distance = float(torch.linalg.vector_norm(difference))
    if math.isfinite(distance):
        return distance
    alike = (one == other) | (one.isnan() & other.isnan())
    return float(torch.linalg.vector_norm(difference.masked_fill(alike, 0.0)))


def _size(tensor: Tensor) -> float:
    """The Euclidean norm of what is a number."""
    size = float(torch.linalg.vector_norm(tensor))
    return size if math.isfinite(size) else float(torch.linalg.vector_norm(tensor.nan_to_num(0.0, 0.0, 0.0)))


def _alike(tensor: Tensor) -> Tensor:
    """A tensor that has its first row for all."""
    return tensor[:1].expand_as(tensor).contiguous() if tensor.ndim else tensor.clone()


def _read(graph: torch.fx.GraphModule) -> tuple[str, dict[str, str]]:
    """A graph in words: its code, and the tensors that are constants of it."""
    named = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    others = {name: value for name, value in vars(graph).items() if isinstance(value, Tensor)}
    return graph.code, {name: repr(value.tolist()) for name, value in (named | others).items()}
