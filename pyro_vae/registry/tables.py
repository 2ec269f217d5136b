"""Declared things <-> plain values <-> YAML, through the tables.

One word means one thing everywhere: the YAML `prior: Laplace`, the option `--prior Laplace` and the Python
`pv.Laplace()` are equal. A name is looked up in a table and never imported, so no file can run code.

    prior: Laplace                                    pv.Laplace()
    prior: {Normal: {loc: 0, scale: 1}}               pv.Normal(0, 1)
    prior: {Mixture: {family: {Normal: {scale: 1}}}}  pv.Mixture(pv.Normal(scale=1))
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.core.serialization import to_dict
from pyro_vae.criticism.methods import METHODS, Method
from pyro_vae.families import FAMILIES, Family
from pyro_vae.networks import NETWORKS, Network
from pyro_vae.objectives import OBJECTIVES, Objective
from pyro_vae.schedules import SCHEDULES, Schedule
from pyro_vae.training import OPTIMIZERS, STOPPINGS, Optimizer, Stopping

TABLES: dict[str, Mapping[str, type[Config]]] = {
    "family": FAMILIES,
    "network": NETWORKS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "method": METHODS,
    "stopping": STOPPINGS,
}
"""Every kind of declared thing, and its table."""

BASES: dict[str, type[Config]] = {
    "family": Family,
    "network": Network,
    "objective": Objective,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "method": Method,
    "stopping": Stopping,
}
"""The type of every kind, which says where a declaration holds another one."""

ROLES = {
    "prior": "family",
    "likelihood": "family",
    "guide": "family",
    "encoder": "network",
    "decoder": "network",
    "objective": "objective",
    "optimizer": "optimizer",
    "method": "method",
    "stopping": "stopping",
}
"""The kind of each role that takes a declared thing."""


def from_dict(role: str, plain: Any) -> Any:
    """Make the declared thing that plain values name.

    Args:
        role: what it is for, as in `ROLES`, which says the table its name is in.
        plain: a name, or a mapping of one name to its fields.

    Raises:
        InputError: an unknown name or field, a field of the wrong type, or a part of the user's own.

    >>> from_dict("prior", {"Normal": {"loc": 0, "scale": 1}})
    Normal(loc=0.0, scale=1.0)
    >>> from_dict("likelihood", {"Truncated": {"family": "Laplace", "high": 1}})
    Truncated(family=Laplace(loc=None, scale=None), low=0.0, high=1.0)
    """
    return _declared(role, ROLES[role], plain)


def _declared(where: str, kind: str, plain: Any) -> Any:
    """The same, of a declaration inside another one too; `where` is its path, as in "likelihood.family"."""
    if isinstance(plain, Config):
        return plain
    name, fields = _split(where, plain)
    if name == "own":
        raise InputError(
            f"{where} is a part of your own ({fields}), which a file cannot hold: build the model as before and load "
            "its weights with pv.load(run, vae=model)."
        )
    declared = _named(where, kind, name)
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
    """Set one field of a plain declaration, as `--prior.scale 2` does.

    Args:
        role: what it is for.
        plain: the declaration so far.
        path: the names after the role, as in ["scale"], or ["family", "scale"] for a field of a declaration inside.
        value: the new value.

    Returns:
        A new plain declaration.

    >>> override("prior", "Normal", ["scale"], 2)
    {'Normal': {'scale': 2}}
    >>> override("likelihood", "Truncated", ["family", "scale"], 2)
    {'Truncated': {'family': {'Normal': {'scale': 2}}}}
    """
    return _merged(role, ROLES[role], plain, path, value)


def _merged(where: str, kind: str, plain: Any, path: list[str], value: Any) -> Any:
    name, fields = _split(where, plain)
    head, *rest = path
    if rest:
        declared = _named(where, kind, name)
        _check_field(where, declared, head)
        inner = _inner(declared)
        if head not in inner:
            raise InputError(
                f"{where}.{head} of {name} is one value and has no {rest[0]!r} to set: give --{where}.{head} itself."
            )
        before = fields[head] if head in fields else to_dict(_default(declared, head))
        if isinstance(before, int | float):
            first = next(iter(TABLES[inner[head]]))
            raise InputError(
                f"{where}.{head} is the number {before} and has no {rest[0]!r} to set: name what it shall be first, as "
                f"in --{where}.{head} {first} --{where}.{head}.{rest[0]} {value}."
            )
        value = _merged(f"{where}.{head}", inner[head], before, rest, value)
    return {name: {**fields, head: value}}


def _named(where: str, kind: str, name: str) -> type[Config]:
    if name not in TABLES[kind]:
        said = "number or schedule" if kind == "schedule" else kind
        raise unknown_name_error(f"{said} for {where},", name, TABLES[kind])
    return TABLES[kind][name]


def _check_field(where: str, declared: type[Config], field: str) -> None:
    known = [known.name for known in dataclasses.fields(declared)]
    if field not in known:
        inside = f" in {where}" if "." in where else ""
        raise unknown_name_error(f"field of {declared.__name__}{inside}", field, known)


def _inner(declared: type[Config]) -> dict[str, str]:
    """The fields that hold a declaration themselves, and the kind of each."""
    hints = typing.get_type_hints(declared)
    kinds = {base: kind for kind, base in BASES.items()}
    members = {
        field.name: (hints[field.name], *typing.get_args(hints[field.name])) for field in dataclasses.fields(declared)
    }
    return {name: kinds[member] for name, several in members.items() for member in several if member in kinds}


def _default(declared: type[Config], name: str) -> Any:
    return next(field.default for field in dataclasses.fields(declared) if field.name == name)


def _split(where: str, plain: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(plain, str):
        return plain, {}
    if isinstance(plain, Mapping) and len(plain) == 1:
        ((name, fields),) = plain.items()
        if name == "own":
            return name, fields
        if fields is None or isinstance(fields, Mapping):
            return str(name), dict(fields or {})
    raise InputError(
        f"{where} = {plain!r} has to be a name, or one name with its fields: "
        f"{where.rsplit('.')[-1]}: {{Normal: {{loc: 0}}}}."
    )
