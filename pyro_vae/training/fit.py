"""Fitting: one loop for every pair of Pyro programs and every objective.

The data lies on the device as one tensor and is batched by index. Everything is checked before the first step;
a step then waits for nothing (no `.item()`), and the numbers of an epoch are read once, at its end.
"""

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyro_vae.data.fingerprint import fingerprint
from pyro_vae.data.rows import Rows
from pyro_vae.declared import Declared
from pyro_vae.errors import InputError, require_whole_numbers
from pyro_vae.objectives import ELBO, Objective
from pyro_vae.run import Run
from pyro_vae.training import interrupts
from pyro_vae.training.checkpoints import Checkpoints, Keeper
from pyro_vae.training.history import History
from pyro_vae.training.optimizers import Adam, Optimizer
from pyro_vae.training.programs import Loss, Programs, frozen, require_programs
from pyro_vae.training.progress import Reporter
from pyro_vae.training.state import State
from pyro_vae.vae import VAE

EVALUATION_ROWS = 1000
"""Rows per batch of an evaluation, and training rows that stand in where there are no validation data."""

LOOK = 100
"""Steps after which it is looked whether the loss is still a number: the device is waited for then, and not between."""


@dataclass(frozen=True)
class Runtime(Declared):
    """Where and how precisely the numbers are computed, in Fabric's terms.

    Args:
        accelerator: "auto" takes a GPU where there is one.
        precision: Fabric's precision, such as "bf16-mixed"; None keeps the type of the weights.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["bf16-mixed", "16-mixed", "32-true", "64-true"] | None = None


def fit(
    vae: Programs,
    x: Any,
    *,
    validation: Any = None,
    objective: Objective = ELBO(),
    optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = Adam(),
    epochs: int = 20,
    batch_size: int = 128,
    seed: int = 0,
    run: str | Path | None = None,
    overwrite: bool = False,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    progress: bool = True,
    runtime: Runtime = Runtime(),
) -> History:
    r"""Fit a model and its guide to data by stochastic variational inference.

    $$ \max_{\theta, \phi} \frac1N \sum_n \mathcal{L}(x_n; \theta, \phi) $$

    with $\mathcal{L}$ the objective's bound and gradients from shuffled batches. The same seed and starting
    weights give the same weights, bit for bit, on the same machine; the global random state is left as it was.

    Args:
        vae: a `VAE`, or any object whose `model` and `guide` are Pyro programs of one batch of named tensors.
        x: rows (N, *event_shape) as tensor, array, table, mapping of named tensors, or `pv.data.Rows`.
        validation: held-out rows, evaluated after each epoch with the same random numbers every time.
        objective: the bound to maximise.
        optimizer: a declared optimizer, or a callable from parameters to a torch optimizer.
        epochs: passes over the data.
        batch_size: rows per step; a shorter last batch is used too.
        seed: of shuffling, draws and dynamic binarisation.
        run: a folder to write: declaration, weights, history, pictures.
        overwrite: whether an existing run may be replaced, once the new one is complete.
        checkpoints: when to save everything into the run, so that a crash loses nothing; None for never.
        resume: whether to go on from the newest checkpoint of the run, where there is one, to the weights and history
            that an uninterrupted training ends with, bit for bit; `epochs` may be more than before.
        progress: whether to show progress.
        runtime: device and precision.

    Returns:
        The history. Interrupted by the keyboard (SIGINT), training stops after the running step, keeps what was
        learned, and says so in `history.stopped`. With checkpoints SIGTERM does the same, and then what it always does.

    Raises:
        InputError: an argument or the data cannot be used; nothing has been done then.
        FloatingPointError: the loss is no longer finite; the message names the epoch. What is in the run stays.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((64,), 2, encoder=pv.MLP(hidden=(16,)))
    >>> history = pv.fit(vae, pv.data.load("digits").train.x.flatten(1), epochs=2, progress=False)
    >>> bool(history["loss"][1] < history["loss"][0])
    True
    """
    _check_arguments(vae, objective, epochs, batch_size, seed)
    checkpoints = _checkpoints(checkpoints, run, overwrite, resume)
    rows, held = Rows.of(x), None if validation is None else Rows.of(validation)
    _check_rows(vae, rows, held)
    settings = {
        "objective": objective,
        "optimizer": optimizer,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    folder = Run.reserve(run, overwrite, resume) if run is not None else None

    session = _Session(vae, objective, runtime, math.ceil(len(rows) / batch_size), len(rows))
    history = History(caveat=getattr(vae, "caveat", ""))
    with contextlib.ExitStack() as stack:
        keeper = None if folder is None or checkpoints is None else stack.enter_context(folder.keeper(checkpoints))
        stack.enter_context(session.seeded(seed))
        given, rows, held = rows, session.place(rows), None if held is None else session.place(held)
        weights = session.loss.weights(rows.batch(slice(2)))
        made = optimizer.build(weights) if isinstance(optimizer, Optimizer) else _made_by(optimizer, weights)
        state = session.state(weights, made, seed, history)
        found = None
        if folder is not None and keeper is not None:
            found = folder.begin(keeper, state, vae, rows, held, settings, resume)
        if isinstance(vae, VAE):
            vae.trained_on = fingerprint(given.x)
        if hasattr(vae, "initialize"):
            vae.initialize(**rows.batch())
        if found is not None:
            state.restore(*found)
        with frozen(weights, made), Reporter(epochs, math.ceil(len(rows) / batch_size), progress) as reporter:
            stopped_by = session.train(rows, held, state, epochs, batch_size, seed, reporter, keeper)
        if not history.stopped:
            from pyro_vae.training.aggregate import settle  # it fits, by this function

            settle(vae, rows, seed)
        if folder is not None and stopped_by != signal.SIGTERM:  # whoever sent that does not wait for pictures
            folder.write(vae, rows, held, history, settings, beside=keeper is not None)
    if stopped_by == signal.SIGTERM:
        print(f"Training was {history.stopped}.", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    return history


class _Session:
    """The programs on their device: what one call of `fit` trains."""

    def __init__(
        self, programs: Programs, objective: Objective, runtime: Runtime, steps_per_epoch: int, rows: int
    ) -> None:
        from lightning.fabric import Fabric  # here, for importing it takes seconds

        self.programs = programs
        self.levels = getattr(programs, "pixels", False) and objective.bounds
        self.loss = Loss(programs, objective, steps_per_epoch, rows)
        precision = runtime.precision or "32-true"  # by which Fabric leaves every type as it is, float64 too
        self.fabric = Fabric(accelerator=runtime.accelerator, devices=1, precision=precision)
        self.wrapped = self.fabric.setup_module(self.loss)

    def _dtype(self) -> torch.dtype:
        return next((w.dtype for w in self.loss.parameters()), torch.get_default_dtype())

    def place(self, rows: Rows) -> Rows:
        return rows.to(self.fabric.device, self._dtype())

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Run with random numbers of our own, outside of Pyro's store, and leave the user's as they were."""
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        outside = getattr(self.programs, "outside_store", contextlib.nullcontext)
        with torch.random.fork_rng(devices), outside():
            torch.manual_seed(seed)
            yield

    def state(
        self, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, seed: int, history: History
    ) -> State:
        return State(self.loss, weights, optimizer, self.fabric.device, seed, history, self.fabric.strategy.precision)

    def train(
        self,
        rows: Rows,
        held: Rows | None,
        at: State,
        epochs: int,
        batch_size: int,
        seed: int,
        reporter: Reporter,
        keeper: Keeper | None,
    ) -> signal.Signals | None:
        """Train to the end, or to a signal; returns which."""
        wrapped: Any = self.fabric.setup_optimizers(at.optimizer)
        reporter.begin(at.steps)
        both = (signal.SIGINT, signal.SIGTERM)
        try:
            with interrupts.deferred(*both[: 1 if keeper is None else 2]) as stop:
                while at.epoch <= epochs and not stop.by:
                    start = time.perf_counter() - at.seconds
                    self.wrapped.train()
                    self._epoch(rows, wrapped, batch_size, at, reporter, keeper, stop, start)
                    if stop.by:
                        at.seconds = time.perf_counter() - start
                        break
                    record = self._record(at, rows, held, seed, keeper)
                    record["seconds"] = time.perf_counter() - start
                    pixels = [subject.observed if subject and self.levels else 0.0 for subject in (rows, held)]
                    at.history.add(record, *pixels)
                    reporter.epoch(record)
                    at.next_epoch()
                    if keeper is not None:
                        score = record.get("validation_loss", record["loss"])
                        keeper.after_epoch(at.epoch - 1, score, self._capture(at, keeper))
                saved = keeper is not None and keeper.save(self._capture(at, keeper))
            if at.epoch <= epochs or stop.by == signal.SIGTERM:
                where = f"in epoch {at.epoch} of {epochs}" if at.epoch <= epochs else "after the last epoch"
                ahead = "; resume=True (--resume) goes on from there" if saved else ""
                at.history.stopped = f"{stop.word} {where}{ahead}"
            return stop.by
        except KeyboardInterrupt:  # in the middle of a step, of which no checkpoint can be
            at.history.stopped = f"interrupted in epoch {at.epoch} of {epochs}"
            return signal.SIGINT
        finally:
            self.wrapped.eval()

    def _epoch(
        self,
        rows: Rows,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        at: State,
        reporter: Reporter,
        keeper: Keeper | None,
        stop: interrupts.Stop,
        start: float,
    ) -> None:
        """What is left of one pass over the data, adding up the loss and its parts, until somebody wants a stop."""
        batches = torch.randperm(len(rows), generator=at.order).to(self.fabric.device).split(batch_size)
        for index in batches[at.done :]:
            optimizer.zero_grad()
            loss, parts = self.wrapped(rows.batch(index))
            self.fabric.backward(loss)
            optimizer.step()
            at.names = list(parts)
            at.totals = at.totals + torch.stack(list(parts.values())).double() * len(index)  # or the sum is of float32
            at.done, at.steps = at.done + 1, at.steps + 1
            reporter.step()
            if at.done % LOOK == 0:
                self._require_finite(at, keeper)
            if stop.by:
                return
            if keeper is not None and at.done < len(batches) and keeper.is_due():
                at.seconds = time.perf_counter() - start
                keeper.save(self._capture(at, keeper))

    def _record(self, at: State, rows: Rows, held: Rows | None, seed: int, keeper: Keeper | None) -> dict[str, float]:
        """What an epoch came to: means per row of the loss and its parts, read once, and the numbers after it."""
        self._require_finite(at, keeper)
        means = dict(zip(at.names, (at.totals / len(rows)).tolist(), strict=True))
        record = {"epoch": at.epoch, "seconds": 0.0, **means}
        record |= {name: float(value) for name, value in self.loss.running.values.items()}
        return record | self._evaluate(rows, held, seed)

    def _capture(self, at: State, keeper: Keeper) -> Callable[[], dict[str, Any]]:
        def capture() -> dict[str, Any]:
            if at.done:
                self._require_finite(at, keeper)
            at.require_finite_weights(keeper.advice())
            return at.capture()

        return capture

    @staticmethod
    def _require_finite(at: State, keeper: Keeper | None) -> None:
        """Wait for the device, and raise if the loss is no number any more."""
        loss = float(at.totals[at.names.index("loss")])
        if not math.isfinite(loss):
            advice = "" if keeper is None else keeper.advice()
            raise FloatingPointError(at.diverged(f"the loss is {loss}") + advice)

    def _evaluate(self, rows: Rows, held: Rows | None, seed: int) -> dict[str, float]:
        """The parts of the bound on held-out rows, or the KL per latent on some training rows."""
        self.wrapped.eval()
        subject, scalars = (rows, False) if held is None else (held, True)
        limit = min(len(subject), EVALUATION_ROWS) if held is None else len(subject)
        totals: dict[str, Tensor] = {}
        with torch.random.fork_rng([self.fabric.device] if self.fabric.device.type == "cuda" else []):
            torch.manual_seed(seed)
            for start in range(0, limit, EVALUATION_ROWS):
                batch = subject.batch(slice(start, min(start + EVALUATION_ROWS, limit)))
                for name, value in self.loss.parts(batch).items():
                    totals[name] = totals.get(name, 0) + value.double() * (len(batch["x"]) / limit)
        record: dict[str, float] = {}
        for name, value in totals.items():
            if value.ndim == 0 and scalars:
                record[f"validation_{name}"] = float(value)
            elif value.ndim:
                record |= {f"{name}_{i}": float(v) for i, v in enumerate(value.flatten())}
        return record


def _made_by(
    optimizer: Callable[[Iterable[nn.Parameter]], Any], weights: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    made = optimizer(list(weights.values())) if callable(optimizer) else None
    if not isinstance(made, torch.optim.Optimizer):
        raise InputError(
            f"optimizer = {optimizer!r} makes no torch optimizer: write optimizer=pv.Adam(lr=1e-3), or a callable such "
            "as functools.partial(torch.optim.RMSprop, lr=1e-3)."
        )
    return made


def _checkpoints(
    checkpoints: Checkpoints | None, run: str | Path | None, overwrite: bool, resume: bool
) -> Checkpoints | None:
    if checkpoints is not None and not isinstance(checkpoints, Checkpoints):
        raise InputError(
            f"checkpoints = {checkpoints!r} has to be a plan, as in checkpoints=pv.Checkpoints(every_minutes=10)."
        )
    if run is None and (resume or checkpoints is not None):
        word = "resume=True" if resume else "checkpoints"
        raise InputError(f"{word} needs the folder that holds them: give run=, as in run='runs/first'.")
    if resume and overwrite:
        raise InputError("resume=True goes on with a run and overwrite=True replaces it: give one of them.")
    return Checkpoints() if resume and checkpoints is None else checkpoints


def _check_arguments(vae: Any, objective: Any, epochs: Any, batch_size: Any, seed: Any) -> None:
    require_programs(vae, "fit")
    if not isinstance(objective, Objective):
        raise InputError(
            f"objective = {objective!r} is no objective of this package: write objective=pv.objectives.ELBO(); Pyro's "
            "own run with pyro.infer.SVI on vae.model and vae.guide."
        )
    require_whole_numbers(epochs=(epochs, 1), batch_size=(batch_size, 1), seed=(seed, 0))


def _check_rows(vae: Any, rows: Rows, held: Rows | None) -> None:
    if len(rows) < 2:
        raise InputError(
            "x has 1 row, and a model is fitted to at least 2: give more data, as a tensor (N, *event_shape)."
        )
    if not hasattr(vae, "check"):
        return
    with torch.random.fork_rng():  # dynamic rows are drawn to be checked
        vae.check(rows.batch())
        try:
            if held is not None:
                vae.check(held.batch())
        except InputError as error:
            raise InputError(f"validation data: {error}") from None
