"""The command line's options, read by the same tables as a file.

jsonargparse makes the parser from typed functions. What it does not do is done here, before it sees the
arguments: `--prior Laplace` is `pv.Laplace()` and nothing of what `--prior` was before; `--prior.scale 2` sets
one field of the prior so far, whether from a file, the option before it or the default, and
`--likelihood.family.scale 2` one of the family that the likelihood is made of; a `--config` file is read as plain
names and values, so none can make Python import what it names.
"""

import dataclasses
import functools
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from jsonargparse.typing import register_type

from pyro_vae.core import serialization
from pyro_vae.core.config import Config, coerce, describe_type
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.criticism.methods import Method
from pyro_vae.families import Family
from pyro_vae.networks import Network
from pyro_vae.objectives import Objective
from pyro_vae.registry import tables
from pyro_vae.registry.migrations import migrate_spec
from pyro_vae.training import Optimizer, Stopping

RECORDED = ("format", "versions", "event_shape", "rows", "fingerprint", "caveat", "stopped")
"""Keys of spec.yaml that record facts; all others are options of `pyro-vae fit`."""

Verb = Callable[..., Any]

TYPES: Mapping[type, str] = {
    Family: "prior",
    Network: "encoder",
    Objective: "objective",
    Optimizer: "optimizer",
    Method: "method",
    Stopping: "stopping",
}
"""The types of options that are declared things, and one role of each."""


class Parser(jsonargparse.ArgumentParser):
    """A parser whose errors are one sentence, raised as `InputError`."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong, without the usage."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        words = " ".join(message.split()).removeprefix("Parser key ").removeprefix("argument ")
        raise InputError(f"{words.rstrip('.')}. See {self.prog.replace(' [options]', '')} --help.")


def run(verbs: Mapping[str, Verb], arguments: Sequence[str]) -> None:
    """Call the verb that the arguments name.

    Args:
        verbs: typed functions by name.
        arguments: what was typed after the program's name.

    Raises:
        InputError: an argument cannot be used.
    """
    for declared, role in TYPES.items():
        register_type(
            declared,
            serializer=serialization.to_dict,
            deserializer=_reader(role),
            deserializer_exceptions=(InputError,),
            fail_already_registered=False,
        )
    arguments = list(arguments) or ["--help"]
    if not arguments[0].startswith("-"):
        if arguments[0] not in verbs:
            raise unknown_name_error("command", arguments[0], verbs)
        arguments = [arguments[0], *prepare(verbs[arguments[0]], arguments[1:])]
    plain: dict[str, Any] = {name: _plain_defaults(verb) for name, verb in verbs.items()}
    jsonargparse.auto_cli(plain, args=arguments, parser_class=Parser, prog="pyro-vae", as_positional=True)


def prepare(verb: Verb, arguments: Sequence[str]) -> list[str]:
    """Resolve files and declared things, so that each is given once, whole.

    Args:
        verb: the function the arguments are for.
        arguments: what was typed after the verb.

    Returns:
        Arguments for jsonargparse.

    Raises:
        InputError: an option the verb does not have, a file that cannot be read, a wrong declaration.
    """
    parameters = {name: p for name, p in inspect.signature(verb).parameters.items() if not name.startswith("_")}
    roles = [name for name in parameters if name in tables.ROLES]
    plain: dict[str, Any] = {}
    config: dict[str, Any] = {}
    rest: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            rest.append(word)
            continue
        option, _, given = word[2:].partition("=")
        role, *path = option.split(".")
        if role == "config" or role in roles:
            if "=" not in word and not words:
                raise InputError(f"--{option} needs a value.")
            text = given if "=" in word else words.pop(0)
            if role == "config":
                config |= read_config(Path(text), parameters)
                plain |= {name: config[name] for name in roles if name in config}
            elif path:
                before = plain[role] if role in plain else default_of(parameters[role])
                plain[role] = tables.override(role, before, path, serialization.value(text))
            else:
                plain[role] = serialization.value(text)
        else:
            if role in parameters and parameters[role].annotation is bool and "=" not in word:
                flag = words.pop(0) if words and words[0] in ("true", "false") else "true"
                word = f"{word}={flag}"
            elif role in parameters:
                given = given if "=" in word else (words[0] if words else "")
                _check(option, parameters[role].annotation, given)
                if "=" not in word:
                    word, given = f"{word}={words.pop(0)}" if words else word, ""
                if isinstance(found := serialization.value(word.partition("=")[2]), dict):  # in JSON all readers agree
                    word = f"--{option}={json.dumps(found)}"
            if option not in ("help", "print_config") and role not in parameters:
                raise unknown_name_error("option", f"--{option}", [f"--{name}" for name in parameters])
            rest.append(word)
    for role, value in plain.items():
        if value is not None:
            tables.from_dict(role, value)
    config |= plain
    lists = [name for name, parameter in parameters.items() if parameter.annotation == list[str]]
    if lists and (places := [word for word in rest if not word.startswith("--")]):  # one argument to jsonargparse
        rest = [json.dumps(places), *(word for word in rest if word.startswith("--"))]
    return (["--config", json.dumps(config)] if config else []) + rest


def passed_on(words: Sequence[str], verb: Verb, inner: Verb) -> list[str]:
    """Gather the options of another verb that were given among those of this one.

    Args:
        words: the verb's name and its arguments.
        verb: the verb, which has an option `base` for them.
        inner: the other one.

    Returns:
        The words with all of those as one `--base`.

    Raises:
        InputError: an argument that none of the two has, or a value that cannot be used.
    """
    mine, theirs = inspect.signature(verb).parameters, inspect.signature(inner).parameters
    own, other = [words[0]], list[str]()
    target: list[str] = own
    for word in words[1:]:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].partition(".")[0]
            if name not in mine and name not in theirs and name not in ("config", "help"):
                known = [f"--{one}" for one in dict.fromkeys([*mine, *theirs]) if not one.startswith("_")]
                raise unknown_name_error("option", f"--{name}", known)
            target = own if name in mine or name == "help" else other
        target.append(word)
    if not other:
        return own
    made: dict[str, Any] = {}
    prepared = prepare(inner, other)
    while prepared:
        name, _, text = prepared.pop(0).removeprefix("--").partition("=")
        text = text or prepared.pop(0)
        if name == "config":
            made |= json.loads(text)
        else:
            made[name] = _as_meant(theirs[name].annotation, serialization.value(text), text)
    given = next((i for i, word in enumerate(own) if word.partition("=")[0] == "--base"), None)
    if given is not None:
        raise InputError("--base holds options of fit, and so do the others that were given: give all in one way.")
    return [*own, "--base", json.dumps(made)]


def typed(verb: Verb, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Make the arguments of a verb from plain values, as a file holds them.

    Args:
        verb: the function the arguments are for.
        plain: options by name.

    Raises:
        InputError: an option the verb does not have, or a value of the wrong type.
    """
    parameters = inspect.signature(verb).parameters
    made: dict[str, Any] = {}
    for name, value in plain.items():
        if name not in parameters or name.startswith("_"):
            raise unknown_name_error("option", name, [known for known in parameters if not known.startswith("_")])
        declared = name in tables.ROLES and value is not None
        hint = parameters[name].annotation
        made[name] = tables.from_dict(name, value) if declared else coerce(name, hint, _as_meant(hint, value))
    return made


def read_config(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Read a file of options; facts that a run folder records beside them are left out.

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
    for name in config:
        if name not in known:
            raise unknown_name_error(f"option in {file},", name, known)
    return config


def _reader(role: str) -> Callable[[Any], Any]:
    return lambda value: tables.from_dict(role, value)


def _plain_defaults(verb: Verb) -> Verb:
    """The same verb with declared defaults as a file would write them, for help texts and --print_config."""

    @functools.wraps(verb)
    def called(**given: Any) -> Any:
        return verb(**given)

    signature = inspect.signature(verb)
    parameters = [
        p.replace(default=serialization.to_dict(p.default)) for p in signature.parameters.values() if _is_declared(p)
    ]
    plain = {parameter.name: parameter for parameter in parameters}
    listed = [plain.get(name, parameter) for name, parameter in signature.parameters.items()]
    shown: Any = called
    shown.__signature__ = signature.replace(parameters=listed)
    return called


def _check(option: str, hint: Any, text: str) -> None:
    """Refuse a value of the wrong type with the words that declared things use."""
    if not text:
        raise InputError(f"--{option} needs a value: {describe_type(hint)}.")
    coerce(f"--{option}", hint, _as_meant(hint, serialization.value(text), text))


def _as_meant(hint: Any, value: Any, text: str = "") -> Any:
    """A word that YAML takes for a number or for true, as the word that the option asks for."""
    word = text or (str(value).lower() if isinstance(value, bool) else str(value))
    if isinstance(value, int | float) and (hint in (str, str | None) or word in typing.get_args(hint)):
        return word
    return value


def _is_declared(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.default, Config)


def default_of(parameter: inspect.Parameter) -> Any:
    """The plain default of a role, to set fields of.

    Raises:
        InputError: it has none.
    """
    if parameter.default is None:
        named = next(iter(tables.TABLES[tables.ROLES[parameter.name]].values()))
        field = dataclasses.fields(named)[0]
        example = f"{named.__name__} --{parameter.name}.{field.name} '{json.dumps(field.default)}'"
        raise InputError(
            f"--{parameter.name} has no default whose fields could be set: name one first, as in "
            f"--{parameter.name} {example}."
        )
    return serialization.to_dict(parameter.default)
