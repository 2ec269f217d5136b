"""Callbacks and Lightning's loggers, called after each epoch."""

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.model.programs import Programs
from pyro_vae.training.distributed import restored_environment
from pyro_vae.training.history import History

LOGGERS = ("csv", "tensorboard")
"""Names of the loggers that need no arguments; of any other, Lightning's object is passed."""


@dataclass(frozen=True)
class EpochEvent:
    """The argument of a callback.

    Args:
        epoch: the finished epoch, from 1.
        record: its line of the history.
        history: all of it so far.
        vae: the model in evaluation mode, with the average of its weights where there is one.
    """

    epoch: int
    record: Mapping[str, float]
    history: History
    vae: Programs


Callback = Callable[[EpochEvent], Any]
"""Called after each epoch; True, or a reason as text, ends the training."""


def callback_name(callback: Callback) -> str:
    """Name of a callback in messages."""
    return str(getattr(callback, "__qualname__", None) or type(callback).__qualname__)


class CallbackList:
    """The callbacks and loggers of a training.

    Args:
        callbacks: in the order in which they are called.
        loggers: Lightning's, or names as in `LOGGERS`.
        run: the run's folder, beside which loggers by name write; None for no run.

    Raises:
        InputError: an object that cannot be called, or is not a logger.
    """

    def __init__(self, callbacks: Sequence[Callback], loggers: Sequence[Any], run: str | Path | None = None) -> None:
        if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
            raise InputError(f"callbacks = {callbacks!r} has to be a list: callbacks=[...].")
        for callback in callbacks:
            if not callable(callback) or isinstance(callback, type):
                raise InputError(
                    f"callbacks has {callback!r}, which cannot be called with one epoch: give a function, as in "
                    "callbacks=[lambda at: at.record['kl'] < 0.01]."
                )
        self.callbacks = list(callbacks)
        self.loggers = [make_logger(logger, run) for logger in loggers]
        self.is_needed = bool(callbacks or loggers)  # in all processes alike, also when a logger has failed in one

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Log the declaration as hyperparameters."""
        plain = {name: value if isinstance(value, int | float) else str(value) for name, value in facts.items()}
        self._log(lambda logger: logger.log_hyperparams(plain))

    def epoch(self, at: EpochEvent) -> str:
        """Reason to stop of the first callback that has one, or empty text, after an epoch that is logged.

        Raises:
            Exception: what a callback raised, with a note of its name.
        """
        record = {name: float(value) for name, value in at.record.items() if name != "epoch" and math.isfinite(value)}
        self._log(lambda logger: logger.log_metrics(record, step=at.epoch))
        reason = ""
        for callback in self.callbacks:
            try:
                answer = callback(at)
            except Exception as error:
                error.add_note(f"This was raised by the callback {callback_name(callback)} after epoch {at.epoch}.")
                raise
            if not isinstance(answer, str):
                answer = f"{callback_name(callback)} returned True" if _is_true(answer) else ""
            reason = reason or answer
        return reason

    def end(self, status: str) -> None:
        """Finalize the loggers, with "success" or "failed", words that all of them know."""
        self._log(lambda logger: logger.finalize(status))

    def _log(self, call: Callable[[Any], Any]) -> None:
        """Call each logger; one that fails ends no training: it is left out from then on."""
        for logger in list(self.loggers):
            try:
                with restored_environment(), contextlib.suppress(NotImplementedError):  # some take no hyperparameters
                    call(logger)
            except Exception as error:
                self.loggers.remove(logger)
                warnings.warn(
                    f"{type(logger).__name__} failed and is left out from now on, and training continues: "
                    f"{type(error).__name__}: {error}.",
                    stacklevel=4,
                )


def _is_true(answer: object) -> bool:
    """Whether an answer is True: Python's, NumPy's, or that of a tensor or array of one truth value."""
    dtype, shape = getattr(answer, "dtype", ""), getattr(answer, "shape", None)
    return answer is True or (str(dtype).endswith("bool") and not shape and bool(answer))


def make_logger(logger: Any, run: str | Path | None) -> Any:
    """A logger of Lightning's: the one given, or by name one that writes into the folder `logs` beside a run.

    Raises:
        InputError: not a logger, an unknown name, a missing package, or a name without a run.
    """
    from lightning.fabric.loggers import CSVLogger, Logger, TensorBoardLogger

    if isinstance(logger, Logger):
        return logger
    if not isinstance(logger, str):
        raise InputError(
            f"loggers has {logger!r}, which is not a logger of Lightning's: give one, such as "
            "lightning.fabric.loggers.CSVLogger('logs')."
        )
    if logger not in LOGGERS:
        raise unknown_name_error("logger", logger, LOGGERS)
    if run is None:
        raise InputError(f"the logger {logger!r} writes beside the run: give run=, or a logger of Lightning's.")
    kind = CSVLogger if logger == "csv" else TensorBoardLogger
    try:
        path = Path(run).expanduser().absolute()
        return kind(path.parent / "logs", path.name)
    except ImportError as error:
        raise InputError(
            f"the logger {logger} needs a package that is missing ({str(error).splitlines()[0]}): "
            f"pip install 'pyro-vae[{logger}]'."
        ) from error
