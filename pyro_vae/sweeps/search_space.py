"""Points of a sweep: the options of `pyro-vae fit` that each one sets, and the name of its run.

    over: {latent_dim: [2, 8], optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}

A list is a choice; a mapping with `low` and `high` is a range, which only a random search or a study can draw from.
"""

import hashlib
import inspect
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pyro_vae.core import serialization
from pyro_vae.core.config import coerce
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.registry import options, tables
from pyro_vae.workflow.comparison import words as written
from pyro_vae.workflow.experiment import run_experiment

PARAMETERS = inspect.signature(run_experiment).parameters
"""Options of `pyro-vae fit`."""

OURS = ("run", "overwrite", "resume", "progress")
"""Options of `pyro-vae fit` that a sweep sets for each of its points."""

MAX_POINTS = 10_000
"""Points of a grid at most; a larger one is taken for a mistake."""

NAMED = 120
"""Characters of a run's name at most."""

Axis = CategoricalDistribution | IntDistribution | FloatDistribution
Axes = Mapping[str, Axis]
"""Values or range of each option: of a list, a choice between the values as JSON."""


@dataclass(frozen=True)
class Point:
    """Point of a sweep.

    Args:
        chosen: the options in which points differ, by name, as plain values.
        plain: all options that are given to `pyro-vae fit`.
        error: the reason why they cannot be used; empty where they can.
        culprit: the chosen option that the error is about.
    """

    chosen: Mapping[str, Any]
    plain: Mapping[str, Any]
    error: str = ""
    culprit: str = ""

    @property
    def name(self) -> str:
        """Name of its run, which says what was chosen, and differs from those of all other points.

        >>> Point({"latent_dim": 2, "optimizer.lr": 0.001}, {}).name
        'latent_dim=2,lr=0.001'
        """
        short = [name.rsplit(".")[-1] for name in self.chosen]
        names = short if len(set(short)) == len(short) else list(self.chosen)
        pairs = zip(names, self.chosen.values(), strict=True)
        text = ",".join(f"{name}={written(value)}" for name, value in pairs)
        plain = all(type(serialization.value(str(one))) is type(one) for one in self.chosen.values())  # 1 is not "1"
        if plain and re.fullmatch(r"[\w.,=+-]*", text, re.ASCII) and len(text) <= NAMED:
            return text
        text = re.sub(r"[^\w.,=+-]+", "-", text.replace(")", ""), flags=re.ASCII)[:NAMED].strip("-")
        return f"{text}-{hashlib.sha256(json.dumps(dict(self.chosen)).encode()).hexdigest()[:8]}"


def axes_of(over: Any, base: Mapping[str, Any]) -> Axes:
    """Values or range of each option that a sweep is over.

    Args:
        over: options by name; each a list of values, or a range with `low` and `high`.
        base: the options that all points have in common, as plain values.

    Raises:
        InputError: no such option, one that the sweep sets itself, no values, or no range.
    """
    if not isinstance(over, Mapping) or not over:
        raise InputError(
            f"over = {over!r} has to name options of fit and their values, as in "
            "--over '{latent_dim: [2, 8], optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}'."
        )
    return {str(name): _axis(str(name), values, base) for name, values in over.items()}


def _axis(name: str, values: Any, base: Mapping[str, Any]) -> Axis:
    role, *path = name.split(".")
    check_option(role, "over")
    if path and role not in tables.ROLES:
        raise InputError(f"over: {role} is one value and has no {path[0]!r} to sweep over: name {role} itself.")
    if isinstance(values, Mapping) and {"low", "high"} <= set(values):
        return _range(name, values, base)
    if hasattr(values, "tolist"):  # an array
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(
            f"over: {name} = {values!r} has to be a list of values, as in {{{name}: [{values or '...'}]}}, or a range, "
            f"as in {{{name}: {{low: 1, high: 10}}}}."
        )
    plain = [serialization.to_dict(value) for value in values]
    texts = [json.dumps(value, sort_keys=True) for value in plain]
    if double := [text for i, text in enumerate(texts) if text in texts[:i]]:
        raise InputError(f"over: {name} has {double[0]} twice: leave one out.")
    return CategoricalDistribution([json.dumps(value) for value in plain])


def _range(name: str, values: Mapping[Any, Any], base: Mapping[str, Any]) -> Axis:
    if strange := set(values) - {"low", "high", "log"}:
        raise unknown_name_error(f"field of the range of {name},", min(strange, key=str), ("low", "high", "log"))
    low = coerce(f"over: {name}.low", float, values["low"])
    high = coerce(f"over: {name}.high", float, values["high"])
    log = coerce(f"over: {name}.log", bool, values.get("log", False))
    if not low < high or (log and low <= 0):
        need = "low > 0, for its logarithm is taken" if low < high else "low < high"
        raise InputError(f"over: {name} is a range from {values['low']} to {values['high']}, which needs {need}.")
    integers = all(isinstance(values[end], int) for end in ("low", "high"))
    if integers and point_of({name: low + 0.5}, base).error:  # the option takes no other numbers
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def check_option(name: str, where: str) -> None:
    """Refuse an option that `fit` does not have, or that a sweep sets itself.

    Raises:
        InputError: it is one of these.
    """
    if name in OURS:
        raise InputError(f"{where}: the sweep itself sets {name} for each of its points: leave it out.")
    known = [one for one in PARAMETERS if one not in OURS and not one.startswith("_")]
    if name not in known:
        raise unknown_name_error(f"option in {where},", name, known)


def grid(axes: Axes, *, proposing: bool = False) -> list[dict[str, Any]]:
    """Combinations of all values.

    Args:
        axes: the values or range of each option.
        proposing: whether they are for a study: a range is then taken at its ends, and no axis may change the loss.

    Raises:
        InputError: an axis is a range or changes the loss, or there are too many combinations.

    >>> grid(axes_of({"latent_dim": [2, 8], "prior": ["Normal", "Laplace"]}, {}))[1]
    {'latent_dim': 2, 'prior': 'Laplace'}
    """
    values: dict[str, Sequence[Any]] = {}
    for name, axis in axes.items():
        if proposing and name.partition(".")[0] == "objective":
            raise InputError(
                f"over: {name} changes what the loss is, so no study can minimise it: take a grid, and compare the "
                "runs by pyro-vae compare."
            )
        if not proposing and not isinstance(axis, CategoricalDistribution):
            raise InputError(
                f"over: {name} is a range, which has no grid: give a list of values, or draw from it by samples=20 "
                "(--samples 20)."
            )
        values[name] = axis.choices if isinstance(axis, CategoricalDistribution) else (axis.low, axis.high)
    count = math.prod(map(len, values.values()))
    if count > MAX_POINTS:
        raise InputError(f"over: this grid has {count} points; draw some of them by samples=50 (--samples 50).")
    return [decode(dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*values.values())]


def decode(params: Mapping[str, Any]) -> dict[str, Any]:
    """Options from the parameters of a trial: values from JSON, and real numbers to four digits."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return json.loads(value)
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return {name: plain(value) for name, value in params.items()}


def check_usable(points: Iterable[Point], axes: Axes) -> None:
    """Check that every value can be used by some point: one that none can use is a mistake in the sweep.

    Raises:
        InputError: a mistake; the message names the point.
    """

    def value(point: Point, name: str) -> str:
        choice = isinstance(axes[name], CategoricalDistribution)
        return json.dumps([name, point.chosen[name]]) if choice else name

    points = list(points)
    usable = {value(point, name) for point in points if not point.error for name in point.chosen}
    for point in points:
        if point.error and value(point, point.culprit) not in usable:
            raise InputError(f"the point {point.name}: {point.error}")


def point_of(chosen: Mapping[str, Any], base: Mapping[str, Any]) -> Point:
    """Point of some options; its error says why they cannot be used."""
    plain, name = dict(base), ""
    try:
        for name in sorted(chosen, key=lambda name: name.count(".")):  # prior before prior.scale
            plain = options.assign(run_experiment, plain, name, chosen[name])
            role = name.partition(".")[0]
            options.typed(run_experiment, {role: plain[role]})
    except InputError as error:
        return Point(chosen, plain, str(error), name)
    return Point(chosen, plain)
