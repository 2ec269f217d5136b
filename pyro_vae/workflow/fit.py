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
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_vae.core.calls import HELD_OUT, check_kind, explained
from pyro_vae.core.errors import InputError, TrainingInterrupted, check_integers, is_real
from pyro_vae.core.rng import seeded
from pyro_vae.data.dispatch import as_data
from pyro_vae.data.precision import warn_of_constants
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream
from pyro_vae.model.programs import (
    Programs,
    Traits,
    as_module,
    check_arguments,
    check_programs,
    reference_tensor,
    remember_data,
)
from pyro_vae.model.vae import VAE
from pyro_vae.networks.base import evaluating, set_row_type
from pyro_vae.objectives import ELBO, Objective
from pyro_vae.objectives.structure import structure_of
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.writer import RunContents
from pyro_vae.training.batches import check_batches, check_single_rows
from pyro_vae.training.callbacks import Callback, CallbackList
from pyro_vae.training.checkpoints import CheckpointManager
from pyro_vae.training.distributed import ProcessGroup, Runtime
from pyro_vae.training.divergence import warn_of_rise
from pyro_vae.training.history import History
from pyro_vae.training.loop import Loop
from pyro_vae.training.loss import Loss, frozen, resting_modules
from pyro_vae.training.monitor import Monitor
from pyro_vae.training.optimizers import Adam, Optimizer, OptimizerLike
from pyro_vae.training.profile import StepProfiler
from pyro_vae.training.progress import ProgressReporter
from pyro_vae.training.step import TrainStep
from pyro_vae.training.stopping import Stopping
from pyro_vae.training.termination import Termination
from pyro_vae.training.train_state import TrainState
from pyro_vae.workflow.options import RunOptions
from pyro_vae.workflow.two_stage import fit_second_stage

TRIAL_ELEMENTS = 2**22
"""Number of elements of x up to which programs are tried on all rows before training."""

_lock = threading.RLock()  # reentrant: a second stage and a callback may fit


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """A block that one thread enters at a time, in which gradients are computed whatever the caller has set.

    Raises:
        InputError: another thread is in such a block.
    """
    if not _lock.acquire(blocking=False):
        raise InputError(
            "another thread is in pv.fit, and Pyro's handlers and parameters are shared by all threads: fit one model "
            "after the other, or each in a process of its own, as pv.sweep(..., jobs=2) does."
        )
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        _lock.release()


@explained
@_alone()
def fit(
    vae: Programs,
    x: Any,
    *,
    validation: Any = None,
    objective: Objective = ELBO(),
    optimizer: OptimizerLike = Adam(),
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
    r"""History of a fit of a model and its guide to data, by stochastic variational inference.

    $$ \max_{\theta, \phi} \frac1N \sum_n \mathcal{L}(x_n; \theta, \phi) $$

    with $\mathcal{L}$ the objective's bound and gradients from shuffled batches. The same seed and starting
    weights give the same weights, bit for bit, on the same machine; the global random state is left as it was.

    Args:
        vae: a `VAE`, or any object whose `model` and `guide` are Pyro programs of one batch of named tensors.
        x: rows (N, *event_shape) as tensor, array, table, mapping of named tensors, or `pv.data.Rows`; or, for rows
            that are read while training, a mapped array, a torch `Dataset`, or `pv.data.stream(...)`.
        validation: held-out rows, evaluated after each epoch with the same random numbers every time.
        objective: the bound to maximise.
        optimizer: the optimizer, with its learning rate or a schedule of it, clipping, accumulation and averaging of
            weights; in Python also a function from parameters to a torch optimizer. Modules whose weights are all
            frozen (a rate of 0, or requires_grad_(False)) stay in eval mode, and so do those that are in eval mode
            while others are in train mode. Starting values are set from the data for them too.
        epochs: passes over the data.
        batch_size: rows per batch, over all processes; a shorter last batch is used too.
        seed: of shuffling, draws and dynamic binarisation.
        run: a folder to write: declaration, weights, history, pictures; or `pv.RunOptions(path, overwrite=, resume=,
            checkpoints=)`.
        compile: whether to compile complete steps, from the second on: faster, after half a minute. With the same
            random numbers they change all weights in the same way, which is checked at the start and repeatedly;
            programs that cannot be compiled (their structure changes, or they read values) and precision="16-mixed"
            are trained uncompiled, with a warning. "auto" compiles long trainings.
        monitor: loggers, a profile, and a rule of when to end early.
        callbacks: functions called after each epoch with a `pv.EpochEvent`: its number, its record, the history and the
            model. One that returns True, or a reason as text, ends the training.
        progress: whether to show progress; without, nothing is printed.
        runtime: devices and precision.

    Returns:
        The history. With checkpoints SIGTERM stops training after the running step, and then ends the process as ever.

    Raises:
        InputError: an argument or the data cannot be used; nothing has been changed then.
        TrainingInterrupted: a KeyboardInterrupt, by the keyboard (SIGINT): training has stopped after the running step,
            the model keeps its weights, and the run is written; the error has the `history`.
        FloatingPointError: the loss is no longer finite; the message names the epoch. Checkpoints of the run stay.
        ProcessLostError: another process of this training has ended.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((64,), 2, encoder=pv.MLP(hidden=(16,)))
    >>> history = pv.fit(vae, pv.data.load("digits").train.x.flatten(1), epochs=2, progress=False)
    >>> bool(history["loss"][1] < history["loss"][0])
    True
    """
    _check_arguments(vae, objective, epochs, batch_size, seed, compile, monitor, runtime)
    options = run if isinstance(run, RunOptions) or run is None else RunOptions(run)
    callback_list = CallbackList(callbacks, monitor.loggers, None if options is None else options.path)
    rows, held = as_data(x), None if validation is None else _held_out(validation)
    row_type = _row_type(vae, rows)
    rows, held = _check_data(vae, rows, held, row_type, progress)
    settings: dict[str, Any] = {"objective": objective, "optimizer": optimizer, "epochs": epochs}
    epochs, batch_size, seed = int(epochs), int(batch_size), int(seed)  # of NumPy's, perhaps
    settings |= {"batch_size": batch_size, "seed": seed}
    if monitor.stopping is not None:
        settings["monitor"] = Monitor(stopping=monitor.stopping)
    group = ProcessGroup(runtime)
    folder = None if options is None else group.run_on_rank0(lambda: _reserve(options))
    steps_per_epoch = math.ceil(len(rows) / _rows_per_step(optimizer, batch_size))
    loss = Loss(vae, objective, steps_per_epoch, len(rows))
    traits = Traits.of(vae)
    history = History(caveat=traits.caveat)
    with contextlib.ExitStack() as stack:
        stack.enter_context(group.explain_lost_process(folder))
        manager = _open_checkpoints(stack, folder, options, group)
        stack.enter_context(group.seeded(seed, traits.no_param_store))
        original, rows = rows, group.to_device(rows, loss, row_type)
        held = None if held is None else group.to_device(held, loss, row_type)
        if isinstance(vae, VAE):
            set_row_type(vae, row_type or vae.likelihood.device_tensor.dtype)
        trial = _trial_batch(rows, batch_size)
        weights = loss.weights(trial)
        structure = structure_of(vae.model, vae.guide, (), trial)
        check_batches(structure, len(rows), batch_size, held)
        _check_stopping(monitor.stopping, loss, trial, held, group, seed)
        state = TrainState(loss, weights, optimizer, group, seed, history)
        stack.enter_context(frozen(weights, state.optimizer))
        accumulated = _rows_per_step(optimizer, batch_size) // batch_size
        check_single_rows(loss, resting_modules(vae), rows, batch_size, accumulated, group, seed)
        contents = RunContents(vae, rows, held, history, settings)
        checkpoint = _find_checkpoint(folder, manager, state, contents, options)
        _initialize(vae, rows, original)
        termination = Termination(vae, state, monitor.stopping, callback_list)
        profiler = StepProfiler(steps_per_epoch * epochs, group.device) if monitor.profile and group.is_rank0 else None
        has_levels = traits.is_pixel and objective.is_evidence_bound
        saves = options is not None and options.checkpoints is not None
        loop = Loop(
            state, TrainStep(state, optimizer), termination, manager, saves, has_levels, profiler, structure.any_rows
        )
        if group.is_rank0:
            callback_list.begin(_declared(vae) | settings)
            stack.push(lambda kind, error, trace: callback_list.end("success" if kind is None else "failed"))
        loop.begin(rows, batch_size, compile, steps_per_epoch * epochs, checkpoint)
        with ProgressReporter(epochs, steps_per_epoch, progress and group.is_rank0) as reporter:
            stopped_by = loop.train(rows, held, epochs, batch_size, reporter)
        files = profiler.finish() if profiler is not None else {}
        warn_of_rise(loop.recorder, state.names, history)
        if not history.stopped:
            history.stopped = termination.finish(epochs)
            try:
                fit_second_stage(vae, rows, seed, fit)
            except TrainingInterrupted:
                stopped_by, history.stopped = signal.SIGINT, "interrupted in the second stage of the prior"
        elif state.ema is not None:
            state.ema.copy_to_model()
        if folder is not None and group.is_rank0 and stopped_by != signal.SIGTERM:  # its sender waits for no pictures
            folder.write(dataclasses.replace(contents, files=files), merge=manager is not None)
            _draw_figures(folder, contents)
    if stopped_by == signal.SIGTERM:
        print(f"Training was {history.stopped}.", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    if stopped_by == signal.SIGINT:
        raise TrainingInterrupted(history)
    return history


def _rows_per_step(optimizer: OptimizerLike, batch_size: int) -> int:
    return batch_size * (optimizer.accumulate_grad_batches if isinstance(optimizer, Optimizer) else 1)


def _trial_batch(rows: Rows | Stream, batch_size: int) -> dict[str, Tensor]:
    """Batch for dry runs: all rows where they are few, since programs may have a value of each."""
    few = isinstance(rows, Rows) and rows.x.numel() <= TRIAL_ELEMENTS
    with seeded(None):  # dynamic rows are drawn
        return rows.head_sample(None if few else max(batch_size, 2)).batch()


def _check_stopping(
    stopping: Stopping | None,
    loss: Loss,
    trial: dict[str, Tensor],
    held: Rows | Stream | None,
    group: ProcessGroup,
    seed: int,
) -> None:
    """Check that the history will have the column that a rule monitors."""
    if stopping is not None:
        with group.seeded(seed), evaluating(loss.held):
            parts = loss.parts(trial)
        stopping.check([name for name, value in parts.items() if not value.ndim], held is not None)


def _initialize(vae: Any, rows: Rows | Stream, original: Rows | Stream) -> None:
    """Initialise the model at the data, and note the names and the fingerprint of the rows as they were passed."""
    remember_data(vae, original.features or Traits.of(vae).feature_names, original.names)
    if isinstance(vae, VAE):
        vae.trained_on = original.fingerprint()
    if (initialize := Traits.of(vae).initialize) is not None:
        initialize(**rows.head_sample().batch())


def _declared(vae: Any) -> dict[str, Any]:
    """Parts of a VAE's declaration by name; empty for other programs."""
    declaration = getattr(vae, "declaration", None)
    if declaration is None:
        return {}
    return {field.name: getattr(declaration, field.name) for field in dataclasses.fields(declaration)}


def _reserve(options: RunOptions) -> RunFolder:
    return RunFolder.reserve(options.path, options.overwrite, options.resume)


def _open_checkpoints(
    stack: contextlib.ExitStack, folder: RunFolder | None, options: RunOptions | None, group: ProcessGroup
) -> CheckpointManager | None:
    """Manager of the run's checkpoints, in the first process alone; None without checkpoints."""
    if folder is None or options is None or options.checkpoints is None or not group.is_rank0:
        return None
    return stack.enter_context(folder.checkpoints(options.checkpoints))


def _find_checkpoint(
    folder: RunFolder | None,
    manager: CheckpointManager | None,
    state: TrainState,
    contents: RunContents,
    options: RunOptions | None,
) -> tuple[dict[str, Any], str] | None:
    """Checkpoint to resume from and its name, the same in all processes; None where training starts anew."""

    def find() -> tuple[dict[str, Any], str] | None:
        if folder is None or manager is None or options is None:
            return None
        state.set_identity(contents.identity())
        epochs = contents.settings["epochs"]
        return folder.prepare_resume(
            manager, contents, options.resume, lambda tree, where: state.check_same_run(tree, where, epochs)
        )

    found: tuple[dict[str, Any], str] | None = state.group.run_on_rank0(find)
    return found


def _draw_figures(folder: RunFolder, contents: RunContents) -> None:
    """Draw the pictures of a run that is in place: one that fails is a warning."""
    if not isinstance(contents.vae, VAE) or not len(contents.history):
        return
    from pyro_vae.plots import _run_figures  # here, for it imports matplotlib

    try:
        shown = (contents.held or contents.rows).head_sample(_run_figures.ROWS)
        _run_figures.write(folder.path / "figures", contents.vae, shown, contents.history)
    except Exception as error:  # of any kind: a training is worth more than its pictures
        warnings.warn(
            f"the pictures of {folder.path} could not be drawn ({type(error).__name__}: {error}): the run is complete "
            "without them.",
            stacklevel=3,
        )


def _check_arguments(
    vae: Any, objective: Any, epochs: Any, batch_size: Any, seed: Any, compile: Any, monitor: Any, runtime: Any
) -> None:
    check_programs(vae, "fit")
    own = "; Pyro's own run with pyro.infer.SVI on vae.model and vae.guide"
    check_kind("objective", objective, Objective, "pv.objectives.ELBO()", own)
    check_kind("monitor", monitor, Monitor, "pv.Monitor(loggers=['csv']), run='run'")
    check_kind("runtime", runtime, Runtime, "pv.Runtime(accelerator='auto')")
    if compile not in (True, False, "auto"):
        raise InputError(f"compile = {compile!r} has to be True, False or 'auto'.")
    check_integers(epochs=(epochs, 1), batch_size=(batch_size, 1), seed=(seed, 0))


def _held_out(validation: Any) -> Rows | Stream:
    if is_real(validation) or isinstance(validation, bool):
        raise InputError(
            f"validation = {validation!r} is a number, and held-out rows are meant: hold some out yourself, "
            f"{HELD_OUT} of rows in random order, and write "
            "validation=held_out; pv.data.load(..., validation=0.1) does it for a file."
        )
    return as_data(validation)


def _row_type(vae: Any, rows: Rows | Stream) -> torch.dtype | None:
    """Floating type in which a pair takes rows, where it is another one than that of its weights."""
    row_type_for = Traits.of(vae).row_type_for
    chosen = None if rows.dynamic or row_type_for is None else row_type_for(rows.head_sample().x)
    return None if chosen == reference_tensor(as_module(vae)).dtype else chosen


def _check_data(
    vae: Any, rows: Rows | Stream, held: Rows | Stream | None, row_type: torch.dtype | None, progress: bool
) -> tuple[Rows | Stream, Rows | Stream | None]:
    if len(rows) < 2:
        raise InputError(
            "x has 1 row, and a model is fitted to at least 2: give more data, as a tensor (N, *event_shape)."
        )
    check_arguments(vae, rows.names)
    row_type = row_type or reference_tensor(as_module(vae)).dtype
    for part in (rows, held):
        if part is not None and not part.dynamic:
            part.head_sample().check_precision(row_type)
    warn_of_constants(rows.head_sample().tensors["x"], rows.features)
    traits = Traits.of(vae)
    rows = rows.aligned(traits.feature_names)
    with seeded(None):  # dynamic rows are drawn to be checked
        if traits.check is not None:
            rows = rows.checked(traits.check, progress)
        try:
            held = None if held is None else held.aligned(traits.feature_names or rows.features)
            if traits.check is not None and held is not None:
                held = held.checked(traits.check, progress)
        except InputError as error:
            raise InputError(f"validation data: {error}") from None
        if isinstance(vae, VAE):
            vae.likelihood.check_fixed_numbers(vae.impute(rows.head_sample().batch()))
    return rows, held
