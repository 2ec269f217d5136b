"""One point of a sweep: a fit into a run folder of its own, whose failure is an outcome and not an exception."""

import contextlib
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.core.errors import InputError
from pyro_vae.registry import options
from pyro_vae.runs.folder import CHECKPOINTS, RunFolder
from pyro_vae.sweeps.optuna_search import listener
from pyro_vae.sweeps.status import PRUNED, Outcome
from pyro_vae.training.signals import WORDS
from pyro_vae.workflow.experiment import run_experiment


@dataclass(frozen=True)
class Request:
    """Request to train a point, which can be sent to another process.

    Args:
        plain: the options of `pyro-vae fit`, as plain values.
        folder: the run's folder.
        trial: journal of the study and number of the trial that each epoch is reported to; None without a study.
    """

    plain: Mapping[str, Any]
    folder: str
    trial: tuple[str, int] | None = None


def train(request: Request) -> Outcome:
    """Outcome of a point, trained from its newest checkpoint if there is one."""
    folder = Path(request.folder)
    plain = {"checkpoints": {}, **request.plain}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a profile is in the run's folder
            run_experiment(
                **options.typed(run_experiment, plain),
                run=str(folder),
                resume=True,
                progress=False,
                _callbacks=_listeners(request),
            )
        if "checkpoints" not in request.plain and not unfinished(folder):
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # the options name none
    except InputError as error:
        return Outcome("refused", str(error))
    except FloatingPointError as error:
        return Outcome("diverged", str(error))
    except Exception as error:  # memory that ran out, a full disk, a fault: the other points go on
        first_line = (str(error).strip().splitlines() or [""])[0]
        return Outcome("failed", f"{type(error).__name__}: {first_line}")
    return of(folder)


def of(folder: Path) -> Outcome:
    """Outcome that a run folder records."""
    if unfinished(folder):
        return Outcome("interrupted", "it is not finished: call the sweep again to go on.")
    stopped = RunFolder(folder).history().stopped
    return Outcome("pruned" if PRUNED in stopped else "finished", f"{stopped}." if stopped else "")


def unfinished(folder: Path) -> bool:
    """Whether a run is missing, incomplete, or was interrupted by a signal."""
    run = RunFolder(folder)
    return not run.finished or run.history().stopped.startswith(tuple(WORDS.values()))


def _listeners(request: Request) -> Sequence[Callable[..., Any]]:
    if request.trial is None:
        return ()
    return (listener(*request.trial),)
