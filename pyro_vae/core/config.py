"""`Config`: a frozen dataclass that checks its fields, the base of families, networks, objectives and optimizers.

It prints as it is written, compares and hashes by value, and is the same in Python, in YAML and on the command line
(`pyro_vae.registry.tables`).
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, Union

from pyro_vae.core.calls import ExplainedCalls
from pyro_vae.core.errors import InputError, is_integer, is_real, unknown_name_error


def field(default: Any, *, low: float = -math.inf, high: float = math.inf, known: Iterable[str] | None = None) -> Any:
    """Dataclass field whose numbers have to lie in `[low, high]`, or whose name has to be `known`."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "known": known})


class Config(metaclass=ExplainedCalls):
    """Frozen dataclass whose fields are checked against their types."""

    __dataclass_fields__: typing.ClassVar[dict[str, dataclasses.Field[Any]]]

    def __post_init__(self) -> None:
        """Check and canonicalise every field.

        Raises:
            InputError: a field has the wrong type or lies outside of its range.
        """
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            where = f"{type(self).__name__}.{field.name}"
            value = self.check_field(field.name, where, hints[field.name], getattr(self, field.name))
            _check_option(where, value, **field.metadata)
            object.__setattr__(self, field.name, value)

    def check_field(self, name: str, where: str, hint: Any, value: Any) -> Any:
        """Canonical form of a field's value, by its type; families override it for one more type."""
        return coerce(where, hint, value)


class Record(Config):
    """`Config` that is the only one of its kind: it is written by its fields alone, or by the first one alone."""


def _check_option(
    where: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    known: Iterable[str] | None = None,
    **_others: Any,
) -> None:
    numbers = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if is_real(number) and not low <= number <= high:
            bounds = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
            raise InputError(f"{where} = {value} has to be {bounds}.")
    if known is not None and value not in known:
        raise unknown_name_error(where, value, known)


def coerce(where: str, hint: Any, value: Any) -> Any:
    """Value as the type `hint`: lists become tuples, and integers become floats where a float is expected.

    Args:
        where: the name of the field, for the message.
        hint: a class, a `Literal`, a union, or a tuple or mapping of these.
        value: what the user gave.

    Raises:
        InputError: the value is not of that type.

    >>> coerce("MLP.hidden", tuple[int, ...], [400, 200])
    (400, 200)
    >>> coerce("MLP.hidden", tuple[int, ...], "big")
    Traceback (most recent call last):
    pyro_vae.core.errors.InputError: MLP.hidden = 'big' has to be a list of int.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number or truth of NumPy or torch
        value = value.item()
    if origin is Literal:
        if (type(value), value) not in [(type(known), known) for known in arguments]:  # for True == 1
            raise unknown_name_error(f"value of {where},", value, map(str, arguments))
        return value
    if origin in (Union, types.UnionType):
        for member in arguments:
            try:
                return coerce(where, member, value)
            except InputError:
                continue
    elif origin is tuple:
        if isinstance(value, list | tuple):
            members = arguments if arguments[-1] is not ... else (arguments[0],) * len(value)
            if len(value) == len(members):
                return tuple(coerce(where, *pair) for pair in zip(members, value, strict=True))
    elif origin in (dict, FrozenMapping):
        if isinstance(value, typing.Mapping):
            return origin((str(name), coerce(f"{where}[{name!r}]", arguments[-1], v)) for name, v in value.items())
    elif hint is float:
        if is_real(value) and math.isfinite(value):
            return float(value)
    elif hint is int:
        if is_integer(value):
            return int(value)
    elif isinstance(value, hint):
        return value
    fix = ""
    if origin in (dict, FrozenMapping) and isinstance(value, str):
        name, _, one = value.partition("=")
        fix = f", as in '{{{name.strip()}: [{one.strip(' []') or '1, 2'}]}}'"
    raise InputError(f"{where} = {value!r} has to be {describe_type(hint)}{fix}.")


def as_meant(hint: Any, value: Any, text: str = "") -> Any:
    """A word that YAML takes for a number or for true, as the word that the option asks for.

    Args:
        hint: the type of the option.
        value: the value that YAML makes of it.
        text: the word as it was written, where that is known.
    """
    word = text or (str(value).lower() if isinstance(value, bool) else str(value))
    members = typing.get_args(hint) if typing.get_origin(hint) in (Literal, typing.Union, types.UnionType) else (hint,)
    taken = isinstance(value, int | float) and type(value) not in members and (str in members or word in members)
    return word if taken else value


def describe_type(hint: Any) -> str:
    """Description of the values that a type admits."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(member) for member in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        if arguments[-1] is ...:
            return f"a list of {arguments[0].__name__}"
        return f"a list of {len(arguments)} numbers"
    if origin in (FrozenMapping, dict):
        inside = f" to {arguments[-1].__name__}" if arguments[-1] is not Any else ""
        return f"a mapping of names{inside}"
    names = {float: "a finite number", int: "an integer", bool: "True or False", type(None): "nothing"}
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")


T = typing.TypeVar("T")


class FrozenMapping(dict[str, T]):
    """Mapping inside a `Config`, immutable and hashed by value."""

    def __hash__(self) -> int:  # type: ignore[override]  # other dicts have none
        """Hash of the content, so that a `Config` that holds it is hashable."""
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Constructor and content for copy and pickle, which cannot fill an immutable mapping."""
        return type(self), (dict(self),)

    def _refuse(self, *given: Any, **named: Any) -> typing.NoReturn:
        """Raise an error, for the mapping is immutable."""
        raise TypeError("this mapping belongs to a frozen declaration: make a new one with dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse
