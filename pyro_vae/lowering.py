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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from pyro_vae.kernels import WRITTEN_OUT
from pyro_vae.randomness import undisturbed

Function = Callable[..., Any]
Held = Mapping[str, Mapping[str, Tensor]]
"""Tensors that a function reads or changes, by what they are and by name."""

WEIGHTS = "weights"
"""What tensors are called that an optimizer moves; see `Lowered.difference`."""

OTHER = 1.001
"""Times which all numbers are taken for a second recording."""


class CannotLower(RuntimeError):
    """Why a function was not compiled, in words that end a sentence."""


def lowered(function: Function, held: Held, *arguments: Any) -> "Lowered":
    """Compile a function at arguments of one shape, and hold it to the function itself.

    Args:
        function: from trees of tensors to a tree of tensors; it may draw random numbers of torch and change the
            tensors it holds in place, but wait for nothing.
        held: every tensor that it reads or changes beside its arguments.
        arguments: arguments of these shapes. The function is run on them; then all is as it was.

    Returns:
        The compiled function. The same random numbers give the same values and changes, up to rounding.

    Raises:
        CannotLower: it cannot be compiled, what was compiled is another function, or there is no one graph of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, about the code of torch
        try:
            made = Lowered(function, held, arguments)
            difference = made.difference(*arguments)
        except CannotLower:
            raise
        except Exception as error:  # whatever a compiler may raise
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            if "out of a tracing tensor" in first:
                first = "it waits for a value, as .item(), float() or an if of a tensor do, and a graph has none"
                raise CannotLower(first) from error
            raise CannotLower(f"{type(error).__name__}: {first}") from error
    if difference:
        raise CannotLower(difference)
    return made


class Lowered:
    """A compiled function; see `lowered`, which makes it."""

    def __init__(self, function: Function, held: Held, arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.held = {(kind, name): tensor for kind, named in held.items() for name, tensor in named.items()}
        self.tensors = list(self.held.values())
        given, self.shape = pytree.tree_flatten(arguments)
        self.device = given[0].device
        self.returned: Any = None
        with undisturbed(self.device):  # but from run to run random numbers go on
            with self._kept():
                function(*arguments)  # what is found out in a first run, and remembered, is in no graph
            with self._kept():
                first = self._recorded(given)
            with self._kept():
                with torch.no_grad():
                    for tensor in self.tensors:
                        if tensor.is_floating_point():
                            tensor.mul_(OTHER)
                second = self._recorded([_alike(tensor) for tensor in given])
        if _read(first) != _read(second):
            raise CannotLower("its structure or its constants change from run to run")
        values = [node.meta.get("val") for node in first.graph.nodes]
        types = {value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()}
        self.eps = max(torch.finfo(dtype).eps for dtype in types)  # of the coarsest that anything is computed in
        with undisturbed(self.device), self._kept(), torch.no_grad():
            self.graph = compiled(first, [*self.tensors, *given])
            if self.device.type == "cuda":
                self.graph = Captured(self.graph, self.tensors, given)

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns, and changes."""
        with torch.no_grad():
            return pytree.tree_unflatten(self.graph(*self.tensors, *pytree.tree_leaves(arguments)), self.returned)

    def difference(self, *arguments: Any) -> str:
        """In what the graph differs from the function itself at present, in words; nothing where it does not.

        Values and changes have to be the same up to the square root of rounding. What an optimizer makes of a gradient
        that is nearly nothing may be the sign of rounding, so that the changes of weights have to be the same up to
        its fourth root only; what it remembers of gradients tells a wrong one.
        """
        found, expected = self._outcome(self, arguments), self._outcome(self.function, arguments)
        sizes = {name: float(value.norm()) for name, (value, _) in expected.items()}
        for (kind, name), (value, start) in expected.items():
            if found[kind, name][0].shape != value.shape:
                return f"{name} has another shape"
            of_kind = math.hypot(*(size for (other, _), size in sizes.items() if other == kind))
            least = 1.0 if kind == "value" else of_kind / 100  # what is nearly nothing is rounding alone
            relative = self.eps ** (0.25 if kind == WEIGHTS else 0.5)
            allowed = relative * max(sizes[kind, name], least) + 4 * self.eps * start
            gap = float((found[kind, name][0] - value).norm())
            if not gap <= allowed:
                of = f"{kind} {name}" if kind == "value" else f"what it makes of {name} ({kind})"
                return f"{of} differs by {gap:.2g} from one of size {sizes[kind, name]:.2g}"
        return ""

    def _recorded(self, given: list[Tensor]) -> torch.fx.GraphModule:
        def flat(*tensors: Tensor) -> list[Tensor]:
            result = self.function(*pytree.tree_unflatten(list(tensors[len(self.tensors) :]), self.shape))
            leaves, self.returned = pytree.tree_flatten(result)
            return leaves

        with pyro.validation_enabled(False), torch.autograd.set_multithreading_enabled(False):  # that waits for values
            graph: torch.fx.GraphModule = make_fx(flat, decomposition_table=WRITTEN_OUT)(*self.tensors, *given)
        return graph

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Leave all tensors as they were."""
        kept = [tensor.detach().clone() for tensor in self.tensors]
        gradients = [tensor.grad for tensor in self.tensors]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, before, gradient in zip(self.tensors, kept, gradients, strict=True):
                    tensor.copy_(before)
                    tensor.grad = gradient

    def _outcome(self, function: Function, arguments: tuple[Any, ...]) -> dict[tuple[str, str], tuple[Tensor, float]]:
        """Values and changes after a run, each with the size of what it started from."""
        before = [_plain(tensor) for tensor in self.tensors]
        with undisturbed(self.device), self._kept():
            values = [_plain(value) for value in pytree.tree_leaves(function(*arguments))]
            changes = [_plain(tensor) - start for tensor, start in zip(self.tensors, before, strict=True)]
        named = {("value", str(number)): (value, 0.0) for number, value in enumerate(values)}
        sizes = [float(start.norm()) for start in before]
        return named | dict(zip(self.held, zip(changes, sizes, strict=True), strict=True))


class Captured:
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


def compiled(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Function:
    """What the compiler makes of a graph."""
    from torch import _inductor  # which takes a second to import

    made: Function = _inductor.compile(graph, [*inputs], options={"fallback_random": True})
    return made


def _plain(tensor: Tensor) -> Tensor:
    """A copy in numbers that can be subtracted: what is no number stands for itself, as some number."""
    return tensor.detach().double().nan_to_num(1.0, 2.0, -2.0).clone()


def _alike(tensor: Tensor) -> Tensor:
    """A tensor that has its first row for all."""
    return tensor[:1].expand_as(tensor).contiguous() if tensor.ndim else tensor.clone()


def _read(graph: torch.fx.GraphModule) -> tuple[str, dict[str, str]]:
    """A graph in words: its code, and the tensors that are constants of it."""
    named = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    others = {name: value for name, value in vars(graph).items() if isinstance(value, Tensor)}
    return graph.code, {name: repr(value.tolist()) for name, value in (named | others).items()}
