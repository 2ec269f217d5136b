"""One step of an optimizer: the gradient of a mean over rows, however many batches and processes share them."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import hardshrink

from pyro_vae.core.errors import InputError
from pyro_vae.schedules import Schedule
from pyro_vae.training.distributed import Devices
from pyro_vae.training.ema import Average
from pyro_vae.training.loss import Given, Loss
from pyro_vae.training.nonfinite import Skips
from pyro_vae.training.optimizers import Optimizer

Asked = Optimizer | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""What a user gives: a declared optimizer, or a callable from parameters to a torch one."""

SWEEP = 100
"""Steps after which tiny moments are let go: of one that decays by 0.9 a step, 3e-5 is left then."""


class Stepper:
    """Makes steps, and what is done around them: scheduled rates, accumulation, clipping, averaging.

    Args:
        loss: the loss of a batch.
        weights: every trainable tensor by name.
        asked: the optimizer as declared.
        devices: where.

    Raises:
        InputError: the optimizer cannot be made.
    """

    def __init__(self, loss: Loss, weights: Mapping[str, nn.Parameter], asked: Asked, devices: Devices) -> None:
        self.loss, self.weights, self.devices = loss, weights, devices
        self.known = isinstance(asked, Optimizer)
        self.declared = asked if isinstance(asked, Optimizer) else Optimizer()
        self.optimizer = asked.build(weights) if isinstance(asked, Optimizer) else _made_by(asked, weights)
        self.rates = [*self.declared.groups(weights)] if isinstance(asked, Optimizer) else []
        self.scheduled = isinstance(self.declared.lr, Schedule) and bool(self.rates)
        held = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        trained = {name: weight for name, weight in weights.items() if id(weight) in held}
        self.average = None if self.declared.ema is None else Average(trained, self.declared.ema)
        self.skips = Skips(self.optimizer, self.declared.skip, devices.device)
        self.names: list[str] = []
        self.compiled = False  # whether its steps are compiled ones: see `Compiled`
        self.wrapped: Any = None
        self.backward: Any = None
        self.wrapped_optimizer: Any = None

    def wrap(self) -> None:
        """Let Fabric take the loss and the optimizer in hand, once it is settled which weights have a gradient."""
        fabric = self.devices.fabric
        if self.devices.plain:  # its wrappers take half a millisecond a step
            self.wrapped, self.wrapped_optimizer, self.backward = self.loss, self.optimizer, torch.Tensor.backward
        else:
            self.wrapped, self.wrapped_optimizer = (
                fabric.setup_module(self.loss),
                fabric.setup_optimizers(self.optimizer),
            )
            self.backward = fabric.backward

    @property
    def lr(self) -> dict[str, float]:
        """The learning rate at present, where it follows a schedule."""
        return {"lr": self.declared.rates(self.loss.running.epoch)[self.declared.lr]} if self.scheduled else {}

    def __call__(self, batches: Iterable[Mapping[str, Tensor]], last: int, rows: int, counts: bool = True) -> Tensor:
        """Make a step.

        Args:
            batches: what this process has of the step's rows.
            last: the number of these batches.
            rows: the number of the step's rows, over all batches and processes.
            counts: whether this process's rows count; see `Devices.counts`.

        Returns:
            The loss and its parts, summed over this process's rows: float64, in the order of `names`.
        """
        self.set_rates()
        summed = torch.zeros(())
        self.wrapped_optimizer.zero_grad()
        for number, batch in enumerate(batches, 1):
            n = len(batch["x"]) if counts else 0
            with self._apart(number < last):
                loss, parts = self.wrapped(Given(batch))
                share = n * self.devices.world / rows  # for DDP takes the mean over processes
                self.backward(loss if share == 1 else loss * share)
            sums = self.sums(parts, n)
            summed = sums if number == 1 else summed + sums
        self.update(rows, 0.0 if self.average is None else self.average.next_share())
        self.after(summed, rows)
        return summed

    def set_rates(self) -> None:
        """Let the learning rates be those of now."""
        if self.scheduled:
            now = self.declared.rates(self.loss.running.epoch)
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = now[rate]

    def sums(self, parts: Mapping[str, Tensor], n: int) -> Tensor:
        """The parts of a mean over n rows, summed over them; their names are noted."""
        self.names = list(parts)
        return torch.stack(list(parts.values())).double() * n  # or the sum of an epoch would be of float32

    def update(self, rows: int, share: float | Tensor) -> None:
        """Change the weights by the gradient that they have, which is that of so many rows.

        Args:
            rows: the number of the step's rows.
            share: how much of the weights their average takes up then.
        """
        self.skips.look(rows)
        if self.declared.clip_norm is not None:
            self._clip(self.declared.clip_norm)
        self.wrapped_optimizer.step()
        if self.average is not None:
            self.average.move(share)

    def after(self, summed: Tensor, rows: int) -> None:
        """A step has been made: let the clock go on, and schedules see what it came to."""
        running, seen = self.loss.running, {}
        if running.observes:
            means = dict(zip(self.names, self.devices.total(summed) / rows, strict=True))
            seen = {name: means[name] for name in ("log_likelihood", "kl")}
        memories = [*running.memory.buffers()] if self.skips.allowed else []
        before = [memory.clone() for memory in memories]
        running.advance(**seen)
        for memory, value in zip(memories, before, strict=True):
            memory.copy_(self.skips.without(memory, value))
        if running.step % SWEEP == 0 and self.devices.device.type == "cpu":
            self._sweep()

    def _sweep(self) -> None:
        """Let what an optimizer remembers of gradients that are long nothing be nothing.

        It decays by a share each step, and ends as denormal numbers, with which processors are many times slower.
        """
        for kept in self.optimizer.state.values():
            for moment in kept.values():
                if isinstance(moment, Tensor) and moment.is_floating_point() and moment.ndim:
                    info = torch.finfo(moment.dtype)
                    moment.copy_(hardshrink(moment, info.smallest_normal / info.eps))

    def _apart(self, within: bool) -> Any:
        """Let no process wait for the others' gradients, where more batches of the step are to come."""
        apart = within and not self.devices.plain
        return self.devices.fabric.no_backward_sync(self.wrapped) if apart else contextlib.nullcontext()

    def _clip(self, norm: float) -> None:
        if self.devices.plain:
            weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, norm)
        else:
            wrapped = self.wrapped, self.wrapped_optimizer
            self.devices.fabric.clip_gradients(*wrapped, max_norm=norm, error_if_nonfinite=False)


def _made_by(asked: Any, weights: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    made = asked(list(weights.values())) if callable(asked) else None
    if not isinstance(made, torch.optim.Optimizer):
        raise InputError(
            f"optimizer = {asked!r} makes no torch optimizer: write optimizer=pv.Adam(lr=1e-3), or a callable such "
            "as functools.partial(torch.optim.RMSprop, lr=1e-3)."
        )
    return made
