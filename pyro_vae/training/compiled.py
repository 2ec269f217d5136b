"""Compiled steps: loss, gradient, clipping, the optimizer's update and the average of weights as one graph."""

import functools
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.compile.tracing import WEIGHTS, CompiledFunction, NotCompilable, compile_function
from pyro_vae.model.programs import named_tensors
from pyro_vae.training.step import TrainStep

RECHECK_EVERY_STEPS = 1_000
"""Steps after which, at the start of an epoch, the graph is compared with the eager step again."""

Batch = dict[str, Tensor]


class CompiledStep:
    """A step that runs as graphs, made from an eager one.

    The first step of a training is eager, and shows the state of an optimizer. Then, in one process with a declared
    optimizer and one batch a step, the step is one graph. Elsewhere, where gradients have to be added up first or
    an optimizer is not a declared one, loss and gradient are one graph, and the rest is eager. Steps on fewer rows, as
    an epoch may end with, are eager.

    Args:
        eager: the step, for what is not compiled.
        rows: those of a full step, over all batches and processes.
        quiet: whether to warn of nothing where there can be no graph.
    """

    def __init__(self, eager: TrainStep, rows: int, quiet: bool) -> None:
        self.eager, self.state, self.rows, self.quiet = eager, eager.state, rows, quiet
        self.group, self.running = eager.group, eager.loss.running
        self.is_one_graph = self.group.world_size == 1 and eager.spec.accumulate_grad_batches == 1 and eager.is_declared
        self.graphs: dict[int, CompiledFunction] = {}  # by the number of rows in a batch
        self.last_check = 0
        groups = self.state.optimizer.param_groups
        self.weights = [weight for group in groups for weight in group["params"] if weight.requires_grad]
        self.numbers: dict[str, Tensor] = {}  # of the coming step, which graphs read
        self.written: dict[str, float | Tensor] = {}  # their values
        self.state.compiled = True

    def __call__(self, batches: Iterable[Batch], last: int, rows: int, counts: bool = True) -> Tensor:
        """Make a step; see `Step`."""
        if not self.state.compiled or rows != self.rows or self.running.step == 0:
            return self.eager(batches, last, rows, counts)
        listed = list(batches)
        if not self.graphs:
            self._compile(listed, counts)
        elif self._is_check_due:
            self._check(listed[0])
        if not self.state.compiled:
            return self.eager(listed, last, rows, counts)
        self.eager.set_rates()
        rate = 0.0 if self.state.ema is None else self.state.ema.next_rate()
        self._write(rate)
        if self.is_one_graph:
            summed: Tensor = self._run(listed[0])
        else:
            summed = self._accumulated(listed)
            self.eager.update(rows, rate)
        self.eager.finish_step(summed, rows)
        return summed

    @property
    def _is_check_due(self) -> bool:
        step = self.running.step
        return step % self.running.steps_per_epoch == 0 and step >= self.last_check + RECHECK_EVERY_STEPS

    def _run(self, batch: Batch) -> Any:
        return self.graphs[len(batch["x"])](batch)

    def _write(self, ema_rate: float = 0.5) -> None:
        """Write the numbers of the coming step: a graph that had them as constants would be of one step."""
        rates = [group["lr"] for group in self.state.optimizer.param_groups]
        now = self.running.values | {f"lr {i}": rate for i, rate in enumerate(rates)} | {"ema rate": ema_rate}
        for name, value in now.items():
            if isinstance(value, Tensor) or value != self.written.get(name):
                if name not in self.numbers:
                    like = value if isinstance(value, Tensor) else self.weights[0]
                    self.numbers[name] = torch.empty((), dtype=like.dtype, device=like.device)
                self.numbers[name].fill_(value)
        self.written = now

    def _compile(self, batches: list[Batch], counts: bool) -> None:
        """Make the graphs of a step's batches, or give up."""
        reason = ""
        try:
            if getattr(self.group.fabric.strategy.precision, "scaler", None) is not None:
                raise NotCompilable("precision='16-mixed' scales each step by what the one before has shown")
            self._write()
            for batch in batches:
                n = len(batch["x"])
                if n not in self.graphs:
                    step = functools.partial(self._full_step if self.is_one_graph else self._gradient, counts)
                    self.graphs[n] = compile_function(step, self._held(), batch)
        except NotCompilable as error:
            reason = str(error)
        if any(self.group.any_rank(bool(reason))):
            self._give_up("" if self.quiet else reason or "it cannot be compiled in another process")
        self.state.optimizer.zero_grad()  # for a graph leaves no gradients with the weights

    def _check(self, batch: Batch) -> None:
        """Give up the graphs if the programs have changed since these were recorded."""
        self.last_check = self.running.step
        self._write()
        difference = self.graphs[len(batch["x"])].difference(batch)
        if any(self.group.any_rank(bool(difference))):
            epoch = int(self.running.epoch) + 1
            self._give_up(f"from epoch {epoch} on, {difference or 'something differs in another process'}")

    def _give_up(self, reason: str) -> None:
        self.graphs, self.state.compiled = {}, False
        if reason:
            warnings.warn(f"training runs uncompiled: {reason}.", stacklevel=6)

    def _held(self) -> dict[str, dict[str, Tensor]]:
        """Everything that a step reads and changes."""
        state = self.state
        held = {WEIGHTS: dict[str, Tensor](state.weights)}
        known = {id(weight): name for name, weight in state.weights.items()}
        tensors = named_tensors(state.loss.held)
        held["a buffer"] = {name: tensor for name, tensor in tensors.items() if id(tensor) not in known}
        held["a number"] = self.numbers
        if not self.is_one_graph:
            return held
        for weight, kept in state.optimizer.state.items():
            for key, tensor in kept.items():
                if isinstance(tensor, Tensor):
                    held.setdefault(key, {})[known[id(weight)]] = tensor
        held["its average"] = {} if state.ema is None else state.ema.means
        return held | {"skipped steps": {"counts": state.nonfinite.counts, "this step": state.nonfinite.found}}

    def _gradient(self, counts: bool, batch: Batch) -> tuple[Tensor, list[Tensor | None]]:
        """Sums of the loss and its parts over a batch, and the gradient that it adds to a step."""
        n = len(batch["x"]) if counts else 0
        values = {name: self.numbers[name] for name in self.running.schedules}
        with self.group.fabric.autocast():
            loss, parts = self.eager.loss(batch, values)
        gradients = torch.autograd.grad(loss * (n / self.rows), self.weights, allow_unused=True)
        return self.eager.sums(parts, n), list(gradients)

    def _full_step(self, counts: bool, batch: Batch) -> Tensor:
        """Sums of the loss and its parts over the one batch of a step, whose update is made."""
        sums, gradients = self._gradient(counts, batch)
        groups = self.state.optimizer.param_groups
        before = [group["lr"] for group in groups]
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        for number, group in enumerate(groups):
            group["lr"] = self.numbers[f"lr {number}"]
        try:
            self.eager.update(self.rows, self.numbers["ema rate"])
        finally:
            for group, rate in zip(groups, before, strict=True):
                group["lr"] = rate
        return sums

    def _accumulated(self, batches: list[Batch]) -> Tensor:
        """Sums over a step's batches; their gradient is left with the weights."""
        found = [self._run(batch) for batch in batches]
        summed, total = found[0]
        for sums, gradients in found[1:]:
            summed = summed + sums
            total = [None if one is None else one + other for one, other in zip(total, gradients, strict=True)]
        for weight, gradient in zip(self.weights, total, strict=True):
            weight.grad = gradient
        if self.group.world_size > 1:
            with_gradient = [weight for weight in self.weights if weight.grad is not None]
            flat = self.group.all_reduce(torch.cat([weight.grad.flatten() for weight in with_gradient]))
            for weight, piece in zip(with_gradient, flat.split([w.numel() for w in with_gradient]), strict=True):
                weight.grad = piece.view_as(weight)
        return summed
