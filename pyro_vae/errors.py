"""What a user is told when the input is wrong: what, where, why, and the line that fixes it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The input cannot be used; the message says what is wrong and how to mend it.

    Everything this package refuses is refused with this class, before any work starts, so that
    `except pv.InputError` separates a wrong input from a fault of the package. The command line
    prints it as one sentence and exits with status 2.
    """


def unknown(what: str, name: object, known: Iterable[str]) -> InputError:
    """Describe a name that is in no table, with the nearest names that are.

    Args:
        what: the kind of thing named, as in "family".
        name: the name that was given.
        known: the names that exist.

    Returns:
        The error, to be raised by the caller.

    >>> print(unknown("family", "Norml", ["Laplace", "Normal"]))
    unknown family 'Norml': did you mean 'Normal'? Known: Laplace, Normal.
    """
    known = list(known)
    lowered = {item.lower(): item for item in known}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=2, cutoff=0.5)
    hint = f": did you mean {' or '.join(repr(lowered[item]) for item in close)}?" if close else "."
    return InputError(f"unknown {what} {name!r}{hint} Known: {', '.join(known)}.")
