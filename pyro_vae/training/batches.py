"""Checks of batches before training: programs that need all rows at once, and BatchNorm, which needs two."""

import contextlib
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyro_vae.core.errors import InputError
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream
from pyro_vae.networks.base import evaluating
from pyro_vae.objectives.structure import Structure
from pyro_vae.training.distributed import ProcessGroup
from pyro_vae.training.loss import Loss, train_mode


def check_batches(structure: Structure, rows: int, batch_size: int, held: Rows | Stream | None) -> None:
    """Refuse batches for programs that need all rows at once.

    Args:
        structure: that of the programs.
        rows: the number of rows.
        batch_size: the number of rows of a batch.
        held: the validation rows.

    Raises:
        InputError: there is a latent that all rows share, whose prior each batch would count once, or a value of each
            row; the message has the batch_size that takes all rows.
    """
    everything = f"write batch_size={rows}"
    if batch_size < rows and structure.shared and not structure.row_plates:
        raise InputError(
            f"the latent {structure.shared[0]!r} is in no plate of rows, so a batch of {batch_size} rows would count "
            f"its prior once: {everything}, or put latents and data in one plate of both programs, "
            "pyro.plate('data', x.shape[0], dim=-1)."
        )
    if batch_size < rows and structure.shared and not structure.scales:
        raise InputError(
            f"all rows share the latent {structure.shared[0]!r}, and each batch of {batch_size} rows would count its "
            f"prior once, so that its posterior would be that of one batch: {everything}, or scale the rows in both "
            f"programs, pyro.plate('data', {rows}, subsample_size=len(x), dim=-1)."
        )
    if batch_size < rows and not structure.any_rows:
        raise InputError(
            f"these programs run on {rows} rows only, as with a parameter or a latent of the guide for each row, "
            f"and not on batches of {batch_size}: {everything}."
        )
    if held is not None and not structure.any_rows and len(held) != rows:
        raise InputError(
            f"these programs run on {rows} rows only, as with a parameter or a latent of the guide for each row, "
            f"and validation has {len(held)}: leave validation out."
        )


def check_single_rows(
    loss: Loss,
    resting: Sequence[nn.Module],
    rows: Rows | Stream,
    batch_size: int,
    accumulated: int,
    group: ProcessGroup,
    seed: int,
) -> None:
    """Refuse batches of one row that BatchNorm cannot take, by a dry run that leaves its statistics as they were.

    Args:
        loss: the module that is trained.
        resting: its modules that stay in eval mode.
        rows: the data.
        batch_size: rows of a full batch, over all processes.
        accumulated: batches of a step.
        group: the processes.
        seed: of the draws of the dry run.

    Raises:
        InputError: there are such batches; the message names a batch_size that makes none.
    """
    still = set(resting)
    norms = [each for each in loss.held.modules() if isinstance(each, _BatchNorm) and each not in still]

    def has_single(size: int) -> bool:
        return 1 in _batch_lengths(len(rows), size, accumulated, group.world_size)

    if not norms or not has_single(batch_size):
        return
    single: list[nn.Module] = []

    def note(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0].numel() == given[0].shape[1]:
            single.append(norm)

    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        with group.seeded(seed), evaluating(loss.held), contextlib.suppress(ValueError):  # of BatchNorm's own
            train_mode(loss.held, resting)
            loss.parts(rows.head_sample(1).batch())
    finally:
        for hook in hooks:
            hook.remove()
        for buffer, value in before:
            buffer.copy_(value)
    if single:
        better = next((size for size in range(batch_size + 1, len(rows) + 1) if not has_single(size)), None)
        fix = f"give at least {2 * group.world_size} rows" if better is None else f"take batch_size={better}"
        raise InputError(
            f"{len(rows)} rows in batches of {batch_size} make a batch of one row, of which {type(single[0]).__name__} "
            f"has no variance: {fix}."
        )


def _batch_lengths(rows: int, batch_size: int, accumulated: int, processes: int) -> set[int]:
    """Numbers of rows of the batches of an epoch, over all processes."""
    size, step = math.ceil(batch_size / processes), batch_size * accumulated
    lengths = set[int]()
    for count in {min(rows, step), rows % step or step}:
        for rank in range(processes):
            mine = len(range(rank, count, processes)) or 1
            lengths |= {min(mine, size), mine % size or size}
    return lengths
