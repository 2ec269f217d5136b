"""Evaluation of programs on rows: in eval mode, without gradients, with random numbers of its own, in batches."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.core.progress import track
from pyro_vae.data.rows import Rows
from pyro_vae.model.programs import Programs, Traits, as_module, check_arguments, evaluation, reference_tensor

DENSITY_FAILS = (
    "the model's or the guide's density fails there; "
    "inspect vae.decode(vae.encode(x).sample()).log_prob(x) for that row."
)


@dataclass(eq=False)
class EvaluationSession:
    """Pair of programs, the rows on which they are evaluated, and a module of their weights."""

    programs: Programs
    rows: Rows
    module: nn.Module

    @classmethod
    def of(cls, programs: Programs, x: Any) -> "EvaluationSession":
        """Session of programs with rows, as `fit` takes them; columns are in the order that these were fitted to."""
        rows = Rows.of(x)
        check_arguments(programs, rows.names)
        return cls(programs, rows.aligned(Traits.of(programs).feature_names), as_module(programs))

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return reference_tensor(self.module).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the rows."""
        return Traits.of(self.programs).row_type or reference_tensor(self.module).dtype

    @contextlib.contextmanager
    def activate(self, seed: int) -> Iterator[None]:
        """Block of `evaluation` by a seed with checked rows; dynamic rows are drawn once, the same for all models."""
        with evaluation(self.programs, seed):
            self.rows = replace(self.rows, tensors=self.rows.batch(), dynamic=False)
            self.rows.check_precision(self.dtype)
            if (check := Traits.of(self.programs).check) is not None:
                check(dict(self.rows.tensors))
            yield

    def batches(self, size: int, description: str, progress: bool) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Batches of a number of rows, each with the index of its first row, under a progress bar."""
        starts = range(0, len(self.rows), size)
        for start in track(starts, description, progress):
            part = Rows(self.rows.batch(slice(start, start + size)))
            yield start, part.to(self.device, self.dtype).batch()


def check_rows(valid: Tensor, first: int, message: str) -> None:
    """Check values of rows for NaN and infinity.

    Args:
        valid: whether the value of each row of a batch is valid, (B,).
        first: the index of the batch's first row.
        message: of the error, with `{row}` for the index of the first invalid row.

    Raises:
        FloatingPointError: a value is not valid.
    """
    if not bool(valid.all()):
        raise FloatingPointError(message.format(row=first + int((~valid).nonzero()[0])))
