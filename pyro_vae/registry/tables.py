"""Declared things <-> plain values <-> YAML, through the tables.

One word means one thing everywhere: the YAML `prior: Laplace`, the option `--prior Laplace` and the Python
`pv.Laplace()` are equal. A name is looked up in a table and never imported, so no file can run code.

    prior: Laplace                                    pv.Laplace()
    prior: {Normal: {loc: 0, scale: 1}}               pv.Normal(0, 1)
    prior: {Mixture: {family: {Normal: {scale: 1}}}}  pv.Mixture(pv.Normal(scale=1))
    data: {name: digits, levels: 17}                  pv.data.DataOptions("digits", levels=17)
    data: digits                                      pv.data.DataOptions("digits")
"""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

from pyro_vae.core.config import Config, as_meant
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.core.serialization import to_dict
from pyro_vae.criticism.methods import METHODS, Method
from pyro_vae.data import DataOptions
from pyro_vae.families import FAMILIES, Family
from pyro_vae.networks import NETWORKS, Network
from pyro_vae.objectives import OBJECTIVES, Objective
from pyro_vae.schedules import SCHEDULES, Schedule
from pyro_vae.training import OPTIMIZERS, STOPPINGS, Optimizer, Stopping
from pyro_vae.training.checkpoints import Checkpoints
from pyro_vae.training.distributed import Runtime
from pyro_vae.training.monitor import Monitor

TABLES: dict[type[Config], Mapping[str, type[Config]]] = {
    Family: FAMILIES,
    Network: NETWORKS,
    Objective: OBJECTIVES,
    Optimizer: OPTIMIZERS,
    Schedule: SCHEDULES,
    Method: METHODS,
    Stopping: STOPPINGS,
}
"""Table of each kind of declaration, by the type of the kind."""

ROLES: dict[str, type[Config]] = {
    "prior": Family,
    "likelihood": Family,
    "guide": Family,
    "encoder": Network,
    "decoder": Network,
    "objective": Objective,
    "optimizer": Optimizer,
    "method": Method,
    "data": DataOptions,
    "checkpoints": Checkpoints,
    "monitor": Monitor,
    "runtime": Runtime,
}
"""Kind of each role that takes a declaration; a `Record` is the only class of its kind, and is given without a name."""


def from_dict(role: str, plain: Any) -> Any:
    """Declared thing of plain values.

    Args:
        role: what it is for, as in `ROLES`, which says the table its name is in.
        plain: a name, or a mapping of one name to its fields; of a `Record` the fields, or the first one alone.

    Raises:
        InputError: an unknown name or field, a field of the wrong type, or a part of the user's own.

    >>> from_dict("prior", {"Normal": {"loc": 0, "scale": 1}})
    Normal(loc=0.0, scale=1.0)
    >>> from_dict("likelihood", {"Truncated": {"family": "Laplace", "high": 1}})
    Truncated(family=Laplace(loc=None, scale=None), low=0.0, high=1.0)
    """
    return _declared(role, ROLES[role], plain)


def _declared(where: str, kind: type[Config], plain: Any) -> Any:
    """Declaration of plain values, also inside another one; `where` is its path, as in "likelihood.family"."""
    if isinstance(plain, Config):
        return plain
    declared, fields = _parts(where, kind, plain)
    for field in fields:
        _check_field(where, declared, field)
    inner = _inner(declared)
    parts = {
        field: _declared(f"{where}.{field}", inner[field], value)
        if field in inner and not isinstance(value, int | float)  # a schedule stands where a number may
        else value
        for field, value in fields.items()
    }
    return declared(**parts)


def override(role: str, plain: Any, path: list[str], value: Any) -> Any:
    """Plain declaration with one field replaced, as by `--prior.scale 2`.

    Args:
        role: what it is for.
        plain: the declaration so far; None where there is none.
        path: the names after the role, as in ["scale"], or ["family", "scale"] for a field of a declaration inside.
        value: the new value.

    Raises:
        InputError: there is no declaration, or none that has such a field.

    >>> override("prior", "Normal", ["scale"], 2)
    {'Normal': {'scale': 2}}
    >>> override("likelihood", "Truncated", ["family", "scale"], 2)
    {'Truncated': {'family': {'Normal': {'scale': 2}}}}
    """
    return _merged(role, ROLES[role], plain, path, value)


def _merged(where: str, kind: type[Config], plain: Any, path: list[str], value: Any) -> Any:
    if kind in TABLES and (plain is None or isinstance(plain, int | float)):
        raise _nothing_to_set(where, kind, plain, path[0], value)
    declared, fields = _parts(where, kind, plain)
    head, *rest = path
    if rest:
        _check_field(where, declared, head)
        inner = _inner(declared)
        if head not in inner:
            raise InputError(
                f"{where}.{head} of {declared.__name__} is one value and has no {rest[0]!r} to set: give "
                f"--{where}.{head} itself."
            )
        before = fields[head] if head in fields else to_dict(declared.__dataclass_fields__[head].default)
        value = _merged(f"{where}.{head}", inner[head], before, rest, value)
    fields[head] = value
    return {declared.__name__: fields} if kind in TABLES else fields


def _nothing_to_set(where: str, kind: type[Config], plain: Any, field: str, value: Any) -> InputError:
    """Error of a field that is set where there is no declaration, or a number."""
    having = [name for name, one in TABLES[kind].items() if field in one.__dataclass_fields__]
    name = next(iter(having or TABLES[kind]))
    state = "has no default, so no" if plain is None else f"is the number {plain} and has no"
    return InputError(
        f"--{where} {state} {field!r} to set: name it first, as in --{where} {name} "
        f"--{where}.{field} {json.dumps(value)!r}."
    )


def _parts(where: str, kind: type[Config], plain: Any) -> tuple[type[Config], dict[str, Any]]:
    """Class of a plain declaration, named in it unless it is a record, and its fields."""
    if kind not in TABLES:
        hints = typing.get_type_hints(kind)
        first = dataclasses.fields(kind)[0].name
        given = plain if isinstance(plain, Mapping) else {} if plain is None else {first: plain}
        return kind, {name: as_meant(hints.get(name), value) for name, value in given.items()}
    name, fields = plain, None
    if isinstance(plain, Mapping) and len(plain) == 1:
        ((name, fields),) = plain.items()
    if name == "own":
        raise InputError(
            f"{where} is a part of your own ({fields}), which a file cannot hold: build the model as before and load "
            "its weights with pv.load(run, vae=model)."
        )
    if not isinstance(name, str) or not (fields is None or isinstance(fields, Mapping)):
        raise InputError(
            f"{where} = {plain!r} has to be a name, or one name with its fields: "
            f"{where.rsplit('.')[-1]}: {next(iter(TABLES[kind]))}."
        )
    if name not in TABLES[kind]:
        said = "number or schedule" if kind is Schedule else kind.__name__.lower()
        raise unknown_name_error(f"{said} for {where},", name, TABLES[kind])
    return TABLES[kind][name], dict(fields or {})


def _check_field(where: str, declared: type[Config], field: str) -> None:
    known = [known.name for known in dataclasses.fields(declared)]
    if field not in known:
        inside = f" in {where}" if "." in where else ""
        raise unknown_name_error(f"field of {declared.__name__}{inside}", field, known)


def _inner(declared: type[Config]) -> dict[str, type[Config]]:
    """Kinds of the fields that hold a declaration, by name."""
    hints = typing.get_type_hints(declared)
    members = {
        field.name: (hints[field.name], *typing.get_args(hints[field.name])) for field in dataclasses.fields(declared)
    }
    return {name: member for name, several in members.items() for member in several if member in TABLES}
