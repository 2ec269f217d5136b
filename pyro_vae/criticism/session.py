"""Evaluation of programs on rows: in eval mode, without gradients, by random numbers of their own, batch by batch."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.core.progress import track
from pyro_vae.data.rows import Rows
from pyro_vae.model.programs import Programs, as_module, evaluation, reference_tensor


@dataclass(eq=False)
class EvaluationSession:
    """Programs and the rows they are evaluated on.

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
        return reference_tensor(self.module).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the weights."""
        return reference_tensor(self.module).dtype

    @contextlib.contextmanager
    def activate(self, seed: int) -> Iterator[None]:
        """Block of `evaluation`, with the rows checked; dynamic rows are drawn once, so that all models get the same.

        Args:
            seed: of the dynamic rows, and of what is drawn within the block.
        """
        with evaluation(self.programs, seed):
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
        starts = range(0, len(self.rows), size)
        for start in track(starts, what, progress):
            part = Rows(self.rows.batch(slice(start, start + size)))
            yield start, part.to(self.device, self.dtype).batch()
