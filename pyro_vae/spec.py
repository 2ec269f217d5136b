"""Declared things <-> plain values <-> YAML, through the tables.

One word means one thing everywhere: the YAML `prior: Laplace`, the option `--prior Laplace` and the Python
`pv.Laplace()` are equal. A name is looked up in a table and never imported, so no file can run code.

    prior: Laplace                                    pv.Laplace()
    prior: {Normal: {loc: 0, scale: 1}}               pv.Normal(0, 1)
    prior: {Mixture: {family: {Normal: {scale: 1}}}}  pv.Mixture(pv.Normal(scale=1))
"""

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

import yaml
from torch import nn

from pyro_vae.criticism.methods import METHODS, Method
from pyro_vae.declared import Declared
from pyro_vae.errors import InputError, unknown
from pyro_vae.families import FAMILIES, Family
from pyro_vae.networks import NETWORKS, Network
from pyro_vae.objectives import OBJECTIVES, Objective
from pyro_vae.schedules import SCHEDULES, Schedule
from pyro_vae.training import OPTIMIZERS, STOPPINGS, Optimizer, Stopping

TABLES: dict[str, Mapping[str, type[Declared]]] = {
    "family": FAMILIES,
    "network": NETWORKS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "method": METHODS,
    "stopping": STOPPINGS,
}
"""Every kind of declared thing, and its table."""

BASES: dict[str, type[Declared]] = {
    "family": Family,
    "network": Network,
    "objective": Objective,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "method": Method,
    "stopping": Stopping,
}
"""The type of every kind, which says where a declaration holds another one."""

KINDS = {
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


def to_plain(declared: Any) -> Any:
    """Write a declared thing as plain values: its name, and the fields that differ from their defaults.

    >>> from pyro_vae.families import Laplace, Normal
    >>> to_plain(Laplace()), to_plain(Normal(0, 1))
    ('Laplace', {'Normal': {'loc': 0.0, 'scale': 1.0}})
    """
    if isinstance(declared, Declared):
        name = type(declared).__name__
        changed = {
            field.name: to_plain(getattr(declared, field.name))
            for field in dataclasses.fields(declared)
            if getattr(declared, field.name) != field.default
        }
        return {name: changed} if changed else name
    if isinstance(declared, nn.Module):
        return {"own": type(declared).__name__}
    if isinstance(declared, tuple | list):
        return [to_plain(item) for item in declared]
    if isinstance(declared, Mapping):
        return {name: to_plain(value) for name, value in declared.items()}
    if declared is None or isinstance(declared, str | int | float | bool):
        return declared
    return {"own": getattr(declared, "__name__", type(declared).__name__)}


def from_plain(role: str, plain: Any) -> Any:
    """Make the declared thing that plain values name.

    Args:
        role: what it is for, as in `KINDS`, which says the table its name is in.
        plain: a name, or a mapping of one name to its fields.

    Raises:
        InputError: an unknown name or field, a field of the wrong type, or a part of the user's own.

    >>> from_plain("prior", {"Normal": {"loc": 0, "scale": 1}})
    Normal(loc=0.0, scale=1.0)
    >>> from_plain("likelihood", {"Truncated": {"family": "Laplace", "high": 1}})
    Truncated(family=Laplace(loc=None, scale=None), low=0.0, high=1.0)
    """
    return _declared(role, KINDS[role], plain)


def _declared(where: str, kind: str, plain: Any) -> Any:
    """The same, of a declaration inside another one too; `where` is its path, as in "likelihood.family"."""
    if isinstance(plain, Declared):
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


def merge(role: str, plain: Any, path: list[str], value: Any) -> Any:
    """Set one field of a plain declaration, as `--prior.scale 2` does.

    Args:
        role: what it is for.
        plain: the declaration so far.
        path: the names after the role, as in ["scale"], or ["family", "scale"] for a field of a declaration inside.
        value: the new value.

    Returns:
        A new plain declaration.

    >>> merge("prior", "Normal", ["scale"], 2)
    {'Normal': {'scale': 2}}
    >>> merge("likelihood", "Truncated", ["family", "scale"], 2)
    {'Truncated': {'family': {'Normal': {'scale': 2}}}}
    """
    return _merged(role, KINDS[role], plain, path, value)


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
        before = fields[head] if head in fields else to_plain(_default(declared, head))
        if isinstance(before, int | float):
            first = next(iter(TABLES[inner[head]]))
            raise InputError(
                f"{where}.{head} is the number {before} and has no {rest[0]!r} to set: name what it shall be first, as "
                f"in --{where}.{head} {first} --{where}.{head}.{rest[0]} {value}."
            )
        value = _merged(f"{where}.{head}", inner[head], before, rest, value)
    return {name: {**fields, head: value}}


def _named(where: str, kind: str, name: str) -> type[Declared]:
    if name not in TABLES[kind]:
        said = "number or schedule" if kind == "schedule" else kind
        raise unknown(f"{said} for {where},", name, TABLES[kind])
    return TABLES[kind][name]


def _check_field(where: str, declared: type[Declared], field: str) -> None:
    known = [known.name for known in dataclasses.fields(declared)]
    if field not in known:
        inside = f" in {where}" if "." in where else ""
        raise unknown(f"field of {declared.__name__}{inside}", field, known)


def _inner(declared: type[Declared]) -> dict[str, str]:
    """The fields that hold a declaration themselves, and the kind of each."""
    hints = typing.get_type_hints(declared)
    kinds = {base: kind for kind, base in BASES.items()}
    members = {
        field.name: (hints[field.name], *typing.get_args(hints[field.name])) for field in dataclasses.fields(declared)
    }
    return {name: kinds[member] for name, several in members.items() for member in several if member in kinds}


def _default(declared: type[Declared], name: str) -> Any:
    return next(field.default for field in dataclasses.fields(declared) if field.name == name)


def dump(plain: Mapping[str, Any]) -> str:
    """Write plain values as YAML, in their order."""
    return yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True, width=100)


def parse(text: str, where: str) -> dict[str, Any]:
    """Read YAML that holds names and plain values, and nothing else.

    Raises:
        InputError: no YAML, a tag that would make an object, or no mapping.
    """
    try:
        plain = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is no plain YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
        raise InputError(f"{where} has to hold names and values, such as 'prior: Laplace'.")
    return plain


def value(text: str) -> Any:
    """Read one value of an option as it would be read in a file: a number, a list, true, null, or a word.

    >>> value("1e-3"), value("[400, 200]"), value("learned")
    (0.001, [400, 200], 'learned')
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


class _Loader(yaml.SafeLoader):
    """Plain YAML in which 1e-3 is a number, as in YAML 1.2 and JSON."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


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
