"""Configs <-> plain values <-> YAML; `pyro_vae.registry.tables` reads names back.

prior: Laplace                                    pv.Laplace()
prior: {Normal: {loc: 0, scale: 1}}               pv.Normal(0, 1)
prior: {Mixture: {family: {Normal: {scale: 1}}}}  pv.Mixture(pv.Normal(scale=1))
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import yaml
from torch import nn

from pyro_vae.core.config import Config, Record
from pyro_vae.core.errors import InputError, is_integer, is_real


def to_dict(declared: Any) -> Any:
    """Plain values of a `Config`: its name, and the fields that differ from their defaults; of a `Record`, the fields.

    >>> from pyro_vae.families import Laplace, Normal
    >>> to_dict(Laplace()), to_dict(Normal(0, 1))
    ('Laplace', {'Normal': {'loc': 0.0, 'scale': 1.0}})
    """
    if isinstance(declared, Config):
        name = type(declared).__name__
        changed = {
            field.name: to_dict(getattr(declared, field.name))
            for field in dataclasses.fields(declared)
            if getattr(declared, field.name) != field.default
        }
        if isinstance(declared, Record):
            first = dataclasses.fields(declared)[0].name
            return changed[first] if changed.keys() == {first} and isinstance(changed[first], str) else changed
        return {name: changed} if changed else name
    if isinstance(declared, nn.Module):
        return {"own": type(declared).__name__}
    if isinstance(declared, tuple | list):
        return [to_dict(item) for item in declared]
    if isinstance(declared, Mapping):
        return {name: to_dict(value) for name, value in declared.items()}
    if declared is None or isinstance(declared, str | int | float | bool):
        return declared
    if is_integer(declared) or is_real(declared):  # NumPy's
        return int(declared) if is_integer(declared) else float(declared)
    return {"own": getattr(declared, "__name__", type(declared).__name__)}


def dump(plain: Mapping[str, Any]) -> str:
    """YAML text of plain values, in their order."""
    return yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True, width=100)


def parse(text: str, where: str) -> dict[str, Any]:
    """Plain values by name of a YAML text.

    Raises:
        InputError: the text is not YAML, is not a mapping, or has a tag that would make an object.
    """
    try:
        plain = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not plain YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
        raise InputError(f"{where} has to hold names and values, such as 'prior: Laplace'.")
    return plain


def value(text: str) -> Any:
    """Value of an option as in a YAML file: a number, a list, true, null, or a word.

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
