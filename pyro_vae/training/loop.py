"""The loop of `fit`: epochs of steps, the record of each, checkpoints, and the end.

A step has no host sync (no `.item()`): the numbers of an epoch are read once, at its end, and in between the loss is
only from time to time checked to be finite. Several processes agree at the same steps on everything that one of them
may have seen.
"""

import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.core.errors import InputError
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream
from pyro_vae.networks.base import evaluating
from pyro_vae.training import signals
from pyro_vae.training.checkpoints import CheckpointManager
from pyro_vae.training.compiled import CompiledStep
from pyro_vae.training.divergence import DivergenceRecorder, diagnose
from pyro_vae.training.loss import resting_modules, train_mode
from pyro_vae.training.profile import StepProfiler
from pyro_vae.training.progress import ProgressReporter
from pyro_vae.training.step import Step, TrainStep
from pyro_vae.training.termination import Termination
from pyro_vae.training.train_state import TrainState

EVALUATION_ROWS = 1000
"""Rows per batch of an evaluation, and training rows that stand in where there are no validation data."""

CHECK_FINITE_EVERY_STEPS = 100
"""Steps between two checks that the loss is finite: they sync with the device, and no other step does."""

SYNC_RANKS_EVERY_STEPS = 10
"""Steps after which processes exchange signals, and whether a checkpoint is due."""

COMPILE_FROM_STEPS = {"cuda": 2_000, "other": 5_000}
"""Steps of a training from which on compile="auto" compiles, by device: where it takes about as long as it saves."""


class Loop:
    """The epochs of one call of `fit`.

    Args:
        state: of the training.
        step: the eager step.
        termination: when to end before the last epoch.
        manager: of the checkpoints; None in all processes but the first, and without checkpoints.
        saves: whether there are checkpoints.
        has_levels: whether to record bits per dimension.
        profiler: of some steps; None for none.
        shuffles: whether batches are of shuffled rows; programs with a value of each row need them in their order.
    """

    def __init__(
        self,
        state: TrainState,
        step: TrainStep,
        termination: Termination,
        manager: CheckpointManager | None,
        saves: bool,
        has_levels: bool,
        profiler: StepProfiler | None = None,
        shuffles: bool = True,
    ) -> None:
        self.state, self.eager, self.loss, self.group = state, step, state.loss, state.group
        self.termination, self.manager, self.saves = termination, manager, saves
        self.has_levels, self.profiler, self.shuffles = has_levels, profiler, shuffles
        self.recorder = DivergenceRecorder(state.weights)
        self.diagnose: Callable[[], str] = str  # of a divergence, in the running epoch
        self.unused: list[nn.Parameter] = []
        self.resting = resting_modules(termination.programs)  # before weights are frozen that get no gradient
        self.step: Step = step

    def begin(
        self,
        rows: Rows | Stream,
        batch_size: int,
        compile: bool | str,
        steps: int,
        checkpoint: tuple[dict[str, Any], str] | None,
    ) -> None:
        """Make everything ready for the first step.

        Args:
            rows: the data.
            batch_size: rows of a full batch, over all processes.
            compile: whether to compile; see `fit`.
            steps: the number of steps of all epochs.
            checkpoint: the tree to resume from, and its name.

        Raises:
            InputError: several processes cannot train these programs, or resume from this checkpoint.
        """
        if self.group.world_size > 1:
            known = {id(weight) for weight in self.loss.parameters()}
            if stored := [name for name, weight in self.state.weights.items() if id(weight) not in known]:
                raise InputError(
                    f"{stored[0]!r} lies in Pyro's parameter store, which processes do not share: keep weights "
                    "in torch modules, or train in one process, runtime=pv.Runtime(devices=1)."
                )
            self.group.sync_start(self.loss, self.state.seed)
            self._freeze_unused(rows, batch_size)
        compiles = compile is True
        if compile == "auto":
            compiles = steps >= COMPILE_FROM_STEPS.get(self.group.device.type, COMPILE_FROM_STEPS["other"])
            if checkpoint is not None:  # there may be more epochs now, and it is the same training
                compiles = bool(checkpoint[0]["machine"]["compiled"])
        if compiles:
            full = min(batch_size * self.eager.spec.accumulate_grad_batches, len(rows))
            self.step = CompiledStep(self.eager, full, quiet=compile == "auto")
        if self.state.ema is not None:
            self.state.ema.reset()
        if checkpoint is not None:
            self.state.load_state_dict(*checkpoint)
        self.eager.wrap()

    def _freeze_unused(self, rows: Rows | Stream, batch_size: int) -> None:
        """Freeze weights that get no gradient: each process would wait for that of the others."""
        weights = {name: weight for name, weight in self.state.weights.items() if weight.requires_grad}
        with self.group.seeded(self.state.seed), evaluating(self.loss.held):
            loss, _ = self.loss(rows.head_sample(max(batch_size, 2)).batch())
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            if gradient is None:
                self.unused.append(weight.requires_grad_(False))

    def train(
        self, rows: Rows | Stream, held: Rows | Stream | None, epochs: int, batch_size: int, reporter: ProgressReporter
    ) -> signal.Signals | None:
        """Train to the end, or to a signal, which is returned."""
        state, subject = self.state, rows.head_sample(EVALUATION_ROWS) if held is None else held
        reporter.begin(state.steps)
        both = (signal.SIGINT, signal.SIGTERM)
        saved = False
        try:
            with signals.deferred(*both[: 2 if self.saves else 1]) as stop:
                while state.epoch <= epochs and not stop.by and not state.stop_reason:
                    start = time.perf_counter() - state.seconds
                    train_mode(self.eager.wrapped, self.resting)
                    self._epoch(rows, batch_size, reporter, stop, start)
                    if stop.by:
                        state.seconds = time.perf_counter() - start
                        break
                    record = self._record(len(rows), subject, held is not None)
                    record["seconds"] = time.perf_counter() - start
                    pixels = [subject.n_observed if subject and self.has_levels else 0.0 for subject in (rows, held)]
                    state.history.add(record, *pixels)
                    reporter.epoch(record)
                    failure = self.termination.after_epoch()
                    state.next_epoch()
                    self._save_epoch(record.get("validation_loss", record["loss"]))
                    if failure is not None:
                        if self.saves:
                            self._save()
                        raise failure
                    self._sync_ranks(stop)
                saved = self.saves and self._save()
                self._sync_ranks(stop)
            if (state.epoch <= epochs and not state.stop_reason) or stop.by == signal.SIGTERM:
                where = f"in epoch {state.epoch} of {epochs}" if state.epoch <= epochs else "after the last epoch"
                remedy = "; resume=True (--resume) continues from there" if saved else ""
                state.history.stopped = f"{signals.WORDS[stop.by or signal.SIGINT]} {where}{remedy}"
            return stop.by
        except KeyboardInterrupt:  # in the middle of a step, of which there can be no checkpoint
            state.history.stopped = f"interrupted in epoch {state.epoch} of {epochs}"
            return signal.SIGINT
        finally:
            self.eager.wrapped.eval()
            for weight in self.unused:
                weight.requires_grad_(True)

    def _epoch(
        self, rows: Rows | Stream, batch_size: int, reporter: ProgressReporter, stop: signals.Stop, start: float
    ) -> None:
        """Make the remaining steps of one pass over the data, summing the loss and its parts, or until a signal."""
        state, group, accumulate = self.state, self.group, self.eager.spec.accumulate_grad_batches
        order = rows.order(state.order) if self.shuffles else torch.arange(len(rows))
        steps = order.split(batch_size * accumulate)
        size = math.ceil(batch_size / group.world_size)
        mine = [group.shard(step) for step in steps]
        ahead = [part.split(size) if len(part) > size else (part,) for part in mine[state.done :]]
        self.diagnose = lambda: diagnose(self.recorder, self.loss, rows, mine)
        self.recorder.mark_good(state.done)
        read = rows.read([part for parts in ahead for part in parts], state.epoch)
        for step, parts in zip(steps[state.done :], ahead, strict=True):
            batches: Iterator[dict[str, Tensor]] = itertools.islice(read, len(parts))
            sums = self.step(batches, len(parts), len(step), group.has_rows(step))
            state.totals = state.totals + state.nonfinite.mask(sums)
            self.recorder.sums.append(state.nonfinite.mask(sums, math.nan))
            if not state.steps:
                self.recorder.start = sums * group.world_size / len(step)
            state.done, state.steps = state.done + 1, state.steps + 1
            reporter.step()
            if self.profiler is not None:
                self.profiler.step()
            if state.done % CHECK_FINITE_EVERY_STEPS == 0:
                self._require_finite()
                self.recorder.mark_good(state.done)
                reporter.update(state.names, state.totals * (group.world_size / (state.done * len(step))))
            if group.world_size == 1 or state.done % SYNC_RANKS_EVERY_STEPS == 0:
                due = self._sync_ranks(stop)
                if stop.by:
                    return
                if due and state.done < len(steps):
                    state.seconds = time.perf_counter() - start
                    self._save()

    def _sync_ranks(self, stop: signals.Stop) -> bool:
        """Whether a checkpoint is due, and in all processes the signal that one of them got."""
        due = self.manager is not None and self.manager.is_due()
        if self.group.world_size > 1:
            *came, due = self.group.any_rank(stop.by == signal.SIGINT, stop.by == signal.SIGTERM, due)
            stop.by = signal.SIGTERM if came[1] else signal.SIGINT if came[0] else None
        return due

    def _record(self, rows: int, subject: Rows | Stream, held: bool) -> dict[str, float]:
        """Record of an epoch: means per row of the loss and its parts, read once, and the evaluation after it."""
        self._require_finite()
        state = self.state
        skipped, left_out = state.nonfinite.counts[:2].tolist()
        totals = self.group.all_reduce(state.totals) / max(1.0, rows - left_out)
        record = {"epoch": state.epoch, "seconds": 0.0, **dict(zip(state.names, totals.tolist(), strict=True))}
        record |= {"skipped": skipped} if state.nonfinite.max_steps else {}
        record |= {name: float(value) for name, value in self.loss.running.values.items()} | self.eager.lr
        with state.averaged_weights():
            return record | self._evaluate(subject, held)

    def _save_epoch(self, score: float) -> None:
        """Keep the state after an epoch as the best, and save it, if it is time."""
        if not self.saves:
            return
        manager = self.manager
        flags = (False, False) if manager is None else (manager.is_better(score), manager.is_due(self.state.epoch - 1))
        best, due = self.group.any_rank(*flags)
        if best:
            tree = self._state_dict()
            if manager is not None:
                manager.keep(score, tree)
        if due:
            self._save()

    def _save(self) -> bool:
        """Whether there is a checkpoint of this moment, which is written."""
        tree = self._state_dict()
        return self.group.any_rank(self.manager is not None and self.manager.save(tree))[0]

    def _state_dict(self) -> dict[str, Any]:
        if self.state.done:
            self._require_finite()
        self.state.require_finite_weights(self._advice)
        return self.state.state_dict()

    @property
    def _advice(self) -> str:
        return "" if self.manager is None else self.manager.advice()

    def _require_finite(self) -> None:
        """Check that the loss is finite, which syncs with the device.

        Raises:
            FloatingPointError: the loss is NaN or infinite, or too many steps were skipped.
        """
        state, guard = self.state, self.state.nonfinite
        loss = float(self.group.all_reduce(state.totals[state.names.index("loss")]))
        what = "" if math.isfinite(loss) else f"the loss is {loss}"
        if guard.max_steps and (count := int(guard.counts[2])) > guard.max_steps:
            what = (
                f"the gradient of {count} steps was NaN or infinite, more than max_nonfinite_steps = {guard.max_steps},"
            )
        if what:
            raise FloatingPointError(state.divergence_message(what) + self.diagnose() + self._advice)

    def _evaluate(self, subject: Rows | Stream, held: bool) -> dict[str, float]:
        """The parts of the bound on held-out rows, or the KL per latent on some training rows.

        Each batch has random numbers of its own, so that it does not matter which process takes it.
        """
        self.eager.wrapped.eval()
        plan = torch.arange(len(subject)).split(EVALUATION_ROWS)
        mine = range(self.group.rank, len(plan), self.group.world_size)
        read, totals = subject.read([plan[number] for number in mine]), dict[str, Tensor]()
        for number in mine:
            with self.group.seeded(self.state.seed + number):
                for name, value in self.loss.parts(next(read)).items():
                    totals[name] = totals.get(name, 0) + value.double() * (len(plan[number]) / len(subject))
        record: dict[str, float] = {}
        for name, value in self.group.all_reduce_dict(totals).items():
            if value.ndim == 0 and held:
                record[f"validation_{name}"] = float(value)
            elif value.ndim:
                record |= {f"{name}_{i}": float(v) for i, v in enumerate(value.flatten())}
        return record
