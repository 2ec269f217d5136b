"""A sweep whose points are proposed by Optuna from what the ones before came to."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pyro_vae.core.errors import InputError
from pyro_vae.sweeps.search_space import Axis, Range
from pyro_vae.sweeps.status import PRUNED, Outcome

NAME = "sweep"
AGAIN = "begun again"
"""What a trial is marked with that was cut off, and is asked for once more."""


class Study:
    """Optuna's study, in a file that several processes may write to.

    Points are proposed by the tree-structured Parzen estimator; a training whose loss is above the median of others at
    the same epoch is pruned.

    References:
        Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011, NeurIPS 24.
        Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, 2019,
        https://arxiv.org/abs/1907.10902.

    Args:
        file: where it is, or will be.
        axes: what is swept over.
        samples: how many trials there shall be, with those of before.
        seed: of its proposals.

    Raises:
        InputError: there is no Optuna, or an axis changes what the loss is.
    """

    def __init__(self, file: Path, axes: Mapping[str, Axis], samples: int, seed: int) -> None:
        optuna = require_optuna()
        if objective := [name for name in axes if name.partition(".")[0] == "objective"]:
            raise InputError(
                f"over: {objective[0]} changes what the loss is, so no study can minimise it: take a grid, and compare "
                "the runs by pyro-vae compare."
            )
        self.file, self.samples = file, samples
        self.distributions = {name: _distribution(optuna.distributions, axis) for name, axis in axes.items()}
        with _quiet():
            before = len(_load(file).trials)
            self.study = _load(file, optuna.samplers.TPESampler(seed=seed + before))
            for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                optuna.trial.Trial(self.study, trial._trial_id).set_user_attr(AGAIN, True)
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                self.study.enqueue_trial(trial.params)

    def ask(self) -> tuple[dict[str, Any], int] | None:
        """Propose a point: what is chosen, and the trial's number; None when there were enough."""
        trials = self.study.get_trials(deepcopy=False)
        if sum(trial.state.name != "WAITING" and AGAIN not in trial.user_attrs for trial in trials) >= self.samples:
            return None
        with _quiet():
            trial = self.study.ask(self.distributions)
        return {name: _value(value) for name, value in trial.params.items()}, trial.number

    def tell(self, number: int, outcome: Outcome, loss: float | None) -> None:
        """Say what a trial came to; one that was cut off stays open, to be gone on with."""
        states = require_optuna().trial.TrialState
        state = {"finished": states.COMPLETE, "pruned": states.PRUNED}.get(outcome.status, states.FAIL)
        if outcome.status == "interrupted":
            return
        if loss is None:
            state = states.FAIL
        with _quiet():
            self.study.tell(number, loss if state == states.COMPLETE else None, state)


def listener(file: str, number: int) -> Callable[[Any], str | None]:
    """What reports each epoch's loss to a trial, and says why to stop where that is hopeless."""
    optuna = require_optuna()
    with _quiet():
        study = _load(Path(file))
    trial = optuna.trial.Trial(study, study.trials[number]._trial_id)

    def report(at: Any) -> str | None:
        trial.report(at.record.get("validation_loss", at.record["loss"]), at.epoch)
        return PRUNED if trial.should_prune() else None

    return report


def require_optuna() -> Any:
    """Import Optuna.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "a study needs Optuna, which is not installed: pip install 'pyro-vae[sweep]', or take --search random "
            "--samples 20."
        ) from error
    return optuna


def _load(file: Path, sampler: Any = None) -> Any:
    optuna = require_optuna()
    journal = optuna.storages.journal.JournalFileBackend(str(file))
    storage = optuna.storages.JournalStorage(journal)
    return optuna.create_study(storage=storage, study_name=NAME, sampler=sampler, load_if_exists=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every step it makes; leave its loudness as it was."""
    logging = require_optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _distribution(distributions: Any, axis: Axis) -> Any:
    if not isinstance(axis, Range):
        return distributions.CategoricalDistribution([json.dumps(value) for value in axis])
    if axis.whole:
        return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return json.loads(value)
    return float(f"{value:.4g}") if isinstance(value, float) else value
