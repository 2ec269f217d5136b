"""Parser of a verb's words: argparse splits them, the tables build what they declare.

A parameter of a verb that may be given by position is a word, one that is a keyword alone is an option. Options are
plain values, put into one mapping in the order of the command line: `--config FILE` merges a file, `--prior Laplace`
is `pv.Laplace()` and keeps nothing of what `--prior` was before, `--prior.scale 2` sets one field of the prior so far.
"""

import argparse
import dataclasses
import inspect
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pyro_vae.core import serialization
from pyro_vae.core.calls import find_meant, legal_value, meanings
from pyro_vae.core.config import Config, Record, as_meant, describe_type
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.core.formatting import in_yaml
from pyro_vae.core.signatures import describe_parameters
from pyro_vae.registry import options, tables
from pyro_vae.workflow.experiment import MODEL

LINES = {
    "early_stopping": "--monitor.stopping EarlyStopping",
    "hidden": "--encoder MLP --encoder.hidden [400]",
    "patience": "--monitor.stopping EarlyStopping --monitor.stopping.patience 10",
    "scheduler": "--optimizer.lr Cosine",
}
"""What is written in the place of a word that is no option, nor a field of one."""


class Parser(argparse.ArgumentParser):
    """Parser of one verb.

    Args:
        name: the verb's name.
        verb: the function.
    """

    def __init__(self, name: str, verb: options.Verb) -> None:
        parameters = inspect.signature(verb).parameters
        words = [one for one in parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
        usage = " ".join([name, *(f"[{one.name}]" if one.default is None else one.name.upper() for one in words)])
        super().__init__(
            prog=f"pyro-vae {name}",
            usage=f"pyro-vae {usage} [options]",
            description=(inspect.getdoc(verb) or "").partition("\n\nArgs:")[0],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._negative_number_matcher = re.compile(r"-\.?\d")  # as of Python 3.14, which takes -1e-3 for a value too
        self.verb, self.parameters, self.plain = verb, parameters, dict[str, Any]()
        self.hints: dict[str, Any] = {}
        self.described = describe_parameters(verb)
        for one in words:
            nargs = "+" if one.annotation == list[str] else "?" if one.default is None else None
            self.add_argument(one.name, nargs=nargs, help=self._help(one.name))
        self.keywords = [name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY and name[0] != "_"]
        self.add_argument("--config", action=_Assign, metavar="FILE", help="file of options, or run folder")
        self.add_argument("--print_config", action="store_true", help="print the options as a file, and exit")
        model = self.add_argument_group("model")
        for name in self.keywords:
            group: Any = model if name in ("latent_dim", *MODEL) else self
            self._add(group, name, parameters[name].annotation, self._help(name))
            if options.is_role(parameters[name]) and issubclass(tables.ROLES[name], Record):
                self._add_fields(name, tables.ROLES[name])

    def _add(self, group: Any, name: str, hint: Any, help: str) -> None:
        self.hints[name] = hint
        group.add_argument(f"--{name}", action=_Assign, metavar=_values(name, hint), help=help)

    def _add_fields(self, name: str, record: type[Config]) -> None:
        """Add the fields of a record; those of other declarations differ by the name that is given."""
        described, hints = describe_parameters(record), typing.get_type_hints(record)
        for field in dataclasses.fields(record):
            default = getattr(self.parameters[name].default, field.name, field.default)
            self._add(self, f"{name}.{field.name}", hints[field.name], _described(described[field.name], default))
        self.hints[name] = hints[dataclasses.fields(record)[0].name]

    def parse(self, words: Sequence[str]) -> dict[str, Any]:
        """Arguments of the verb that the words give.

        Raises:
            InputError: an option that the verb does not have, a file that cannot be read, a value that cannot be used.
            SystemExit: after --help or --print_config.
        """
        given = self.parse_intermixed_args([*map(self._complete, words, [*words[1:], ""])])
        made = options.typed(self.verb, self.plain, prefix="--")
        if given.print_config:
            defaults = {name: serialization.to_dict(self.parameters[name].default) for name in self.keywords}
            print(serialization.dump(defaults | self.plain), end="")
            raise SystemExit(0)
        return made | {name: value for name, value in vars(given).items() if name in self.parameters}

    def assign(self, option: str, text: str) -> None:
        """Put the value of an option, or of a field of one, among the plain values."""
        name = option.removeprefix("--")
        if name == "config":
            self.plain |= options.read_config(Path(text), self.keywords)
        else:
            value = as_meant(self.hints.get(name), serialization.value(text), text)
            self.plain = options.assign(self.verb, self.plain, name, value)

    def error(self, message: str) -> NoReturn:
        """Raise an error of one sentence, without the usage."""
        words = message.removeprefix("unrecognized arguments: ")
        if words != message and "data" in self.keywords and "data" not in self.plain and words[0] != "-":
            message = f"{message}: write --data {words}"
        elif words != message and words[0] != "-":
            message = f"{message}: an option has one value, and a list is written '[1, 2]'"
        raise InputError(f"{message.removeprefix('argument ')}. See {self.prog} --help.")

    def _complete(self, word: str, following: str) -> str:
        """Word as argparse takes it: a field's option is added to the parser, and a flag without a value gets "true".

        Raises:
            InputError: there is no such option, or its value is missing.
        """
        option, equals, _ = word.partition("=")
        name, dot, _ = option.removeprefix("--").partition(".")
        if not option.startswith("--") or name in ("help", "config", "print_config"):
            return word
        if name not in self.keywords:
            raise self._unknown_option(name, following)
        is_role = options.is_role(self.parameters[name])
        if dot:
            if not is_role:
                raise InputError(f"--{name} is one value and has no fields, so there is no {option}.")
            if option[2:] not in self.hints:
                self._add(self, option[2:], Any, argparse.SUPPRESS)
        hint = self.hints[option[2:]]
        if hint is bool and not equals and following not in ("true", "false"):
            return f"{word}=true"
        if not equals and (not following or following.startswith("--")):
            raise InputError(f"{option} needs a value{'' if is_role else f': {describe_type(hint)}'}.")
        return word

    def _unknown_option(self, name: str, following: str) -> InputError:
        """Error of an option that the verb does not have, with the one that is meant."""
        found = find_meant(name.replace("-", "_"), inspect.signature(self.verb))
        if found is None and (line := LINES.get(meanings(name.replace("-", "_"))[-1])) is not None:
            return InputError(f"unknown option '--{name}': write {line}.")
        if found is None:
            return unknown_name_error("option", f"--{name}", [f"--{known}" for known in self.keywords])
        keyword, record, field = found
        value: Any = serialization.value(following) if following and not following.startswith("--") else True
        if record is not None:
            keyword, value = f"{keyword}.{field}", legal_value(record, field, value)
        return InputError(f"unknown option '--{name}': write --{keyword} {in_yaml(value)}.")

    def _help(self, name: str) -> str:
        return _described(self.described.get(name, ""), self.parameters[name].default)


class _Assign(argparse.Action):
    """Pass an option on to the parser at once, so that options count in their order."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, **rest)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.assign(option_string, values)


def _described(text: str, default: Any) -> str:
    """Help of an option with its default."""
    if default in (None, (), inspect.Parameter.empty, dataclasses.MISSING) or serialization.to_dict(default) == {}:
        return text.replace("%", "%%")
    shown = str(default).lower() if isinstance(default, bool) else in_yaml(serialization.to_dict(default))
    return f"{text} (default: {shown})".replace("%", "%%")


def _values(name: str, hint: Any) -> str:
    """Placeholder of an option's value in the help, as "{true,false}" or "NAME"."""
    members = [one for member in (hint, *typing.get_args(hint)) for one in typing.get_args(member) or [member]]
    classes = [one for one in members if isinstance(one, type) and issubclass(one, Config)]
    if classes:
        return dataclasses.fields(classes[0])[0].name.upper() if issubclass(classes[0], Record) else "NAME"
    words = [one for one in members if isinstance(one, str)] + (["true", "false"] if bool in members else [])
    others = [one for one in members if isinstance(one, type) and one not in (bool, type(None))]
    return f"{{{','.join(dict.fromkeys(words))}}}" if words and not others else name.rpartition(".")[2].upper()
