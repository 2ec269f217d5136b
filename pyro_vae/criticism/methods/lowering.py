"""Lowering: what a model does with one chunk of draws, as one compiled function.

`torch.compile` cannot read Pyro's handlers; `torch.export` runs them once, in Python, and records the tensor
operations, which the compiler then fuses. What was recorded is one shape of batch and one number of draws, so that a
rest that is smaller runs as it is.
"""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pyro_vae.training.programs import Programs, as_module

Chunk = Callable[[Mapping[str, Tensor]], Tensor]

TOLERANCE = 1e-4
"""Relative difference to the uncompiled function that rounding may make."""


class _Recorded(nn.Module):
    """A function of a batch, with the weights it reads."""

    def __init__(self, function: Chunk, programs: Programs) -> None:
        super().__init__()
        self.function, self.held = function, as_module(programs)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.function(batch)


def lowered(function: Chunk, programs: Programs, batch: Mapping[str, Tensor]) -> Chunk:
    """Compile a function of batches of one shape, and hold it to the values of the function itself.

    Args:
        function: from named tensors to a tensor; it may draw random numbers, but wait for nothing.
        programs: the pair whose weights it reads.
        batch: a batch of that shape.

    Returns:
        The compiled function; or, with a warning, the function itself, where it cannot be compiled or what was compiled
        gives other values for the same random numbers.
    """
    given, failure = dict(batch), ""
    compiled: Chunk = function
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own, about the code of torch
            recorded = torch.export.export(_Recorded(function, programs), (given,), strict=False).module()
            compiled = torch.compile(recorded, options={"fallback_random": True})
            with torch.random.fork_rng([given["x"].device] if given["x"].is_cuda else []):
                found = compiled(given)
            with torch.random.fork_rng([given["x"].device] if given["x"].is_cuda else []):
                expected = function(given)
            if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
                failure = f"it differs by {float((found - expected).abs().max()):.2g}"
    except Exception as error:  # whatever a compiler may raise
        failure = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    if failure:
        warnings.warn(f"evidence runs uncompiled, for compiling failed ({failure}).", stacklevel=2)
        return function
    return compiled
