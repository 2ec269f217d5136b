"""Text of declarations in Python, in YAML and on the command line; of lists and p-values."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pyro_vae.core import serialization
from pyro_vae.core.config import Config


def signature(family: type[Config]) -> str:
    """Text of a family's fields, with the defaults of those that are not computed by the network.

    >>> from pyro_vae import Categorical
    >>> signature(Categorical)
    'Categorical(classes=2, logits)'
    """
    example, shown = family(), []
    for field in dataclasses.fields(family):
        value = getattr(example, field.name)
        shown.append(field.name if value is None else f"{field.name}={written(value)}")
    return f"{family.__name__}({', '.join(shown)})"


def written(value: Any) -> str:
    """Python text of a value, of a family with the fields that differ from their defaults.

    >>> from pyro_vae import Normal
    >>> written(Normal(0, 1)), written(Normal()), written("learned")
    ('Normal(loc=0, scale=1)', 'Normal()', '"learned"')
    """
    if isinstance(value, Config):
        fields = dataclasses.fields(value)
        pairs = [(field.name, getattr(value, field.name), field.default) for field in fields]
        inside = ", ".join(f"{name}={written(one)}" for name, one, default in pairs if one != default)
        return f"{type(value).__name__}({inside})"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' if len(value) == 1 else ''})"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def in_python(family: Config) -> str:
    """Python text of a family, to follow `import pyro_vae as pv`.

    >>> from pyro_vae import Mixture, Normal
    >>> in_python(Mixture(Normal(scale="learned"), components=3))
    'pv.Mixture(family=pv.Normal(scale="learned"), components=3)'
    """
    return re.sub(r"\b([A-Z]\w*)\(", r"pv.\1(", written(family))


def on_the_command_line(role: str, family: Config) -> str:
    """Command-line options of a declaration.

    >>> from pyro_vae import Normal
    >>> on_the_command_line("prior", Normal(0, 1))
    '--prior Normal --prior.loc 0.0 --prior.scale 1.0'
    """
    return " ".join(_options(role, serialization.to_dict(family)))


def _options(path: str, plain: Any) -> Iterator[str]:
    name, fields = (plain, {}) if isinstance(plain, str) else next(iter(plain.items()))
    yield f"--{path} {name}"
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _options(f"{path}.{key}", value)
        else:
            yield f'--{path}.{key} "{value}"' if isinstance(value, list) else f"--{path}.{key} {value}"


def in_yaml(plain: Any) -> str:
    """YAML text of plain values, on one line."""
    if isinstance(plain, dict):
        return "{" + ", ".join(f"{key}: {in_yaml(value)}" for key, value in plain.items()) + "}"
    if isinstance(plain, bool):
        return str(plain).lower()
    return f"[{', '.join(map(in_yaml, plain))}]" if isinstance(plain, list) else str(plain)


def abbreviate(items: Sequence[object], most: int) -> str:
    """Text of the first of some items, with the number of the others.

    >>> abbreviate([1, 2, 3], 2)
    '1, 2 and 1 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{', '.join(map(str, items[:most]))}{more}"


def shorten(text: str, width: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= width else f"{text[: width - 3]}..."


def format_p_value(p: float, least: float = 0.0) -> str:
    """P-value with its sign, rounded to two digits.

    Args:
        p: the p-value.
        least: the smallest that its test can have, as by a number of permutations; 0 where there is none.

    >>> format_p_value(0.0341), format_p_value(3e-9), format_p_value(0.004, least=2 / 500)
    ('p = 0.034', 'p < 0.0001', 'p <= 0.004')
    """
    if least and p <= least:
        return f"p <= {_round_up(least):g}"
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _round_up(value: float) -> float:
    """Number rounded up to two digits, so that "p <= ..." is true."""
    power = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / power * (1 - 1e-12)) * power:.2g}")
