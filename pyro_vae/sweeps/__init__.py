"""Many fits that differ in some options, as one table: a grid, random points, or what a study proposes.

A sweep is a folder of ordinary runs, one for each point, and beside them

    sweep.yaml    what all have in common, and what was swept over
    sweep.csv     the table
    sweep.png     the loss by option
    study.log     Optuna's journal, where a study proposes the points

Called again, it leaves out what is finished and goes on with what was cut off.
"""

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pyro_vae.core import serialization
from pyro_vae.core.errors import InputError, check_integers, unknown_name_error
from pyro_vae.core.files import LOCK, lock_folder, naming_unwritable, write_atomically
from pyro_vae.registry import options
from pyro_vae.registry.options import RECORDED
from pyro_vae.sweeps import results, search_space
from pyro_vae.sweeps.optuna_search import Study, draw_points
from pyro_vae.sweeps.picture import sweep as draw
from pyro_vae.sweeps.results import Result, Sweep
from pyro_vae.sweeps.search_space import Axis, Point
from pyro_vae.sweeps.status import SETTLED, Outcome
from pyro_vae.sweeps.trial import Request, of, unfinished
from pyro_vae.sweeps.workers import train_all
from pyro_vae.workflow.experiment import run_experiment

__all__ = ["Result", "Sweep", "sweep"]

WIDE = 160
"""Characters of a line of progress."""

SEARCHES = ("grid", "random", "optuna")
SPEC, TABLE, PICTURE, STUDY = "sweep.yaml", "sweep.csv", "sweep.png", "study.log"


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
    """Fit a VAE at many points of some options of `pyro-vae fit`, each into a run folder of its own.

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
        KeyboardInterrupt: interrupted; what was learned is kept.

    >>> import tempfile, pyro_vae as pv
    >>> base = {"data": "digits", "encoder": pv.MLP(hidden=(4,)), "epochs": 1, "batch_size": 500}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = sweep({"latent_dim": [2]}, base, to=f"{folder}/sweep", progress=False)
    >>> found.results[0].name, found.results[0].outcome.status
    ('latent_dim=2', 'finished')
    """
    how = _search(search, samples)
    check_integers(jobs=(jobs, 1), search_seed=(search_seed, 0))
    common = _common(base, run_experiment)
    axes = search_space.axes_of(over, common, run_experiment)
    folder = Path(to)
    _require_ours(folder, common)
    if how == "optuna":
        points = _corners(axes, common, run_experiment)
    else:
        chosen = search_space.grid(axes) if how == "grid" else draw_points(axes, samples or 1, search_seed)
        points = [search_space.point_of(one, common, run_experiment) for one in chosen]
    search_space.require_usable(points, axes)
    with _Folder(folder, common, progress, jobs) as place:
        if how == "optuna":
            return place.study(
                axes, samples or 1, search_seed, lambda one: search_space.point_of(one, common, run_experiment)
            )
        return place.train(points)


class _Folder:
    """The folder of a sweep while it is at work, locked for others."""

    def __init__(self, path: Path, common: Mapping[str, Any], progress: bool, jobs: int) -> None:
        self.path, self.common, self.progress, self.jobs = path, common, progress, jobs
        self.results: dict[str, Result] = {}
        self.points: dict[str, Mapping[str, Any]] = {}

    def __enter__(self) -> "_Folder":
        with naming_unwritable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = lock_folder(self.path)
        self.before = results.read(self.path / TABLE)
        for name, chosen in _read(self.path).get("points", {}).items():
            point = Point(chosen, {})
            self.points[name] = chosen
            if outcome := self._settled(point) or self.before.get(name):
                self.results[name] = Result.of(self.path / name, chosen, outcome)
        return self

    def __exit__(self, *error: object) -> None:
        self.lock.release()

    def train(self, points: list[Point]) -> Sweep:
        """Table of the points, after all that have no final outcome are trained."""
        self._declare(points)
        waiting = [point for point in points if not self._settled(point)]
        if self.progress and len(waiting) < len(points):
            self._say(f"{len(points) - len(waiting)} of {len(points)} points are done already")
        following = iter(waiting)

        def request() -> Request | None:
            point = next(following, None)
            return None if point is None else Request(point.plain, str(self.path / point.name))

        return self._train(request, lambda name, outcome: outcome)

    def study(
        self, axes: Mapping[str, Axis], samples: int, seed: int, made: Callable[[Mapping[str, Any]], Point]
    ) -> Sweep:
        """Table of the points that a study proposes, each trained in turn."""
        file = self.path / STUDY
        study = Study(file, axes, samples, seed)
        numbers: dict[str, int] = {}

        def request() -> Request | None:
            while (proposed := study.ask()) is not None:
                point, number = made(proposed[0]), proposed[1]
                self._declare([point])
                outcome = self._settled(point)
                if outcome is None and point.name not in numbers:
                    numbers[point.name] = number
                    return Request(point.plain, str(self.path / point.name), (str(file), number))
                outcome = outcome or Outcome("failed", "it is under way already.")
                study.tell(number, outcome, self._loss(point.name, outcome))
            return None

        def done(name: str, outcome: Outcome) -> Outcome:
            kinds = {each.kind for each in self.results.values() if each.kind}
            if (kind := Result.of(self.path / name, self.points[name], outcome).kind) and kinds - {kind}:
                outcome = Outcome("failed", "its loss is of another kind, which one study cannot rank: take a grid.")
            study.tell(numbers.pop(name), outcome, self._loss(name, outcome))
            return outcome

        return self._train(request, done)

    def _train(self, following: Callable[[], Request | None], over: Callable[[str, Outcome], Outcome]) -> Sweep:
        """Table of all points, written again after each."""

        def done(request: Request, outcome: Outcome) -> None:
            name = Path(request.folder).name
            outcome = over(name, outcome)
            result = self.results[name] = Result.of(self.path / name, self.points[name], outcome)
            self._table()
            loss = f"{result.loss.replace('_', ' ')} {result.best:.3f}  " if result.kind else ""
            line = (
                f"[{len(self.results)}/{len(self.points)}] {name}: {outcome.status}  {loss}{outcome.sentence}".rstrip()
            )
            self._say(line if len(line) <= WIDE else f"{line[: WIDE - 3]}...")

        train_all(following, done, self.jobs)
        found = self._table()
        with naming_unwritable(self.path / PICTURE), write_atomically(self.path / PICTURE) as fresh:
            draw(found).savefig(fresh, format="png")
        return found

    def _declare(self, points: list[Point]) -> None:
        """Record the points, so that the sweep can be resumed."""
        self.points |= {point.name: point.chosen for point in points}
        text = serialization.dump(
            {"base": self.common, "points": {name: dict(one) for name, one in self.points.items()}}
        )
        with naming_unwritable(self.path / SPEC), write_atomically(self.path / SPEC) as fresh:
            fresh.write_text(text, encoding="utf-8")

    def _settled(self, point: Point) -> Outcome | None:
        """Final outcome of a point from an earlier call; None where it has to be trained."""
        folder, before = self.path / point.name, self.before.get(point.name)
        if before and before.status in SETTLED and (before.status == "diverged" or not unfinished(folder)):
            return before
        return None if unfinished(folder) else of(folder)

    def _loss(self, name: str, outcome: Outcome) -> float | None:
        result = Result.of(self.path / name, self.points[name], outcome)
        return result.best if result.kind else None

    def _table(self) -> Sweep:
        found = Sweep(self.path, tuple(self.results.values()))
        with naming_unwritable(self.path / TABLE), write_atomically(self.path / TABLE) as fresh:
            fresh.write_text(found.to_csv(), encoding="utf-8")
        return found

    def _say(self, line: str) -> None:
        if self.progress:
            print(line, file=sys.stderr, flush=True)


def _search(search: str | None, samples: int | None) -> str:
    if search is not None and search not in SEARCHES:
        raise unknown_name_error("search", search, SEARCHES)
    search = search or ("grid" if samples is None else "random")
    if search == "grid" and samples is not None:
        raise InputError("search = 'grid' takes all points: leave samples out, or take search='random'.")
    if search != "grid":
        if samples is None:
            raise InputError(f"search = {search!r} needs to know how many points: give samples=20 (--samples 20).")
        check_integers(samples=(samples, 1))
    return search


def _common(base: Mapping[str, Any] | str | Path | None, verb: options.Verb) -> dict[str, Any]:
    """The options that all points have in common, as plain values."""
    parameters = inspect.signature(verb).parameters
    if isinstance(base, str | Path):
        given: Mapping[str, Any] = options.read_config(Path(base), parameters)
    elif base is None or isinstance(base, Mapping):
        given = {name: value for name, value in (base or {}).items() if name not in RECORDED}
    else:
        raise InputError(f"base = {base!r} has to be options of fit by name, or a file that holds them.")
    plain = {name: serialization.to_dict(value) for name, value in given.items() if name != "progress"}
    for name in plain:
        search_space.require_ours(name, parameters, "base")
    options.typed(verb, plain)
    return plain


def _corners(axes: Mapping[str, Axis], common: Mapping[str, Any], verb: options.Verb) -> list[Point]:
    """Points at the ends of the ranges of a study, to check before it begins."""
    ends = {
        name: (axis.low, axis.high) if isinstance(axis, search_space.Range) else axis for name, axis in axes.items()
    }
    whole = {name for name, axis in axes.items() if isinstance(axis, search_space.Range) and axis.whole}
    ends |= {name: tuple(map(int, ends[name])) for name in whole}
    return [search_space.point_of(one, common, verb) for one in search_space.grid(ends)]


def _read(folder: Path) -> dict[str, Any]:
    """Content of a sweep's sweep.yaml; empty where there is none."""
    file = folder / SPEC
    try:
        return serialization.parse(file.read_text(encoding="utf-8"), str(file)) if file.exists() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _require_ours(folder: Path, common: Mapping[str, Any]) -> None:
    """Refuse a folder with something else in it, or with a sweep of other options."""
    if not folder.exists():
        parent = next(parent for parent in folder.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise InputError(f"{folder} cannot be written: {parent} is not a folder that you may write to.")
        return
    if not folder.is_dir() or (not (folder / SPEC).exists() and {f.name for f in folder.iterdir()} - {LOCK}):
        raise InputError(f"{folder} exists and is not a sweep, so it is left alone: choose another folder.")
    if not (folder / SPEC).exists():
        return
    before = _read(folder).get("base", {})
    for name in before | dict(common):
        if not results.same(before.get(name), common.get(name)):
            raise InputError(
                f"{folder} is a sweep with {name} = {before.get(name)!r}, and now it is {common.get(name)!r}: choose "
                "another folder, or give the options that it was begun with."
            )
