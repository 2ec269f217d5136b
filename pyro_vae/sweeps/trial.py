"""Trial of a sweep: a fit into a run folder of its own, whose failure is an outcome and not an exception."""

import contextlib
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pyro_vae.core.errors import InputError
from pyro_vae.registry import options
from pyro_vae.runs.folder import CHECKPOINTS, RunFolder
from pyro_vae.training.signals import WORDS
from pyro_vae.workflow.experiment import run_experiment

Status = Literal["finished", "refused", "diverged", "failed", "pruned", "interrupted"]

FINAL = ("finished", "diverged", "pruned")
"""Statuses that another attempt would reproduce; a point with any other status is tried again."""

PRUNED = "the study pruned it"
"""Reason in the history of a run that a study has pruned."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a trial.

    Args:
        status: the status.
        sentence: the reason where it is not finished.
    """

    status: Status
    sentence: str = ""


INTERRUPTED = Outcome("interrupted", "it is not finished: call the sweep again to go on.")


@dataclass(frozen=True)
class Request:
    """Request to train a point, which can be sent to another process.

    Args:
        options: the options of `pyro-vae fit`, as plain values.
        folder: the run's folder.
        callbacks: callbacks of the fit.
    """

    options: Mapping[str, Any]
    folder: Path
    callbacks: Sequence[Callable[..., Any]] = ()


def train(request: Request) -> Outcome:
    """Outcome of a point, trained from its newest checkpoint if there is one."""
    if not unfinished(request.folder):
        return outcome_of(request.folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a profile is in the run's folder
            experiment = run_experiment(
                **options.typed(run_experiment, {"checkpoints": {}, **request.options}),
                run=str(request.folder),
                resume=True,
                progress=False,
                _callbacks=request.callbacks,
            )
        if experiment.interrupted:
            return INTERRUPTED
        if "checkpoints" not in request.options and not unfinished(request.folder):
            shutil.rmtree(request.folder / CHECKPOINTS, ignore_errors=True)  # the options name none
    except InputError as error:
        return Outcome("refused", str(error))
    except FloatingPointError as error:
        return Outcome("diverged", str(error))
    except Exception as error:  # memory that ran out, a full disk, a fault: the other points go on
        first_line = (str(error).strip().splitlines() or [""])[0]
        return Outcome("failed", f"{type(error).__name__}: {first_line}")
    return outcome_of(request.folder)


def outcome_of(folder: Path) -> Outcome:
    """Outcome that a run folder records."""
    if unfinished(folder):
        return INTERRUPTED
    stopped = RunFolder(folder).history().stopped
    return Outcome("pruned" if PRUNED in stopped else "finished", f"{stopped}." if stopped else "")


def unfinished(folder: Path) -> bool:
    """Whether a run is missing, incomplete, or was interrupted by a signal."""
    run = RunFolder(folder)
    return not run.finished or run.history().stopped.startswith(tuple(WORDS.values()))
