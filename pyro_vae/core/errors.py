"""Exceptions, whose messages say what is wrong, where, why, and the line that fixes it."""

import difflib
import numbers
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard


class InputError(ValueError):
    """Input that cannot be used; the message says what is wrong and how to fix it.

    Every check of this package raises it before any work starts, so that `except pv.InputError` separates a wrong
    input from a fault of the package. The command line prints it as one sentence and exits with status 2.
    """


class ProcessLostError(RuntimeError):
    """Another process of a distributed training has ended, so this one cannot continue."""


class RunNotWrittenError(OSError):
    """Failure to write a trained model to its run folder; the message says where it is instead.

    Args:
        message: what went wrong, and what to do.
        write: writes the run to a given folder.

    `except pv.RunNotWrittenError as error: error.write("another/folder")` writes it from memory.
    """

    def __init__(self, message: str, write: Callable[[str], None]) -> None:
        super().__init__(message)
        self.write = write


class TrainingInterrupted(KeyboardInterrupt):
    """SIGINT ended a training; its weights are kept, and its run is written.

    Args:
        history: the `History` up to there.

    `except pv.TrainingInterrupted as stop: history = stop.history` goes on with what was learned.
    """

    def __init__(self, history: Any) -> None:
        super().__init__(history.stopped or "interrupted after the last epoch")
        self.history = history


ALSO = {"gaussian": "Normal", "student": "StudentT", "multinomial": "Categorical", "gmm": "Mixture", "gpu": "cuda"} | {
    "evidence": "evaluate",
    "generate": "sample",
    "train": "fit",
}
"""Synonyms of names, in lower case."""


def unknown_name_error(what: str, name: object, known: Iterable[str]) -> InputError:
    """Error for a name of a kind, as "family", that is not among those known, with the nearest of these.

    >>> print(unknown_name_error("family", "Norml", ["Laplace", "Normal"]))
    unknown family 'Norml': did you mean 'Normal'? Known: Laplace, Normal.
    >>> print(unknown_name_error("family", "Gausian", ["Gamma", "Laplace", "Normal"]))
    unknown family 'Gausian': did you mean 'Normal'? Known: Gamma, Laplace, Normal.
    """
    known = list(known)
    names = {other: item for other, item in ALSO.items() if item in known} | {item.lower(): item for item in known}
    close = difflib.get_close_matches(str(name).lower(), names, n=2, cutoff=0.5)
    if close and close[0] in ALSO:  # others are close in spelling only
        close = close[:1]
    meant = dict.fromkeys(repr(names[item]) for item in close)
    hint = f": did you mean {' or '.join(meant)}?" if close else "."
    return InputError(f"unknown {what} {name!r}{hint} Known: {', '.join(known)}.")


def check_integers(**arguments: tuple[Any, int]) -> None:
    """Check that arguments, given by name as value and minimum, are integers of at least that minimum.

    Raises:
        InputError: one is not; True and 1.0 are not integers here.

    >>> check_integers(draws=(1000, 2), seed=(0, 0))
    """
    for name, (value, low) in arguments.items():
        if not is_integer(value) or value < low:
            raise InputError(f"{name} = {abbreviated_repr(value)} has to be an integer of at least {low}.")


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer of Python, NumPy or any other library that says so; True is not one here."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_real(value: object) -> TypeGuard[float]:
    """Whether a value is a number of Python, NumPy or any other library that says so; True is not one here."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def abbreviated_repr(value: object) -> str:
    """Repr of a value, for a message: the type and shape alone of arrays and tables, at most 80 characters of others.

    >>> abbreviated_repr(3.0), abbreviated_repr(list(range(100)))
    ('3.0', '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2...')
    """
    if shape := getattr(value, "shape", None):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}..."
