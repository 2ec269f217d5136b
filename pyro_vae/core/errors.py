"""What a user is told when the input is wrong: what, where, why, and the line that fixes it."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class InputError(ValueError):
    """The input cannot be used; the message says what is wrong and how to mend it.

    Everything this package refuses is refused with this class, before any work starts, so that
    `except pv.InputError` separates a wrong input from a fault of the package. The command line
    prints it as one sentence and exits with status 2.
    """


class ProcessLostError(RuntimeError):
    """Another process of a training has ended, so that this one cannot go on."""


class RunNotWrittenError(OSError):
    """What was trained could not be written where it was to be; the message says where it is safe.

    Args:
        message: what went wrong, and what to do.
        write: writes the run into a folder given.

    `except pv.NotWritten as error: error.write("another/folder")` writes it from memory.
    """

    def __init__(self, message: str, write: Callable[[str], None]) -> None:
        super().__init__(message)
        self.write = write


ALSO = {"gaussian": "Normal", "student": "StudentT", "multinomial": "Categorical", "gmm": "Mixture"}
"""What else things are called, in small letters."""


def unknown_name_error(what: str, name: object, known: Iterable[str]) -> InputError:
    """Describe a name that is in no table, with the nearest names that are.

    Args:
        what: the kind of thing named, as in "family".
        name: the name that was given.
        known: the names that exist.

    Returns:
        The error, to be raised by the caller.

    >>> print(unknown_name_error("family", "Norml", ["Laplace", "Normal"]))
    unknown family 'Norml': did you mean 'Normal'? Known: Laplace, Normal.
    >>> print(unknown_name_error("family", "Gausian", ["Gamma", "Laplace", "Normal"]))
    unknown family 'Gausian': did you mean 'Normal'? Known: Gamma, Laplace, Normal.
    """
    known = list(known)
    names = {other: item for other, item in ALSO.items() if item in known} | {item.lower(): item for item in known}
    close = difflib.get_close_matches(str(name).lower(), names, n=2, cutoff=0.5)
    if close and close[0] in ALSO:  # the next is then like it in letters alone
        close = close[:1]
    meant = dict.fromkeys(repr(names[item]) for item in close)
    hint = f": did you mean {' or '.join(meant)}?" if close else "."
    return InputError(f"unknown {what} {name!r}{hint} Known: {', '.join(known)}.")


def check_integers(**wanted: tuple[Any, int]) -> None:
    """Refuse what is no whole number of at least so much.

    Args:
        wanted: each argument by its name: its value, and the least that it may be.

    Raises:
        InputError: one is none; True and 1.0 are none either.

    >>> check_integers(draws=(1000, 2), seed=(0, 0))
    """
    for name, (value, low) in wanted.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise InputError(f"{name} = {value!r} has to be a whole number of at least {low}.")
