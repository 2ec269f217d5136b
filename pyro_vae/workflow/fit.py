"""Fitting: one function for every pair of Pyro programs and every objective.

Data in memory lies on the device as one tensor and is batched by index; larger data is read while training.
Everything is checked before the first step.
"""

import contextlib
import dataclasses
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.rng import seeded
from pyro_vae.data.dispatch import as_data
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream
from pyro_vae.model.programs import Programs, require_programs
from pyro_vae.model.vae import VAE
from pyro_vae.objectives import ELBO, Objective
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.writer import RunContents
from pyro_vae.training.callbacks import Callback, CallbackList
from pyro_vae.training.distributed import Devices, Runtime
from pyro_vae.training.history import History
from pyro_vae.training.loop import Loop
from pyro_vae.training.loss import Loss, frozen
from pyro_vae.training.optimizers import Adam, Optimizer
from pyro_vae.training.profile import Profile
from pyro_vae.training.progress import Reporter
from pyro_vae.training.step import Asked, Stepper
from pyro_vae.training.stopping import Stopping
from pyro_vae.training.termination import Termination
from pyro_vae.training.train_state import State
from pyro_vae.workflow.options import Monitor, RunOptions
from pyro_vae.workflow.two_stage import settle


def fit(
    vae: Programs,
    x: Any,
    *,
    validation: Any = None,
    objective: Objective = ELBO(),
    optimizer: Asked = Adam(),
    epochs: int = 20,
    batch_size: int = 128,
    seed: int = 0,
    run: str | Path | RunOptions | None = None,
    compile: bool | Literal["auto"] = False,
    monitor: Monitor = Monitor(),
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    runtime: Runtime = Runtime(),
) -> History:
    r"""Fit a model and its guide to data by stochastic variational inference.

    $$ \max_{\theta, \phi} \frac1N \sum_n \mathcal{L}(x_n; \theta, \phi) $$

    with $\mathcal{L}$ the objective's bound and gradients from shuffled batches. The same seed and starting
    weights give the same weights, bit for bit, on the same machine; the global random state is left as it was.

    Args:
        vae: a `VAE`, or any object whose `model` and `guide` are Pyro programs of one batch of named tensors.
        x: rows (N, *event_shape) as tensor, array, table, mapping of named tensors, or `pv.data.Rows`; or, for rows
            that are read while training, a mapped array, a torch `Dataset`, or `pv.data.stream(...)`.
        validation: held-out rows, evaluated after each epoch with the same random numbers every time.
        objective: the bound to maximise.
        optimizer: a declared optimizer, with its learning rate or a schedule of it, clipping, accumulation and
            averaging of weights; or a callable from parameters to a torch optimizer.
        epochs: passes over the data.
        batch_size: rows per batch, over all processes; a shorter last batch is used too.
        seed: of shuffling, draws and dynamic binarisation.
        run: a folder to write: declaration, weights, history, pictures; or `pv.RunOptions(path, overwrite=, resume=,
            checkpoints=)`.
        compile: whether to compile whole steps, from the second on: they are faster, after half a minute. By the
            same random numbers a step changes all weights alike, which is checked before it is relied on and from time
            to time; where that cannot be had (programs whose structure changes, or that wait for values) it is said in
            a warning, and training is as without. "auto" compiles where it pays: long trainings.
            precision="16-mixed" goes without.
        monitor: loggers, a profile, and a rule of when to end early, as in
            pv.Monitor(loggers=["csv"], stopping=pv.EarlyStopping(patience=10)).
        callbacks: functions called after each epoch with a `pv.EpochEvent`: its number, its record, the history and the
            model. One that returns True, or a reason as text, ends the training.
        progress: whether to show progress; without, nothing is printed.
        runtime: devices and precision.

    Returns:
        The history. Interrupted by the keyboard (SIGINT), training stops after the running step, keeps what was
        learned, and says so in `history.stopped`. With checkpoints SIGTERM does the same, and then what it always does.

    Raises:
        InputError: an argument or the data cannot be used; nothing has been done then.
        FloatingPointError: the loss is no longer finite; the message names the epoch. What is in the run stays.
        ProcessLostError: another process of this training has ended.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((64,), 2, encoder=pv.MLP(hidden=(16,)))
    >>> history = pv.fit(vae, pv.data.load("digits").train.x.flatten(1), epochs=2, progress=False)
    >>> bool(history["loss"][1] < history["loss"][0])
    True
    """
    _check_arguments(vae, objective, epochs, batch_size, seed, compile, monitor)
    options = run if isinstance(run, RunOptions) or run is None else RunOptions(run)
    stopping = monitor.stopping
    watchers = CallbackList(callbacks, monitor.loggers, None if options is None else options.path)
    rows, held = _checked(vae, as_data(x), None if validation is None else as_data(validation), progress)
    settings = _settings(objective, optimizer, epochs, batch_size, seed, stopping)
    devices = Devices(runtime)
    folder = None if options is None else devices.by_first(lambda: _reserve(options))
    checkpoints = None if options is None else options.checkpoints
    steps_per_epoch = math.ceil(len(rows) / _rows_per_step(optimizer, batch_size))
    loss = Loss(vae, objective, steps_per_epoch, len(rows))
    history = History(caveat=getattr(vae, "caveat", ""))
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.telling_of_losses(folder))
        keeper = None
        if folder is not None and checkpoints is not None and devices.first:
            keeper = stack.enter_context(folder.keeper(checkpoints))
        stack.enter_context(devices.seeded(seed, getattr(vae, "outside_store", contextlib.nullcontext)))
        given, rows, held = rows, devices.placed(rows, loss), None if held is None else devices.placed(held, loss)
        weights = loss.weights(rows.head_sample(2).batch())
        _check_stopping(stopping, loss, rows, held, devices, seed)
        stepper = Stepper(loss, weights, optimizer, devices)
        state = State(loss, weights, stepper, devices, seed, history)
        ending = state.ending = Termination(vae, stepper, state, stopping, watchers)
        contents = RunContents(vae, rows, held, history, settings)
        found = None
        if folder is not None and checkpoints is not None:
            resume = options is not None and options.resume
            found = devices.by_first(lambda: None if keeper is None else folder.begin(keeper, state, contents, resume))
        _initialize(vae, rows, given)
        stack.enter_context(frozen(weights, stepper.optimizer))
        looked = Profile(steps_per_epoch * epochs, devices.device) if monitor.profile and devices.first else None
        levels = getattr(vae, "pixels", False) and objective.bounds
        loop = Loop(stepper, state, keeper, checkpoints is not None, levels, ending, looked)
        if devices.first:
            watchers.begin(_declared(vae) | settings)
            stack.push(lambda kind, error, trace: watchers.end("success" if kind is None else "failed"))
        loop.begin(rows, batch_size, compile, steps_per_epoch * epochs, found)
        with Reporter(epochs, steps_per_epoch, progress and devices.first) as reporter:
            stopped_by = loop.train(rows, held, epochs, batch_size, reporter)
        files = looked.told() if looked is not None else {}
        if not history.stopped:
            history.stopped = ending.settle(epochs)
            settle(vae, rows, seed, fit)
        elif stepper.average is not None:
            stepper.average.settle()
        if folder is not None and devices.first and stopped_by != signal.SIGTERM:  # who sent that waits for no pictures
            folder.write(dataclasses.replace(contents, files=files), merge=keeper is not None)
    if stopped_by == signal.SIGTERM:
        print(f"Training was {history.stopped}.", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    return history


def _settings(
    objective: Objective, optimizer: Asked, epochs: int, batch_size: int, seed: int, stopping: Stopping | None
) -> dict[str, Any]:
    """The arguments that shape a training, as they are recorded."""
    settings = {
        "objective": objective,
        "optimizer": optimizer,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    return settings if stopping is None else settings | {"stopping": stopping}


def _rows_per_step(optimizer: Asked, batch_size: int) -> int:
    return batch_size * (optimizer.accumulate if isinstance(optimizer, Optimizer) else 1)


def _check_stopping(
    stopping: Stopping | None, loss: Loss, rows: Rows | Stream, held: Rows | Stream | None, devices: Devices, seed: int
) -> None:
    """Refuse a rule that looks at a column which the history will not have."""
    if stopping is not None:
        with devices.seeded(seed):
            parts = loss.parts(rows.head_sample(2).batch())
        stopping.check([name for name, value in parts.items() if not value.ndim], held is not None)


def _initialize(vae: Any, rows: Rows | Stream, given: Rows | Stream) -> None:
    """Let the model start from the data, as it was given, and remember it."""
    if isinstance(vae, VAE):
        vae.trained_on = given.fingerprint()
    if hasattr(vae, "initialize"):
        vae.initialize(**rows.head_sample().batch())


def _declared(vae: Any) -> dict[str, Any]:
    """What a VAE is made of, by name; nothing of other programs."""
    declaration = getattr(vae, "declaration", None)
    if declaration is None:
        return {}
    return {field.name: getattr(declaration, field.name) for field in dataclasses.fields(declaration)}


def _reserve(options: RunOptions) -> RunFolder:
    return RunFolder.reserve(options.path, options.overwrite, options.resume)


def _check_arguments(
    vae: Any, objective: Any, epochs: Any, batch_size: Any, seed: Any, compile: Any, monitor: Any
) -> None:
    require_programs(vae, "fit")
    if not isinstance(objective, Objective):
        raise InputError(
            f"objective = {objective!r} is no objective of this package: write objective=pv.objectives.ELBO(); Pyro's "
            "own run with pyro.infer.SVI on vae.model and vae.guide."
        )
    if compile not in (True, False, "auto"):
        raise InputError(f"compile = {compile!r} has to be True, False or 'auto'.")
    check_integers(epochs=(epochs, 1), batch_size=(batch_size, 1), seed=(seed, 0))
    if not isinstance(monitor, Monitor):
        raise InputError(f"monitor = {monitor!r} has to be a monitor, as in monitor=pv.Monitor(loggers=['csv']).")


def _checked(
    vae: Any, rows: Rows | Stream, held: Rows | Stream | None, progress: bool
) -> tuple[Rows | Stream, Rows | Stream | None]:
    if len(rows) < 2:
        raise InputError(
            "x has 1 row, and a model is fitted to at least 2: give more data, as a tensor (N, *event_shape)."
        )
    if not hasattr(vae, "check"):
        return rows, held
    with seeded(None):  # dynamic rows are drawn to be checked
        rows = rows.checked(vae.check, progress)
        try:
            return rows, None if held is None else held.checked(vae.check, progress)
        except InputError as error:
            raise InputError(f"validation data: {error}") from None
