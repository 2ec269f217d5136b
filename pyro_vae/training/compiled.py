"""Compiled steps: loss, gradient, clipping, the optimizer's update and the average of weights as one graph."""

import functools
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from pyro_vae.compile.tracing import WEIGHTS, CompiledFunction, NotCompilable, lowered
from pyro_vae.model.programs import tensors_of
from pyro_vae.training.step import Stepper

LOOK = 1_000
"""Steps after which, at the start of an epoch, the graph is held to the step itself again."""

Batch = dict[str, Tensor]


class Compiled:
    """The steps of a stepper, whole ones as graphs.

    The first step of a training is made as it is, and shows what an optimizer remembers. Then, in one process with a
    declared optimizer and one batch a step, all of a step is one graph. Elsewhere, where gradients have to be added up
    first or an optimizer is not known, loss and gradient are one, and the rest is done as without. Steps on
    fewer rows, as an epoch may end with, are made as they are.

    Args:
        stepper: what makes the steps.
        rows: those of a whole step, over all batches and processes.
        quiet: whether nothing is to be said where there can be no graph.
    """

    def __init__(self, stepper: Stepper, rows: int, quiet: bool) -> None:
        self.stepper, self.rows, self.quiet = stepper, rows, quiet
        self.devices, self.running = stepper.devices, stepper.loss.running
        self.one = self.devices.world == 1 and stepper.declared.accumulate == 1 and stepper.known
        self.graphs: dict[int, CompiledFunction] = {}  # by the number of rows in a batch
        self.looked = 0
        groups = stepper.optimizer.param_groups
        self.weights = [weight for group in groups for weight in group["params"] if weight.requires_grad]
        self.numbers: dict[str, Tensor] = {}  # of the step to come, which graphs read
        self.written: dict[str, float | Tensor] = {}  # what these are
        stepper.compiled = True

    def __call__(self, batches: Iterable[Batch], last: int, rows: int, counts: bool = True) -> Tensor:
        """Make a step; see `Stepper`."""
        stepper = self.stepper
        if not stepper.compiled or rows != self.rows or self.running.step == 0:
            return stepper(batches, last, rows, counts)
        listed = list(batches)
        if not self.graphs:
            self._lower(listed, counts)
        elif self.running.step % self.running.steps_per_epoch == 0 and self.running.step >= self.looked + LOOK:
            self._look(listed[0])
        if not stepper.compiled:
            return stepper(listed, last, rows, counts)
        stepper.set_rates()
        share = 0.0 if stepper.average is None else stepper.average.next_share()
        self._write(share)
        if self.one:
            summed: Tensor = self._graph(listed[0])(listed[0])
        else:
            summed = self._added(listed)
            stepper.update(rows, share)
        stepper.after(summed, rows)
        return summed

    def _graph(self, batch: Batch) -> CompiledFunction:
        return self.graphs[batch["x"].shape[0]]

    def _write(self, share: float = 0.5) -> None:
        """Let the numbers be those of the step to come: a graph that had them as constants would be of one step."""
        rates = [group["lr"] for group in self.stepper.optimizer.param_groups]
        now = self.running.values | {f"lr {i}": rate for i, rate in enumerate(rates)} | {"ema share": share}
        for name, value in now.items():
            if isinstance(value, Tensor) or value != self.written.get(name):
                if name not in self.numbers:
                    like = value if isinstance(value, Tensor) else self.weights[0]
                    self.numbers[name] = torch.empty((), dtype=like.dtype, device=like.device)
                self.numbers[name].fill_(value)
        self.written = now

    def _lower(self, batches: list[Batch], counts: bool) -> None:
        """Make the graphs of a step's batches, or do without them."""
        reason = ""
        try:
            if getattr(self.devices.fabric.strategy.precision, "scaler", None) is not None:
                raise NotCompilable("precision='16-mixed' finds out by each step how the next is to be scaled")
            self._write()
            for batch in batches:
                n = len(batch["x"])
                if n not in self.graphs:
                    step = functools.partial(self._whole if self.one else self._gradient, counts)
                    self.graphs[n] = lowered(step, self._held(), batch)
        except NotCompilable as error:
            reason = str(error)
        if any(self.devices.any(bool(reason))):
            self._give_up("" if self.quiet else reason or "it cannot be compiled in another process")
        self.stepper.optimizer.zero_grad()  # for a graph leaves no gradients with the weights

    def _look(self, batch: Batch) -> None:
        """Go on without graphs, should the programs have become others since these were recorded."""
        self.looked = self.running.step
        self._write()
        difference = self._graph(batch).difference(batch)
        if any(self.devices.any(bool(difference))):
            epoch = int(self.running.epoch) + 1
            self._give_up(f"from epoch {epoch} on, {difference or 'something differs in another process'}")

    def _give_up(self, reason: str) -> None:
        self.graphs, self.stepper.compiled = {}, False
        if reason:
            warnings.warn(f"training runs uncompiled: {reason}.", stacklevel=6)

    def _held(self) -> dict[str, dict[str, Tensor]]:
        """Everything that a step reads and changes."""
        stepper = self.stepper
        held = {WEIGHTS: dict[str, Tensor](stepper.weights)}
        known = {id(weight): name for name, weight in stepper.weights.items()}
        held["a buffer"] = {n: tensor for n, tensor in tensors_of(stepper.loss.held).items() if id(tensor) not in known}
        held["a number"] = self.numbers
        if not self.one:
            return held
        for weight, kept in stepper.optimizer.state.items():
            for key, tensor in kept.items():
                if isinstance(tensor, Tensor):
                    held.setdefault(key, {})[known[id(weight)]] = tensor
        held["its average"] = {} if stepper.average is None else stepper.average.means
        return held | {"what is left out": {"steps": stepper.skips.counts, "this step": stepper.skips.found}}

    def _gradient(self, counts: bool, batch: Batch) -> tuple[Tensor, list[Tensor | None]]:
        """What a batch adds to a step: sums of the loss and its parts, and the gradient."""
        n = len(batch["x"]) if counts else 0
        values = {name: self.numbers[name] for name in self.running.schedules}
        with self.devices.fabric.autocast():
            loss, parts = self.stepper.loss(batch, values)
        gradients = torch.autograd.grad(loss * (n / self.rows), self.weights, allow_unused=True)
        return self.stepper.sums(parts, n), list(gradients)

    def _whole(self, counts: bool, batch: Batch) -> Tensor:
        """A step of one batch."""
        sums, gradients = self._gradient(counts, batch)
        groups = self.stepper.optimizer.param_groups
        before = [group["lr"] for group in groups]
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        for number, group in enumerate(groups):
            group["lr"] = self.numbers[f"lr {number}"]
        try:
            self.stepper.update(self.rows, self.numbers["ema share"])
        finally:
            for group, rate in zip(groups, before, strict=True):
                group["lr"] = rate
        return sums

    def _added(self, batches: list[Batch]) -> Tensor:
        """The sums of a step's batches; the gradient of all of them is left with the weights."""
        found = [self._graph(batch)(batch) for batch in batches]
        summed, total = found[0]
        for sums, gradients in found[1:]:
            summed = summed + sums
            total = [None if one is None else one + other for one, other in zip(total, gradients, strict=True)]
        for weight, gradient in zip(self.weights, total, strict=True):
            weight.grad = gradient
        if self.devices.world > 1:
            with_one = [weight for weight in self.weights if weight.grad is not None]
            flat = self.devices.total(torch.cat([weight.grad.flatten() for weight in with_one]))
            for weight, piece in zip(with_one, flat.split([weight.numel() for weight in with_one]), strict=True):
                weight.grad = piece.view_as(weight)
        return summed
