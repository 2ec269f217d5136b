"""One point of a sweep: trained into a run of its own, whatever comes of it."""

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
    """What one process asks another to train.

    Args:
        plain: the options of `pyro-vae fit`, as plain values.
        folder: the run's folder.
        trial: the study's file and the trial's number in it, if a study wants to hear of each epoch.
    """

    plain: Mapping[str, Any]
    folder: str
    trial: tuple[str, int] | None = None


def train(request: Request) -> Outcome:
    """Train a point, or go on with it where it was cut off."""
    folder = Path(request.folder)
    plain = {"checkpoint_minutes": 10.0, **request.plain}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a profile is in the run's folder
            run_experiment(
                **options.typed(run_experiment, plain),
                run=str(folder),
                resume=True,
                progress=False,
                _callbacks=_listeners(request),
            )
        if not {"checkpoint_minutes", "checkpoint_epochs"} & set(request.plain) and not unfinished(folder):
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # which nobody asked for
    except InputError as error:
        return Outcome("refused", str(error))
    except FloatingPointError as error:
        return Outcome("diverged", str(error))
    except Exception as error:  # memory that ran out, a full disk, a fault: the other points go on
        told = (str(error).strip().splitlines() or [""])[0]
        return Outcome("failed", f"{type(error).__name__}: {told}")
    return of(folder)


def of(folder: Path) -> Outcome:
    """What the run in a folder came to, as far as it tells."""
    if unfinished(folder):
        return Outcome("interrupted", "it is not finished: call the sweep again to go on.")
    stopped = RunFolder(folder).history().stopped
    return Outcome("pruned" if PRUNED in stopped else "finished", f"{stopped}." if stopped else "")


def unfinished(folder: Path) -> bool:
    """Whether there is no whole run yet, or one that a signal cut off."""
    run = RunFolder(folder)
    return not run.finished or run.history().stopped.startswith(tuple(WORDS.values()))


def _listeners(request: Request) -> Sequence[Callable[..., Any]]:
    if request.trial is None:
        return ()
    return (listener(*request.trial),)
