"""The processes of a training, one device each, in Fabric's terms.

With several processes each takes its shard of the rows of every step, and all have the same weights: together they make
the steps of one process. All of them decide alike, from reduced numbers, and only the first one writes and prints.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn

from pyro_vae.core.config import Record, field
from pyro_vae.core.errors import InputError, ProcessLostError
from pyro_vae.core.rng import seed_torch, seeded
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream

RANK_SEED_STRIDE = 1_000_003
"""The difference between the seeds of two processes."""

LOST_CONNECTION = (
    "connection closed",
    "connection reset",
    "broken pipe",
    "connection refused",
    "timed out",
    "nccl",
    "remote peer",
)
"""Phrases of the libraries' messages when a process does not answer."""


@dataclass(frozen=True)
class Runtime(Record):
    """Where and how precisely the numbers are computed, in Fabric's terms.

    With more than one process, `fit` starts the others, which run the same script or command from its beginning; under
    `torchrun`, or a cluster that Fabric knows, they run already, and `devices` and `num_nodes` need not be given.

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
    devices: int | Literal["auto"] = field(1, low=1)
    num_nodes: int = field(1, low=1)


def is_first_process() -> bool:
    """Whether this is the process that writes and prints, before its training starts."""
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


@contextlib.contextmanager
def restored_environment() -> Iterator[None]:
    """A block that leaves the environment variables as they were.

    Lightning sets what makes torch query the GPU's driver at every step, and MLflow's where the next writes.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


class ProcessGroup:
    """The processes of a training, as one of them sees it.

    Args:
        runtime: devices and precision.

    Raises:
        InputError: this machine does not have them.
    """

    def __init__(self, runtime: Runtime) -> None:
        with restored_environment():
            from lightning.fabric import Fabric  # here, for importing it takes seconds

        devices, nodes = runtime.devices, runtime.num_nodes
        if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun, which knows
            here = int(os.environ["LOCAL_WORLD_SIZE"])
            devices, nodes = here, int(os.environ["WORLD_SIZE"]) // here
        strategy = "ddp" if devices not in (1, "auto") or nodes > 1 else "auto"
        precision = runtime.precision or "32-true"  # by which Fabric leaves every type as it is, float64 too
        try:
            self.fabric = Fabric(
                accelerator=runtime.accelerator,
                strategy=strategy,
                devices=devices,
                num_nodes=nodes,
                precision=precision,
            )
        except (ValueError, RuntimeError, TypeError) as error:
            first = " ".join(str(error).split())
            raise InputError(f"{runtime} is not available here: {first.rstrip('.')}.") from error
        if self.fabric.strategy.launcher is not None:
            self.fabric.launch()
        self.rank: int = self.fabric.global_rank
        self.world_size: int = self.fabric.world_size
        self.device: torch.device = self.fabric.device

    @property
    def bypasses_fabric(self) -> bool:
        """Whether there is one process and one precision, so that steps need nothing of Fabric."""
        precision = type(self.fabric.strategy.precision).__name__
        return self.world_size == 1 and precision in ("Precision", "DoublePrecision")

    @property
    def is_rank0(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @contextlib.contextmanager
    def seeded(self, seed: int, outside: Any = contextlib.nullcontext) -> Iterator[None]:
        """Run with random numbers of our own, outside of Pyro's store, and leave the user's as they were."""
        with seeded(seed, self.device), outside():
            yield

    def shard(self, rows: Tensor) -> Tensor:
        """This process's rows of a step: at least one, which may not count; see `has_rows`."""
        if self.world_size == 1:
            return rows
        return rows[self.rank :: self.world_size] if len(rows) > self.rank else rows[:1]

    def has_rows(self, rows: Tensor) -> bool:
        """Whether the rows of `shard` count in this process."""
        return len(rows) > self.rank

    def all_reduce(self, numbers: Tensor) -> Tensor:
        """The sum of a tensor over all processes; the tensor itself where there is one."""
        if self.world_size == 1:
            return numbers
        summed: Any = self.fabric.all_reduce(numbers.clone(), reduce_op="sum")
        return torch.as_tensor(summed)

    def all_reduce_dict(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums of named tensors over all processes; the first has every name, and others may have fewer."""
        if self.world_size == 1:
            return dict(named)
        shapes: dict[str, torch.Size] = self.broadcast({name: tensor.shape for name, tensor in named.items()})
        zeros = {name: torch.zeros(shape, dtype=torch.float64, device=self.device) for name, shape in shapes.items()}
        return {name: self.all_reduce(named.get(name, zero).to(zero)) for name, zero in zeros.items()}

    def any_rank(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is true in any process."""
        if self.world_size == 1:
            return list(flags)
        return [bool(number) for number in self.all_reduce(torch.tensor(flags, device=self.device).double()).tolist()]

    def broadcast(self, thing: Any) -> Any:
        """The first process's object."""
        return thing if self.world_size == 1 else self.fabric.broadcast(thing)

    def run_on_rank0(self, function: Callable[[], Any]) -> Any:
        """The result of a function that only the first process calls; an exception is raised in all of them."""
        if self.world_size == 1:
            return function()
        value, failure = None, None
        try:
            value = function() if self.is_rank0 else None
        except Exception as error:  # raised in all processes
            failure = error
        value, failed = self.broadcast((value, failure))
        if failed is not None:
            raise failure or failed
        return value

    def sync_start(self, module: nn.Module, seed: int) -> None:
        """Start with the weights and buffers of the first process, and with random numbers of each process's own."""
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.numel():
                torch.distributed.broadcast(tensor.detach(), 0)
        if not self.is_rank0:
            seed_torch(seed + self.rank * RANK_SEED_STRIDE, self.device)

    def all_gather(self, state: Tensor) -> list[Tensor]:
        """A tensor of every process, in the order of their ranks."""
        if self.world_size == 1:
            return [state]
        listed: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(listed, state)
        return listed

    def to_device(self, rows: Rows | Stream, loss: nn.Module, dtype: torch.dtype | None = None) -> Rows | Stream:
        """Rows on the device of this process, of the type of the loss's weights; the loss is moved there too.

        Args:
            rows: the rows.
            loss: the module.
            dtype: a type to take for the rows instead.
        """
        self.fabric.strategy.precision.convert_module(loss).to(self.device)
        return rows.to(self.device, dtype or next((w.dtype for w in loss.parameters()), torch.get_default_dtype()))

    @contextlib.contextmanager
    def explain_lost_process(self, run: Any) -> Iterator[None]:
        """A block within which the end of another process is one clear error.

        Raises:
            ProcessLostError: another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world_size == 1 or not any(word in str(error).lower() for word in LOST_CONNECTION):
                raise
            ahead = "" if run is None else ", or resume=True (--resume) from its last checkpoint"
            raise ProcessLostError(
                f"process {self.rank} of {self.world_size}: another process of this training has ended, so this one "
                f"ends too. See that one's messages, and start all of them again{ahead}."
            ) from error
