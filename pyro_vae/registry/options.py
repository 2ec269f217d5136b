"""Options of a function by name, as plain values: what a command line, a file and a sweep have in common.

prior: Laplace                 the option itself
prior.scale: 2                 one field of the prior so far
likelihood.family.scale: 2     one of the family that the likelihood is made of
"""

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pyro_vae.core import serialization
from pyro_vae.core.config import Config, as_meant, coerce
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.registry import tables
from pyro_vae.registry.migrations import migrate_spec

RECORDED = (
    *("format", "versions", "event_shape", "programs", "rows", "fingerprint", "trained_with", "feature_names"),
    *("caveat", "stopped"),
)
"""Keys of spec.yaml that record facts; all others are options of `pyro-vae fit`."""

Verb = Callable[..., Any]


def assign(verb: Verb, plain: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Options with one of them, or one field of it, replaced.

    Args:
        verb: the function, whose default has the fields of an option that is not there yet.
        plain: options by name.
        name: an option, or a field of it behind a dot.
        value: the plain value.

    Raises:
        InputError: there is no such field.
    """
    role, *path = name.split(".")
    if path:
        default = serialization.to_dict(inspect.signature(verb).parameters[role].default)
        before = plain.get(role)
        value = tables.override(role, default if before is None else before, path, value)
    return {**plain, role: value}


def is_role(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes a declared thing: its name is a role, and its type that of one."""
    members = (parameter.annotation, *typing.get_args(parameter.annotation))
    return parameter.name in tables.ROLES and any(
        isinstance(each, type) and issubclass(each, Config) for each in members
    )


def typed(verb: Verb, plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Arguments of a verb from plain values, as a file holds them.

    Args:
        verb: the function the arguments are for.
        plain: options by name.
        prefix: what stands before a name in messages: "--" on the command line.

    Raises:
        InputError: an option the verb does not have, or a value of the wrong type.
    """
    parameters = inspect.signature(verb).parameters
    check_names(plain, parameters)
    made: dict[str, Any] = {}
    for name, value in plain.items():
        hint = parameters[name].annotation
        declared = is_role(parameters[name]) and value is not None
        made[name] = tables.from_dict(name, value) if declared else coerce(prefix + name, hint, as_meant(hint, value))
    return made


def read_config(path: Path, known: Iterable[str]) -> dict[str, Any]:
    """Options that a file holds; facts that a run folder records beside them are left out.

    Args:
        path: a YAML file, or a run folder.
        known: the options of the verb.

    Raises:
        InputError: no such file, no plain YAML, or an option that does not exist.
    """
    file = path / "spec.yaml" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read ({error}).") from error
    plain = migrate_spec(serialization.parse(text, str(file)))
    config = {name: value for name, value in plain.items() if name not in RECORDED}
    check_names(config, known, f" in {file},")
    return config


def check_names(names: Iterable[str], known: Iterable[str], where: str = "") -> None:
    """Check that options exist.

    Args:
        names: the options.
        known: the parameters of the verb; those with an underscore are not options.
        where: the place of the options, for the message.

    Raises:
        InputError: one does not exist; the message has the nearest.
    """
    options = [name for name in known if not name.startswith("_")]
    for name in names:
        if name not in options:
            raise unknown_name_error(f"option{where}", name, options)
