"""Signatures of functions that pass keywords on, so that a keyword's type, default and description stand once."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def delegates(inner: Callable[..., Any], *names: str) -> Callable[[Function], Function]:
    """Decorator of a function that passes keywords on to another one, where their types and defaults stand.

    A keyword that the function uses itself is written without a default, or with one of its own; the others arrive in
    its `**` parameter.

    Args:
        inner: the function, or the class, that has these keywords.
        names: the keywords; by default all that `inner` takes as keywords alone.

    >>> def draw(seed: int = 3, *, mean: bool = False) -> None:
    ...     '''Draw.
    ...
    ...     Args:
    ...         seed: of the draws.
    ...     '''
    >>> @delegates(draw, "mean", "seed")
    ... def write(path: str, *, seed: int, **options: Any) -> int:
    ...     return seed
    >>> inspect.signature(write)
    <Signature (path: str, *, seed: int = 3, mean: bool = False) -> int>
    >>> write("x.csv"), describe_parameters(write)["seed"]
    (3, 'of the draws.')
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = {name: p for name, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD}
        theirs = inspect.signature(inner).parameters
        chosen = names or [p.name for p in theirs.values() if p.kind is p.KEYWORD_ONLY]
        passed = {name: theirs[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in chosen}
        defaults = {name: p.default for name, p in passed.items() if name in own and own[name].default is p.empty}
        filled = {name: own[name].replace(default=default) for name, default in defaults.items()}

        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            return function(*given, **defaults | named)

        merged = passed | own | filled
        made: Any = call
        made.__signature__ = signature.replace(parameters=[merged[name] for name in {**own, **passed}])
        made.delegated = getattr(function, "delegated", {}) | dict.fromkeys(passed, inner)
        decorated: Function = made
        return decorated

    return decorate


def describe_parameters(function: Callable[..., Any]) -> dict[str, str]:
    """Descriptions of parameters by name, from the docstring of a function or class, or of that which they go on to."""
    section = re.search(r"^Args:\n((?: {4}.*\n?)+)", inspect.getdoc(function) or "", re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE)
    delegated: dict[str, Callable[..., Any]] = getattr(function, "delegated", {})
    passed = {name: text for name, inner in delegated.items() if (text := describe_parameters(inner).get(name))}
    return passed | {name: " ".join(text.split()) for name, text in found}
