"""The loop of `fit`: epochs of steps, what is recorded of them, and when it ends.

A step waits for nothing (no `.item()`): the numbers of an epoch are read once, at its end, and in between it is only
looked from time to time whether the loss is still a number. Where there are several processes, they agree at the same
steps on everything that one of them may have seen.
"""

import contextlib
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
from pyro_vae.training import signals
from pyro_vae.training.checkpoints import CheckpointManager
from pyro_vae.training.compiled import Compiled
from pyro_vae.training.divergence import Recorder, diagnose
from pyro_vae.training.profile import Profile
from pyro_vae.training.progress import Reporter
from pyro_vae.training.step import Stepper
from pyro_vae.training.termination import Termination
from pyro_vae.training.train_state import State

EVALUATION_ROWS = 1000
"""Rows per batch of an evaluation, and training rows that stand in where there are no validation data."""

LOOK = 100
"""Steps after which it is looked whether the loss is still a number: the device is waited for then, and not between."""

AGREE = 10
"""Steps after which several processes tell each other of signals, and whether it is time to save."""

PAYS = {"cuda": 2_000}
"""Steps from which on compile="auto" compiles, by device."""

PAYS_ELSEWHERE = 5_000
"""The same of any other: a compiler takes about as long as it saves there."""


class Loop:
    """One training: everything that one call of `fit` needs beside its data.

    Args:
        stepper: makes the steps.
        at: where the training stands.
        keeper: of its checkpoints; None in all processes but the first, and without checkpoints.
        saving: whether there are checkpoints.
        levels: whether bits per dimension are to be told.
        ending: when to end before the last epoch.
        profile: looks at some steps; None for none.
    """

    def __init__(
        self,
        stepper: Stepper,
        at: State,
        keeper: CheckpointManager | None,
        saving: bool,
        levels: bool,
        ending: Termination,
        profile: Profile | None = None,
    ) -> None:
        self.stepper, self.loss, self.devices, self.at = stepper, stepper.loss, stepper.devices, at
        self.keeper, self.saving, self.levels = keeper, saving, levels
        self.ending, self.profile = ending, profile
        self.recorder = Recorder(at.weights)
        self.diagnose: Callable[[], str] = str  # of a divergence, in the epoch that is under way
        self.unused: list[nn.Parameter] = []
        self.step: Callable[..., Tensor] = stepper

    def begin(
        self,
        rows: Rows | Stream,
        batch_size: int,
        compile: bool | str,
        steps: int,
        found: tuple[dict[str, Any], str] | None,
    ) -> None:
        """Make everything ready for the first step.

        Args:
            rows: the data.
            batch_size: rows of a whole batch, over all processes.
            compile: whether to compile; see `fit`.
            steps: how many steps there will be.
            found: the checkpoint to go on from, and its name.
        """
        if self.devices.world > 1:
            if self._stored:
                raise InputError(
                    f"{self._stored[0]!r} lies in Pyro's parameter store, which processes do not share: keep weights "
                    "in torch modules, or train in one process, runtime=pv.Runtime(devices=1)."
                )
            self.devices.alike(self.loss)
            self.devices.apart(self.at.seed)
            self._rest_unused(rows)
        wanted = compile is True
        if compile == "auto":
            wanted = steps >= PAYS.get(self.devices.device.type, PAYS_ELSEWHERE)
            if found is not None:  # more epochs may be asked for now, and it is the same training
                wanted = bool(found[0]["machine"]["compiled"])
        if wanted:
            whole = min(batch_size * self.stepper.declared.accumulate, len(rows))
            self.step = Compiled(self.stepper, whole, quiet=compile == "auto")
        if self.stepper.average is not None:
            self.stepper.average.begin()
        if found is not None:
            self.at.restore(*found)
        self.stepper.wrap()

    @property
    def _stored(self) -> list[str]:
        """The weights that lie in Pyro's store."""
        known = {id(weight) for weight in self.loss.parameters()}
        return [name for name, weight in self.at.weights.items() if id(weight) not in known]

    def _rest_unused(self, rows: Rows | Stream) -> None:
        """Weights that get no gradient want none: each process would wait for that of the others."""
        weights = {name: weight for name, weight in self.at.weights.items() if weight.requires_grad}
        with self.devices.seeded(self.at.seed):
            loss, _ = self.loss(rows.head_sample(2).batch())
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            if gradient is None:
                self.unused.append(weight.requires_grad_(False))

    def train(
        self, rows: Rows | Stream, held: Rows | Stream | None, epochs: int, batch_size: int, reporter: Reporter
    ) -> signal.Signals | None:
        """Train to the end, or to a signal; returns which."""
        at, subject = self.at, rows.head_sample(EVALUATION_ROWS) if held is None else held
        reporter.begin(at.steps)
        both = (signal.SIGINT, signal.SIGTERM)
        saved = False
        try:
            with signals.deferred(*both[: 2 if self.saving else 1]) as stop:
                while at.epoch <= epochs and not stop.by and not self.ending.reason:
                    start = time.perf_counter() - at.seconds
                    self.stepper.wrapped.train()
                    self._epoch(rows, batch_size, reporter, stop, start)
                    if stop.by:
                        at.seconds = time.perf_counter() - start
                        break
                    record = self._record(len(rows), subject, held is not None)
                    record["seconds"] = time.perf_counter() - start
                    pixels = [subject.n_observed if subject and self.levels else 0.0 for subject in (rows, held)]
                    at.history.add(record, *pixels)
                    reporter.epoch(record)
                    failure = self.ending.after_epoch()
                    at.next_epoch()
                    self._after_epoch(record.get("validation_loss", record["loss"]))
                    if failure is not None:
                        if self.saving:
                            self._save()
                        raise failure
                    self._agree(stop)
                saved = self.saving and self._save()
                self._agree(stop)
            if (at.epoch <= epochs and not self.ending.reason) or stop.by == signal.SIGTERM:
                where = f"in epoch {at.epoch} of {epochs}" if at.epoch <= epochs else "after the last epoch"
                ahead = "; resume=True (--resume) goes on from there" if saved else ""
                at.history.stopped = f"{stop.word} {where}{ahead}"
            return stop.by
        except KeyboardInterrupt:  # in the middle of a step, of which no checkpoint can be
            at.history.stopped = f"interrupted in epoch {at.epoch} of {epochs}"
            return signal.SIGINT
        finally:
            self.stepper.wrapped.eval()
            for weight in self.unused:
                weight.requires_grad_(True)

    def _epoch(
        self, rows: Rows | Stream, batch_size: int, reporter: Reporter, stop: signals.Stop, start: float
    ) -> None:
        """What is left of one pass over the data, adding up the loss and its parts, until somebody wants a stop."""
        at, devices, accumulate = self.at, self.devices, self.stepper.declared.accumulate
        steps = rows.order(at.order).split(batch_size * accumulate)
        size = math.ceil(batch_size / devices.world)
        mine = [devices.part(step) for step in steps]
        ahead = [part.split(size) if len(part) > size else (part,) for part in mine[at.done :]]
        self.diagnose = lambda: diagnose(self.recorder, self.loss, rows, mine)
        self.recorder.good(at.done)
        read = rows.read([part for parts in ahead for part in parts], at.epoch)
        for step, parts in zip(steps[at.done :], ahead, strict=True):
            batches: Iterator[dict[str, Tensor]] = itertools.islice(read, len(parts))
            sums = self.step(batches, len(parts), len(step), devices.counts(step))
            at.names = self.stepper.names
            at.totals = at.totals + at.skips.without(sums)
            self.recorder.step(at.skips.without(sums, math.nan))
            at.done, at.steps = at.done + 1, at.steps + 1
            reporter.step()
            if self.profile is not None:
                self.profile.step()
            if at.done % LOOK == 0:
                self._require_finite()
                self.recorder.good(at.done)
                reporter.now(at.names, at.totals * (devices.world / (at.done * len(step))))
            if devices.world == 1 or at.done % AGREE == 0:
                due = self._agree(stop)
                if stop.by:
                    return
                if due and at.done < len(steps):
                    at.seconds = time.perf_counter() - start
                    self._save()

    def _agree(self, stop: signals.Stop) -> bool:
        """Let all processes know of a signal that one of them got; returns whether it is time to save."""
        due = self.keeper is not None and self.keeper.is_due()
        if self.devices.world > 1:
            *came, due = self.devices.any(stop.by == signal.SIGINT, stop.by == signal.SIGTERM, due)
            stop.by = signal.SIGTERM if came[1] else signal.SIGINT if came[0] else None
        return due

    def _record(self, rows: int, subject: Rows | Stream, held: bool) -> dict[str, float]:
        """What an epoch came to: means per row of the loss and its parts, read once, and the numbers after it."""
        self._require_finite()
        skipped, left_out = self.at.skips.counts[:2].tolist()
        totals = self.devices.total(self.at.totals) / max(1.0, rows - left_out)
        record = {"epoch": self.at.epoch, "seconds": 0.0, **dict(zip(self.at.names, totals.tolist(), strict=True))}
        record |= {"skipped": skipped} if self.at.skips.allowed else {}
        record |= {name: float(value) for name, value in self.loss.running.values.items()} | self.stepper.lr
        average = self.stepper.average
        with average.in_place() if average is not None else contextlib.nullcontext():
            return record | self._evaluate(subject, held)

    def _after_epoch(self, score: float) -> None:
        """An epoch is done: keep the best, and save, if it is time."""
        if not self.saving:
            return
        keeper, epoch = self.keeper, self.at.epoch - 1
        best, due = self.devices.any(
            keeper is not None and keeper.is_better(score), keeper is not None and keeper.is_due(epoch)
        )
        if best:
            tree = self._capture()
            if keeper is not None:
                keeper.keep(score, tree)
        if due:
            self._save()

    def _save(self) -> bool:
        """Write a checkpoint of this moment; returns whether there is one."""
        tree = self._capture()
        return self.devices.any(self.keeper is not None and self.keeper.save(tree))[0]

    def _capture(self) -> dict[str, Any]:
        if self.at.done:
            self._require_finite()
        self.at.require_finite_weights(self._advice())
        return self.at.capture()

    def _advice(self) -> str:
        return "" if self.keeper is None else self.keeper.advice()

    def _require_finite(self) -> None:
        """Wait for the device, and raise if the loss is no number any more."""
        loss = float(self.devices.total(self.at.totals[self.at.names.index("loss")]))
        skips = self.at.skips
        if skips.allowed and (count := int(skips.counts[2])) > skips.allowed:
            told = f"the gradient of {count} steps was no number, and skip = {skips.allowed} allows for fewer,"
            raise FloatingPointError(self.at.diverged(told) + self.diagnose() + self._advice())
        if not math.isfinite(loss):
            raise FloatingPointError(self.at.diverged(f"the loss is {loss}") + self.diagnose() + self._advice())

    def _evaluate(self, subject: Rows | Stream, held: bool) -> dict[str, float]:
        """The parts of the bound on held-out rows, or the KL per latent on some training rows.

        Each batch has random numbers of its own, so that it does not matter which process takes it.
        """
        self.stepper.wrapped.eval()
        plan = torch.arange(len(subject)).split(EVALUATION_ROWS)
        mine = range(self.devices.rank, len(plan), self.devices.world)
        read, totals = subject.read([plan[number] for number in mine]), dict[str, Tensor]()
        for number in mine:
            with self.devices.seeded(self.at.seed + number):
                for name, value in self.loss.parts(next(read)).items():
                    totals[name] = totals.get(name, 0) + value.double() * (len(plan[number]) / len(subject))
        record: dict[str, float] = {}
        for name, value in self.devices.summed(totals).items():
            if value.ndim == 0 and held:
                record[f"validation_{name}"] = float(value)
            elif value.ndim:
                record |= {f"{name}_{i}": float(v) for i, v in enumerate(value.flatten())}
        return record
