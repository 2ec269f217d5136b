"""Where training runs: one device or many processes, in Fabric's terms.

With several processes each takes its share of the rows of every step, and all have the same weights: what they do is
what one process would do with the same steps. All of them decide alike, from numbers that they have added up, and the
first one alone writes and speaks.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn

from pyro_vae.core.config import Config, field
from pyro_vae.core.errors import InputError, ProcessLostError
from pyro_vae.core.rng import seed_torch, seeded
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream

STRIDE = 1_000_003
"""Between the seeds of two processes."""

LOST = (
    "connection closed",
    "connection reset",
    "broken pipe",
    "connection refused",
    "timed out",
    "nccl",
    "remote peer",
)
"""Words of which the libraries make their messages when a process does not answer."""


@dataclass(frozen=True)
class Runtime(Config):
    """Where and how precisely the numbers are computed, in Fabric's terms.

    With more than one process, `fit` starts the others, which run the same script or command from its beginning; under
    `torchrun`, or a cluster that Fabric knows, they are there already, and `devices` and `num_nodes` need not be said.

    Args:
        accelerator: "auto" takes a GPU where there is one.
        precision: Fabric's precision, such as "bf16-mixed"; None keeps the type of the weights.
        devices: processes on this node, each with a device of its own; "auto" for all devices.
        num_nodes: nodes.

    Raises:
        InputError: there is no such number of devices.

    >>> Runtime(accelerator="cpu", devices=2)
    Runtime(accelerator='cpu', precision=None, devices=2, num_nodes=1)
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["bf16-mixed", "16-mixed", "32-true", "64-true"] | None = None
    devices: int | Literal["auto"] = field(1)
    num_nodes: int = field(1, low=1)

    def __post_init__(self) -> None:
        """Check the number of devices."""
        super().__post_init__()
        if self.devices != "auto" and self.devices < 1:
            raise InputError(f"Runtime.devices = {self.devices} has to be at least 1, or 'auto' for all there are.")


def first_process() -> bool:
    """Whether this is the process of a training that writes and speaks, before anything of it has begun."""
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """Leave the environment as it was.

    Lightning sets what makes torch query the GPU's driver at every step, and MLflow's where the next writes.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


class Devices:
    """The processes of a training, seen from one of them.

    Args:
        runtime: what was asked for.

    Raises:
        InputError: it is not to be had on this machine.
    """

    def __init__(self, runtime: Runtime) -> None:
        with environment_kept():
            from lightning.fabric import Fabric  # here, for importing it takes seconds

        devices, nodes = runtime.devices, runtime.num_nodes
        if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun, which knows
            here = int(os.environ["LOCAL_WORLD_SIZE"])
            devices, nodes = here, int(os.environ["WORLD_SIZE"]) // here
        several = devices not in (1, "auto") or nodes > 1
        precision = runtime.precision or "32-true"  # by which Fabric leaves every type as it is, float64 too
        try:
            self.fabric = Fabric(
                accelerator=runtime.accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy="ddp" if several else "auto",
                precision=precision,
            )
        except (ValueError, RuntimeError, TypeError) as error:
            first = " ".join(str(error).split())
            raise InputError(f"{runtime} is not to be had here: {first.rstrip('.')}.") from error
        if self.fabric.strategy.launcher is not None:
            self.fabric.launch()
        self.rank: int = self.fabric.global_rank
        self.world: int = self.fabric.world_size
        self.device: torch.device = self.fabric.device

    @property
    def plain(self) -> bool:
        """Whether there is one process and one precision, so that Fabric has nothing to do at a step."""
        return self.world == 1 and type(self.fabric.strategy.precision).__name__ in ("Precision", "DoublePrecision")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @contextlib.contextmanager
    def seeded(self, seed: int, outside: Any = contextlib.nullcontext) -> Iterator[None]:
        """Run with random numbers of our own, outside of Pyro's store, and leave the user's as they were."""
        with seeded(seed, self.device), outside():
            yield

    def part(self, rows: Tensor) -> Tensor:
        """The rows of a step that are this process's: never none, though they may then count for nothing."""
        return rows if self.world == 1 else rows[self.rank :: self.world] if len(rows) > self.rank else rows[:1]

    def counts(self, rows: Tensor) -> bool:
        """Whether the rows of `part` count in this process."""
        return len(rows) > self.rank

    def total(self, numbers: Tensor) -> Tensor:
        """The sum of a tensor over all processes; the tensor itself where there is one."""
        if self.world == 1:
            return numbers
        summed: Any = self.fabric.all_reduce(numbers.clone(), reduce_op="sum")
        return torch.as_tensor(summed)

    def summed(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums of named tensors over all processes; the first has all of them, and some may have none."""
        if self.world == 1:
            return dict(named)
        shapes: dict[str, torch.Size] = self.of_first({name: tensor.shape for name, tensor in named.items()})
        mine = [
            named[name].flatten() if name in named else torch.zeros(shape.numel()) for name, shape in shapes.items()
        ]
        whole = self.total(torch.cat([part.to(self.device, torch.float64) for part in mine]))
        pieces = whole.split([shape.numel() for shape in shapes.values()])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}

    def any(self, *flags: bool) -> list[bool]:
        """Which of these are so in some process."""
        if self.world == 1:
            return list(flags)
        return [bool(number) for number in self.total(torch.tensor(flags, device=self.device).double()).tolist()]

    def of_first(self, thing: Any) -> Any:
        """What the first process has."""
        return thing if self.world == 1 else self.fabric.broadcast(thing)

    def by_first(self, function: Callable[[], Any]) -> Any:
        """What the first process returns, or raises, when it alone calls a function."""
        if self.world == 1:
            return function()
        value, failure = None, None
        if self.first:
            try:
                value = function()
            except Exception as error:  # which all are to raise
                failure = error
        value, failed = self.of_first((value, failure))
        if failed is not None:
            raise failure or failed
        return value

    def alike(self, module: nn.Module) -> None:
        """Give the weights and buffers of the first process to all."""
        if self.world > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.numel():
                    torch.distributed.broadcast(tensor.detach(), 0)

    def apart(self, seed: int) -> None:
        """From now on, draw other random numbers than the other processes."""
        if not self.first:
            seed_torch(seed + self.rank * STRIDE, self.device)

    def gathered(self, state: Tensor) -> list[Tensor]:
        """A tensor of every process, in their order."""
        if self.world == 1:
            return [state]
        listed: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(listed, state)
        return listed

    def placed(self, rows: Rows | Stream, loss: nn.Module) -> Rows | Stream:
        """Rows on the device of this process, where the loss goes too, their numbers of the type of its weights."""
        self.fabric.strategy.precision.convert_module(loss).to(self.device)
        return rows.to(self.device, next((w.dtype for w in loss.parameters()), torch.get_default_dtype()))

    @contextlib.contextmanager
    def telling_of_losses(self, run: Any) -> Iterator[None]:
        """Within the block, the end of another process is told in a sentence.

        Raises:
            ProcessLostError: it came.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or not any(word in str(error).lower() for word in LOST):
                raise
            ahead = "" if run is None else ", or resume=True (--resume) from its last checkpoint"
            raise ProcessLostError(
                f"process {self.rank} of {self.world}: another process of this training has ended, so this one "
                f"ends too. See what that one said, and start all of them again{ahead}."
            ) from error
