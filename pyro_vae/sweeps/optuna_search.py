"""Searches by Optuna: random points, and a study that proposes points from the losses of those before."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from pyro_vae.core.errors import InputError
from pyro_vae.sweeps.search_space import Axis, Range
from pyro_vae.sweeps.status import PRUNED, Outcome

NAME = "sweep"
"""Name of the study in its journal."""

AGAIN = "begun again"
"""User attribute of a trial that was cut off, and whose point is enqueued once more."""


class Study:
    """Study of Optuna in a journal, a file without pickle that several processes may write to.

    Points are proposed by the tree-structured Parzen estimator; a training whose loss is above the median of others at
    the same epoch is pruned.

    References:
        Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011, NeurIPS 24.
        Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, 2019,
        https://arxiv.org/abs/1907.10902.

    Args:
        file: the journal; it is created where there is none.
        axes: the values or range of each option.
        samples: number of trials, those in the journal included.
        seed: seed of the proposals.

    Raises:
        InputError: an axis changes what the loss is.
    """

    def __init__(self, file: Path, axes: Mapping[str, Axis], samples: int, seed: int) -> None:
        if objective := [name for name in axes if name.partition(".")[0] == "objective"]:
            raise InputError(
                f"over: {objective[0]} changes what the loss is, so no study can minimise it: take a grid, and compare "
                "the runs by pyro-vae compare."
            )
        self.file, self.samples = file, samples
        self.distributions = {name: _distribution(axis) for name, axis in axes.items()}
        with _quiet():
            before = len(_load(file).trials)
            self.study = _load(file, optuna.samplers.TPESampler(seed=seed + before))
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                Trial(self.study, trial._trial_id).set_user_attr(AGAIN, True)
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.study.enqueue_trial(trial.params)

    def ask(self) -> tuple[dict[str, Any], int] | None:
        """The proposed options and the number of their trial; None after the last one."""
        trials = self.study.get_trials(deepcopy=False)
        if sum(trial.state.name != "WAITING" and AGAIN not in trial.user_attrs for trial in trials) >= self.samples:
            return None
        with _quiet():
            trial = self.study.ask(self.distributions)
        return {name: _value(value) for name, value in trial.params.items()}, trial.number

    def tell(self, number: int, outcome: Outcome, loss: float | None) -> None:
        """Record the outcome of a trial; one that was interrupted stays open, to be resumed."""
        states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        state = states.get(outcome.status, TrialState.FAIL)
        if outcome.status == "interrupted":
            return
        if loss is None:
            state = TrialState.FAIL
        with _quiet():
            self.study.tell(number, loss if state == TrialState.COMPLETE else None, state)


def listener(file: str, number: int) -> Callable[[Any], str | None]:
    """Callback of a fit that reports each epoch's loss to a trial, and returns a reason to stop where it is pruned."""
    with _quiet():
        study = _load(Path(file))
    trial = Trial(study, study.trials[number]._trial_id)

    def report(at: Any) -> str | None:
        trial.report(at.record.get("validation_loss", at.record["loss"]), at.epoch)
        return PRUNED if trial.should_prune() else None

    return report


def draw_points(axes: Mapping[str, Axis], samples: int, seed: int) -> list[dict[str, Any]]:
    """Random combinations of options, no two alike; a longer list begins with the shorter one.

    Args:
        axes: the values or range of each option.
        samples: number of combinations.
        seed: seed of the draws.

    Raises:
        InputError: there are fewer different combinations.
    """
    distributions = {name: _distribution(axis) for name, axis in axes.items()}
    found: dict[str, dict[str, Any]] = {}
    with _quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        for _ in range(100 * samples):
            one = {name: _value(value) for name, value in study.ask(distributions).params.items()}
            found.setdefault(json.dumps(one), one)
            if len(found) == samples:
                return list(found.values())
    raise InputError(f"samples = {samples}: there are only {len(found)} different points; leave samples out for all.")


def _load(file: Path, sampler: Any = None) -> Any:
    journal = JournalFileBackend(str(file))
    storage = optuna.storages.JournalStorage(journal)
    return optuna.create_study(storage=storage, study_name=NAME, sampler=sampler, load_if_exists=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within the block Optuna logs errors alone; its verbosity is restored after it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    if not isinstance(axis, Range):
        return optuna.distributions.CategoricalDistribution([json.dumps(value) for value in axis])
    if axis.whole:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return json.loads(value)
    return float(f"{value:.4g}") if isinstance(value, float) else value
