"""Sweep as an Optuna study in its folder: a trial for each point, from the first call to the table."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial, Trial, TrialState

from pyro_vae.core import serialization
from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers, unknown_name_error
from pyro_vae.core.files import LOCK, lock_folder, naming_unwritable, write_atomically
from pyro_vae.core.formatting import shorten
from pyro_vae.registry import options
from pyro_vae.sweeps import search_space
from pyro_vae.sweeps.optuna_search import PruningCallback, draw_points, load_study, propose
from pyro_vae.sweeps.picture import sweep as draw
from pyro_vae.sweeps.pool import train_all
from pyro_vae.sweeps.results import Result, Sweep
from pyro_vae.sweeps.search_space import Axes, Point, point_of
from pyro_vae.sweeps.trial import FINAL, Outcome, Request, unfinished
from pyro_vae.workflow.experiment import run_experiment

WIDE = 160
"""Characters of a line of progress."""

SEARCHES = ("grid", "random", "optuna")
SPEC, TABLE, PICTURE, STUDY = "sweep.yaml", "sweep.csv", "sweep.png", "study.log"


@explained
def sweep(
    over: Mapping[str, Any],
    base: Mapping[str, Any] | str | Path | None = None,
    *,
    to: str | Path,
    search: Literal["grid", "random", "optuna"] | None = None,
    samples: int | None = None,
    search_seed: int = 0,
    jobs: int = 1,
    progress: bool = True,
) -> Sweep:
    """Table of fits at many points of some options of `pyro-vae fit`, each in a run folder of its own.

    All options are checked before the first fit begins. A point that fails - its training diverges, its likelihood
    does not suit the data - is recorded with the reason, and the others go on. Called again with the same folder,
    only what is missing is done: training goes on from checkpoints where it was cut off, and points may be added.

    Args:
        over: options by name, a field of a declared thing behind a dot; each with a list of values, or with a range
            such as {"low": 1e-4, "high": 1e-2, "log": True}.
        base: what all points have in common: options by name, or a file that holds them, or a run folder.
        to: the folder of the sweep.
        search: "grid" takes all combinations, "random" draws `samples` of them, and "optuna" lets a study propose
            them, which ends hopeless ones early; by default random where `samples` is given, and else the grid.
        samples: how many points a random search or a study has.
        search_seed: of a random search or a study.
        jobs: how many points are trained at a time, each by a process of its own.
        progress: whether to print a line for each point that is over.

    Returns:
        The table, which is in the folder too.

    Raises:
        InputError: an option or value cannot be used, or the folder holds something else; nothing has been done then.
        KeyboardInterrupt: SIGINT or SIGTERM; the folder holds what was done.

    >>> import tempfile, pyro_vae as pv
    >>> base = {"data": "digits", "encoder": pv.MLP(hidden=(4,)), "epochs": 1, "batch_size": 500}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = sweep({"latent_dim": [2]}, base, to=f"{folder}/sweep", progress=False)
    >>> found.results[0].name, found.results[0].outcome.status
    ('latent_dim=2', 'finished')
    """
    how = _search(search, samples)
    check_integers(jobs=(jobs, 1), search_seed=(search_seed, 0))
    common = _common(base)
    axes = search_space.axes_of(over, common)
    folder = Path(to).expanduser()
    _check_folder(folder, common, list(axes))
    if how == "random":
        chosen = draw_points(axes, samples or 1, search_seed)
    else:
        chosen = search_space.grid(axes, proposing=how == "optuna")
    points = [point_of(one, common) for one in chosen]
    search_space.check_usable(points, axes)
    with naming_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
    try:
        study = SweepStudy(folder, common, list(axes), jobs, progress)
        return study.search(axes, samples or 1, search_seed) if how == "optuna" else study.train(points)
    finally:
        lock.release()


class SweepStudy:
    """Trials of a sweep in Optuna's journal.

    The user attributes of a trial hold the options of its point, its outcome, and, where a study proposed it, the
    number of the proposal.

    Args:
        folder: the folder of the sweep, which the caller has locked.
        common: the options that all points have in common, as plain values.
        over: the names of the options that differ between points.
        jobs: number of points that are trained at a time.
        progress: whether to print a line for each point that is over.
    """

    def __init__(self, folder: Path, common: Mapping[str, Any], over: Sequence[str], jobs: int, progress: bool) -> None:
        self.folder, self.common, self.jobs, self.progress = folder, common, jobs, progress
        self.running: dict[str, Trial] = {}
        self.options: dict[str, Mapping[str, Any]] = {}
        self.study = load_study(folder / STUDY)
        if "base" not in self.study.user_attrs:
            self.study.set_user_attr("base", dict(common))
            self.study.set_user_attr("over", sorted(over))
        for trial in self._trials(TrialState.RUNNING, TrialState.WAITING):  # of a call that was cut off
            number = trial.number if trial.state == TrialState.RUNNING else self.study.ask().number
            self.study.tell(number, state=TrialState.FAIL)
        outcomes: dict[str, Outcome] = {}
        for trial in self._trials():
            if "options" in trial.user_attrs:
                name = self._add(trial.user_attrs["options"])
                if "outcome" in trial.user_attrs:
                    outcomes[name] = Outcome(**trial.user_attrs["outcome"])
        self.results = {
            name: Result.of(folder / name, self.options[name], outcome)
            for name, outcome in outcomes.items()
            if outcome.status not in ("finished", "pruned") or not unfinished(folder / name)  # or it was removed
        }

    def train(self, points: Sequence[Point]) -> Sweep:
        """Table of the sweep, after all points without a final outcome are trained in their order."""
        missing = [point for point in points if not self._is_final(point.name)]
        if self.progress and len(missing) < len(points):
            print(f"{len(points) - len(missing)} of {len(points)} points are done already", file=sys.stderr)
        for point in missing:
            self._add(point.chosen)
            self.study.enqueue_trial({}, user_attrs={"options": dict(point.chosen)})
        return self._train({}, 0, 0)

    def search(self, axes: Axes, samples: int, seed: int) -> Sweep:
        """Table of the sweep, after all proposals of a study are trained.

        Args:
            axes: the values or range of each option.
            samples: number of proposals, those of earlier calls included.
            seed: seed of the proposals.
        """
        for trial in self._proposals().values():
            if not self._is_final(self._add(trial.user_attrs["options"])):
                attributes = {key: trial.user_attrs[key] for key in ("options", "proposal")}
                self.study.enqueue_trial(trial.params, user_attrs=attributes)
        return self._train(axes, samples, seed)

    def _train(self, axes: Axes, samples: int, seed: int) -> Sweep:
        def done(request: Request, outcome: Outcome) -> None:
            result = Result.of(request.folder, self.options[request.folder.name], outcome)
            kinds = {each.kind for each in self.results.values() if each.kind}
            if axes and result.kind and kinds - {result.kind}:
                why = "its loss is of another kind, which one study cannot rank: take a grid."
                result = Result(result.name, result.chosen, Outcome("failed", why))
            self._record(self.running.pop(result.name), result)

        train_all(self._requests(axes, samples, seed), done, self.jobs)
        found = self._write()
        with naming_unwritable(self.folder / PICTURE), write_atomically(self.folder / PICTURE) as fresh:
            draw(found).savefig(fresh, format="png")
        return found

    def _requests(self, axes: Axes, samples: int, seed: int) -> Iterator[Request]:
        """Requests of the enqueued trials, and then of the proposals of a study."""
        while self._trials(TrialState.WAITING) or len(self._proposals()) < samples:
            number = len(self._proposals())
            trial = propose(self.study, axes, seed, number)
            if "options" not in trial.user_attrs:
                trial.set_user_attr("options", search_space.decode(trial.params))
                trial.set_user_attr("proposal", number)
            point = point_of(trial.user_attrs["options"], self.common)
            name = self._add(point.chosen)
            if name in self.running:  # proposed twice: no second training, and no second outcome
                self.study.tell(trial, state=TrialState.FAIL)
            elif self._is_final(name):
                self._record(trial, self.results[name])
            else:
                self.running[name] = trial
                callbacks = (PruningCallback(self.folder / STUDY, trial.number),) if axes else ()
                yield Request(point.plain, self.folder / name, callbacks)

    def _record(self, trial: Trial, result: Result) -> None:
        """Record the result of a trial in the journal and in the table."""
        self.results[result.name] = result
        outcome = result.outcome
        trial.set_user_attr("outcome", asdict(outcome))
        if outcome.status == "finished" and math.isfinite(result.best):
            self.study.tell(trial, result.best)
        else:
            self.study.tell(trial, state=TrialState.PRUNED if outcome.status == "pruned" else TrialState.FAIL)
        self._write()
        if self.progress:
            loss = f"{result.loss.replace('_', ' ')} {result.best:.3f}  " if result.kind else ""
            done = f"[{len(self.results)}/{len(self.options)}] {result.name}: {outcome.status}"
            print(shorten(f"{done}  {loss}{outcome.sentence}".rstrip(), WIDE), file=sys.stderr, flush=True)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _proposals(self) -> dict[int, FrozenTrial]:
        """Newest trial of each proposal by its number."""
        return {trial.user_attrs["proposal"]: trial for trial in self._trials() if "proposal" in trial.user_attrs}

    def _add(self, chosen: Mapping[str, Any]) -> str:
        """Name of a point, which is now one of the sweep's."""
        name = Point(chosen, {}).name
        self.options.setdefault(name, chosen)
        return name

    def _is_final(self, name: str) -> bool:
        return name in self.results and self.results[name].outcome.status in FINAL

    def _write(self) -> Sweep:
        """Table of the sweep, written into the folder with the options of its points."""
        found = Sweep(self.folder, [self.results[name] for name in self.options if name in self.results])
        points = {name: dict(chosen) for name, chosen in self.options.items()}
        declared = serialization.dump({"base": self.common, "points": points})
        for name, text in {SPEC: declared, TABLE: found.to_csv()}.items():
            with naming_unwritable(self.folder / name), write_atomically(self.folder / name) as fresh:
                fresh.write_text(text, encoding="utf-8")
        return found


def _search(search: str | None, samples: int | None) -> str:
    search = search or ("grid" if samples is None else "random")
    if search not in SEARCHES:
        raise unknown_name_error("search", search, SEARCHES)
    if search == "grid" and samples is not None:
        raise InputError("search = 'grid' takes all points: leave samples out, or take search='random'.")
    if search != "grid":
        if samples is None:
            raise InputError(f"search = {search!r} needs to know how many points: give samples=20 (--samples 20).")
        check_integers(samples=(samples, 1))
    return search


def _common(base: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """Options that all points have in common, as plain values."""
    parameters = search_space.PARAMETERS
    if isinstance(base, str | Path):
        given: Mapping[str, Any] = options.read_config(Path(base).expanduser(), parameters)
    elif base is None or isinstance(base, Mapping):
        given = {name: value for name, value in (base or {}).items() if name not in options.RECORDED}
    else:
        raise InputError(f"base = {base!r} has to be options of fit by name, or a file that holds them.")
    plain = {name: serialization.to_dict(value) for name, value in given.items() if name != "progress"}
    for name in plain:
        search_space.check_option(name, "base")
    options.typed(run_experiment, plain)
    return plain


def _check_folder(folder: Path, common: Mapping[str, Any], over: Sequence[str]) -> None:
    """Refuse a folder with something else in it, or with a sweep of other options."""
    if not folder.exists():
        parent = next(parent for parent in folder.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise InputError(f"{folder} cannot be written: {parent} is not a folder that you may write to.")
        return
    held = {file.name for file in folder.iterdir()} if folder.is_dir() else {""}
    if not held & {SPEC, STUDY} and held - {LOCK}:
        raise InputError(f"{folder} exists and is not a sweep, so it is left alone: choose another folder.")
    recorded = load_study(folder / STUDY).user_attrs if STUDY in held else {}
    if SPEC in held and "base" not in recorded:
        raise InputError(f"{folder} holds a sweep of an earlier version, without a journal: choose another folder.")
    names = recorded.get("over", sorted(over))
    if names != sorted(over):
        raise InputError(
            f"{folder} is a sweep over {', '.join(names)}, and now it is over {', '.join(sorted(over))}, so that their "
            "points have no table in common: choose another folder, to='another'."
        )
    before = recorded.get("base", dict(common))
    for name in before | dict(common):
        if json.dumps(before.get(name), sort_keys=True) != json.dumps(common.get(name), sort_keys=True):
            raise InputError(
                f"{folder} is a sweep with {name} = {before.get(name)!r}, and now it is {common.get(name)!r}: choose "
                "another folder, or give the options that it was started with."
            )
