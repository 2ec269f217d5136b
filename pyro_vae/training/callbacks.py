"""Who is told of each epoch: callbacks of the user's, and Lightning's loggers."""

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.training.distributed import environment_kept
from pyro_vae.training.history import History
from pyro_vae.training.loss import Programs

PROJECT = "pyro-vae"
"""What experiments are called where loggers ask for a name."""

EXTRAS = {"csv": "", "tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""Loggers by name, and the extra of this package that each needs."""


@dataclass(frozen=True)
class EpochEvent:
    """What a callback is told.

    Args:
        epoch: the epoch that is done, from 1.
        record: its line of the history.
        history: all of it so far.
        vae: the model in evaluation mode; with an average of weights, it has that.
    """

    epoch: int
    record: Mapping[str, float]
    history: History
    vae: Programs


Callback = Callable[[EpochEvent], Any]
"""Called after each epoch; True, or a reason as text, ends the training."""


def name_of(callback: Callback) -> str:
    """What to call a callback in messages."""
    return str(getattr(callback, "__qualname__", None) or type(callback).__qualname__)


class CallbackList:
    """All who are told.

    Args:
        callbacks: in the order in which they are called.
        loggers: Lightning's.

    Raises:
        InputError: what cannot be called, or is no logger.
    """

    def __init__(self, callbacks: Sequence[Callback], loggers: Sequence[Any]) -> None:
        for name, several in (("callbacks", callbacks), ("loggers", loggers)):
            if not isinstance(several, Sequence) or isinstance(several, str):
                raise InputError(f"{name} = {several!r} has to be a list: {name}=[...].")
        for callback in callbacks:
            if not callable(callback) or isinstance(callback, type):
                raise InputError(
                    f"callbacks has {callback!r}, which cannot be called with one epoch: give a function, as in "
                    "callbacks=[lambda at: at.record['kl'] < 0.01]."
                )
        if loggers:
            from lightning.fabric.loggers import Logger

            for logger in loggers:
                if not isinstance(logger, Logger):
                    raise InputError(
                        f"loggers has {logger!r}, which is no logger of Lightning's: give such as "
                        "lightning.fabric.loggers.CSVLogger('logs')."
                    )
        self.callbacks, self.loggers = list(callbacks), list(loggers)
        self.anybody = bool(callbacks or loggers)  # in all processes alike, also when a logger has failed in one

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Tell loggers what is declared."""
        plain = {name: value if isinstance(value, int | float) else str(value) for name, value in facts.items()}
        self._log(lambda logger: logger.log_hyperparams(plain))

    def epoch(self, at: EpochEvent) -> str:
        """Tell everybody of an epoch; returns why somebody wants to stop.

        Raises:
            Exception: what a callback raised, with a note of its name.
        """
        record = {name: float(value) for name, value in at.record.items() if name != "epoch" and math.isfinite(value)}
        self._log(lambda logger: logger.log_metrics(record, step=at.epoch))
        reason = ""
        for callback in self.callbacks:
            try:
                wanted = callback(at)
            except Exception as error:
                error.add_note(f"This was raised by the callback {name_of(callback)} after epoch {at.epoch}.")
                raise
            if wanted is True or (isinstance(wanted, str) and wanted):
                reason = reason or (f"{name_of(callback)} asked for it" if wanted is True else wanted)
        return reason

    def end(self, status: str) -> None:
        """Tell loggers that it is over: "success" or "failed", words that all of them know."""
        self._log(lambda logger: logger.finalize(status))

    def _log(self, told: Callable[[Any], Any]) -> None:
        """Tell each logger; one that fails ends no training: it is left out from then on."""
        for logger in list(self.loggers):
            try:
                with environment_kept(), contextlib.suppress(NotImplementedError):  # some take no hyperparameters
                    told(logger)
            except Exception as error:
                self.loggers.remove(logger)
                warnings.warn(
                    f"{type(logger).__name__} failed and is told no more, and training goes on: "
                    f"{type(error).__name__}: {error}.",
                    stacklevel=4,
                )


def logger_named(name: str, run: str | Path) -> Any:
    """Make a logger for a run: files go beside it, into the folder `logs`.

    MLflow writes into logs/mlflow.db, or where MLFLOW_TRACKING_URI says.

    Args:
        name: as in `EXTRAS`.
        run: the run's folder, whose name the logger gets.

    Raises:
        InputError: no such logger, its package is missing, or it does not start.
    """
    if name not in EXTRAS:
        raise unknown_name_error("logger", name, EXTRAS)
    folder, title = Path(run).absolute().parent / "logs", Path(run).name
    try:
        if name in ("csv", "tensorboard"):
            from lightning.fabric.loggers import CSVLogger, TensorBoardLogger

            return (CSVLogger if name == "csv" else TensorBoardLogger)(folder, title)
        return _mlflow(folder, title) if name == "mlflow" else _wandb(folder, title)
    except ImportError as error:
        raise InputError(
            f"the logger {name} needs a package that is missing ({str(error).splitlines()[0]}): "
            f"pip install 'pyro-vae[{EXTRAS[name]}]'."
        ) from error
    except Exception as error:
        told = (str(error).splitlines() or [""])[0]
        raise InputError(f"the logger {name} does not start, {type(error).__name__}: {told}") from error


def _mlflow(folder: Path, title: str) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    where = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not where:  # MLflow 3 refuses a folder of plain files
        import alembic  # noqa: F401 - which a database needs, and mlflow-skinny leaves out
        import mlflow  # noqa: F401
        import sqlalchemy  # noqa: F401

        folder.mkdir(parents=True, exist_ok=True)
        where = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
        return MLFlowLogger(PROJECT, title, where, artifact_location=(folder / "mlflow").as_uri())
    return MLFlowLogger(PROJECT, title, where)


def _wandb(folder: Path, title: str) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    class Finishing(WandbLogger):
        """Lightning's leaves the run open: the next point of a sweep would log into it, and no failure be seen."""

        def finalize(self, status: str) -> None:
            super().finalize(status)
            if self._experiment is not None:
                self._experiment.finish(exit_code=int(status != "success"))

    return Finishing(name=title, project=PROJECT, save_dir=folder)
