"""What criticism looks at: programs and rows, on one device, by random numbers of their own, batch by batch."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from pyro_vae.core.rng import seeded
from pyro_vae.data.rows import Rows
from pyro_vae.model.programs import Programs, as_module
from pyro_vae.networks.base import evaluating


@dataclass(eq=False)
class EvaluationSession:
    """Programs and rows to be looked at.

    Args:
        programs: the pair.
        rows: the data.
        module: the pair's weights.
    """

    programs: Programs
    rows: Rows
    module: nn.Module

    @classmethod
    def of(cls, programs: Programs, x: Any) -> "EvaluationSession":
        """Take the programs with rows as `fit` takes them."""
        return cls(programs, Rows.of(x), as_module(programs))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._reference.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the weights."""
        return self._reference.dtype

    @property
    def _reference(self) -> Tensor:
        held = chain(self.module.parameters(), self.module.buffers())
        return next((tensor for tensor in held if tensor.is_floating_point()), torch.zeros(()))

    @contextlib.contextmanager
    def looked_at(self, seed: int) -> Iterator[None]:
        """Check the rows, then work without dropout and outside of Pyro's store; random states stay as they were.

        Dynamic rows are drawn at once, by the seed, so that any model gets the same pixels.
        """
        outside = getattr(self.programs, "outside_store", contextlib.nullcontext)
        with seeded(seed, self.device), torch.no_grad(), outside(), evaluating(self.module):
            self.rows = replace(self.rows, tensors=self.rows.batch(), dynamic=False)
            if hasattr(self.programs, "check"):
                self.programs.check(dict(self.rows.tensors))
            yield

    def batches(self, size: int, what: str, progress: bool) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """The rows in batches, each with the number of its first row; a bar in a terminal says how far it is.

        Args:
            size: rows per batch.
            what: the word beside the bar.
            progress: whether to show it.
        """
        console = Console(stderr=True)
        starts = range(0, len(self.rows), size)
        for start in track(starts, what, console=console, disable=not (progress and console.is_terminal)):
            part = Rows(self.rows.batch(slice(start, start + size)))
            yield start, part.to(self.device, self.dtype).batch()
