"""One step of an optimizer: the gradient of a mean over rows, however many batches and processes share them."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from pyro_vae.schedules import Schedule
from pyro_vae.training.loss import OpaqueBatch
from pyro_vae.training.optimizers import Optimizer, OptimizerLike
from pyro_vae.training.train_state import TrainState

FLUSH_EVERY_STEPS = 100
"""Steps between flushes of tiny moments to zero: a moment that decays by 0.9 a step is 3e-5 of itself by then."""


class Step(Protocol):
    """A step of training, eager or compiled."""

    def __call__(self, batches: Iterable[dict[str, Tensor]], last: int, rows: int, counts: bool = True) -> Tensor:
        """Make a step.

        Args:
            batches: this process's batches of the step's rows.
            last: the number of these batches.
            rows: the number of the step's rows, over all batches and processes.
            counts: whether this process's rows count; see `ProcessGroup.has_rows`.

        Returns:
            The loss and its parts, summed over this process's rows: float64, in the order of `TrainState.names`.
        """


class TrainStep:
    """The eager step: scheduled rates, accumulation, clipping, the optimizer's update and averaging.

    Args:
        state: of the training, which steps change.
        spec: the optimizer as declared.
    """

    def __init__(self, state: TrainState, spec: OptimizerLike) -> None:
        self.state, self.loss, self.group = state, state.loss, state.group
        self.is_declared = isinstance(spec, Optimizer)
        self.spec = spec if isinstance(spec, Optimizer) else Optimizer()
        self.rates = [*spec.groups(state.weights)] if isinstance(spec, Optimizer) else []
        self.is_scheduled = isinstance(self.spec.lr, Schedule) and bool(self.rates)
        self.wrapped: Any = None
        self.backward: Any = None
        self.wrapped_optimizer: Any = None

    def wrap(self) -> None:
        """Let Fabric wrap the loss and the optimizer, once it is known which weights have a gradient."""
        fabric = self.group.fabric
        if self.group.bypasses_fabric:  # its wrappers take half a millisecond a step
            self.wrapped, self.wrapped_optimizer, self.backward = self.loss, self.state.optimizer, torch.Tensor.backward
            return
        self.wrapped, self.wrapped_optimizer = (
            fabric.setup_module(self.loss),
            fabric.setup_optimizers(self.state.optimizer),
        )
        self.backward = fabric.backward

    @property
    def lr(self) -> dict[str, float]:
        """The present learning rate as a record, where it follows a schedule."""
        return {"lr": self.spec.rates(self.loss.running.epoch)[self.spec.lr]} if self.is_scheduled else {}

    def __call__(self, batches: Iterable[dict[str, Tensor]], last: int, rows: int, counts: bool = True) -> Tensor:
        """Make a step; see `Step`."""
        self.set_rates()
        summed = torch.zeros(())
        self.wrapped_optimizer.zero_grad()
        for number, batch in enumerate(batches, 1):
            n = len(batch["x"]) if counts else 0
            with self._no_sync(number < last):
                loss, parts = self.wrapped(OpaqueBatch(batch))
                share = n * self.group.world_size / rows  # for DDP takes the mean over processes
                self.backward(loss if share == 1 else loss * share)
            sums = self.sums(parts, n)
            summed = sums if number == 1 else summed + sums
        ema = self.state.ema
        self.update(rows, 0.0 if ema is None else ema.next_rate())
        self.finish_step(summed, rows)
        return summed

    def set_rates(self) -> None:
        """Set the learning rates to their present values."""
        if self.is_scheduled:
            now = self.spec.rates(self.loss.running.epoch)
            for group, rate in zip(self.state.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = now[rate]

    def sums(self, parts: Mapping[str, Tensor], n: int) -> Tensor:
        """Sums over n rows of parts that are means over them; the state gets their names."""
        self.state.names = list(parts)
        return torch.stack(list(parts.values())).double() * n  # or the sum of an epoch would be of float32

    def update(self, rows: int, ema_rate: float | Tensor) -> None:
        """Change the weights by the gradient of so many rows, and then their average, at the rate 1 - d."""
        self.state.nonfinite.check_finite(rows)
        if self.spec.clip_norm is not None:
            self._clip(self.spec.clip_norm)
        self.wrapped_optimizer.step()
        if self.state.ema is not None:
            self.state.ema.update(ema_rate)

    def finish_step(self, summed: Tensor, rows: int) -> None:
        """Advance the clock after a step, and let schedules observe its sums."""
        running, nonfinite, observed = self.loss.running, self.state.nonfinite, {}
        if running.is_adaptive:
            means = dict(zip(self.state.names, self.group.all_reduce(summed) / rows, strict=True))
            observed = {name: means[name] for name in ("log_likelihood", "kl")}
        memories = [*running.state.buffers()] if nonfinite.max_steps else []
        before = [memory.clone() for memory in memories]
        running.advance(**observed)
        for memory, value in zip(memories, before, strict=True):
            memory.copy_(nonfinite.mask(memory, value))
        if running.step % FLUSH_EVERY_STEPS == 0 and self.group.device.type == "cpu":
            self._flush_moments()

    def _flush_moments(self) -> None:
        """Set tiny moments of the optimizer to zero.

        Moments of gradients that have vanished decay to denormal numbers, with which processors are many times slower.
        """
        for kept in self.state.optimizer.state.values():
            for moment in kept.values():
                if isinstance(moment, Tensor) and moment.is_floating_point() and moment.ndim:
                    info = torch.finfo(moment.dtype)
                    moment.copy_(hardshrink(moment, info.smallest_normal / info.eps))

    def _no_sync(self, more: bool) -> Any:
        """A block without a gradient sync between processes, where more batches of the step are to come."""
        skips = more and not self.group.bypasses_fabric
        return self.group.fabric.no_backward_sync(self.wrapped) if skips else contextlib.nullcontext()

    def _clip(self, norm: float) -> None:
        if self.group.bypasses_fabric:
            weights = [weight for group in self.state.optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, norm)
        else:
            wrapped = self.wrapped, self.wrapped_optimizer
            self.group.fabric.clip_gradients(*wrapped, max_norm=norm, error_if_nonfinite=False)
