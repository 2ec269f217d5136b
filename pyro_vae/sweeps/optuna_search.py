"""Search by Optuna: the journal that holds its trials, the proposals of a study, and pruning."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend

from pyro_vae.core.errors import InputError
from pyro_vae.sweeps.search_space import Axes, decode
from pyro_vae.sweeps.trial import PRUNED

NAME = "sweep"
"""Name of the study in its journal."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context in which Optuna logs errors alone; its verbosity is restored after it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def load_study(file: Path) -> optuna.Study:
    """Study in a journal, a file without pickle that several processes may write to; a new one where there is none.

    Raises:
        InputError: the file is something else.
    """
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(file)))
        with quiet():
            if not storage.get_all_studies():
                return optuna.create_study(storage=storage, study_name=NAME)
            return optuna.load_study(storage=storage, study_name=NAME)
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{file} is not the journal of a sweep ({error}): choose another folder.") from error


def draw_points(axes: Axes, samples: int, seed: int) -> list[dict[str, Any]]:
    """Random combinations of options, no two alike; a longer list begins with the shorter one.

    Args:
        axes: the values or range of each option.
        samples: number of combinations.
        seed: seed of the draws.

    Raises:
        InputError: there are fewer different combinations.
    """
    drawn: dict[str, dict[str, Any]] = {}
    with quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        for _ in range(100 * samples):
            chosen = decode(study.ask(dict(axes)).params)
            drawn.setdefault(json.dumps(chosen), chosen)
            if len(drawn) == samples:
                return list(drawn.values())
    raise InputError(f"samples = {samples}: there are only {len(drawn)} different points; leave samples out for all.")


def propose(study: optuna.Study, axes: Axes, seed: int, number: int) -> optuna.Trial:
    """Trial of a study: the next one that is enqueued, or else a proposal of the tree-structured Parzen estimator.

    Args:
        study: the study.
        axes: the values or range of each option; none for trials that are enqueued with their options.
        seed: seed of all proposals.
        number: number of the proposal, from which its own seed follows.

    References:
        Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011 [bergstra2011], NeurIPS 24.
        Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, 2019 [akiba2019],
            https://arxiv.org/abs/1907.10902.
    """
    (own,) = np.random.SeedSequence([seed, number]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(own))
    return study.ask(dict(axes))


@dataclass(frozen=True)
class PruningCallback:
    """Callback of a fit that reports each epoch's loss to a trial, and returns a reason to stop where it is pruned.

    A training is pruned whose loss is above the median of others at the same epoch.

    Args:
        journal: the file of the study.
        number: number of the trial.
    """

    journal: Path
    number: int

    @cached_property
    def _trial(self) -> optuna.Trial:
        study = load_study(self.journal)
        return optuna.Trial(study, study.trials[self.number]._trial_id)

    def __call__(self, event: Any) -> str | None:
        """Reason to stop after an epoch, or None."""
        self._trial.report(event.record.get("validation_loss", event.record["loss"]), event.epoch)
        return PRUNED if self._trial.should_prune() else None
