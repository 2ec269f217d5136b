"""Errors that name a path to data: it does not exist, or its content cannot be read."""

import difflib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.core.errors import InputError


def require_there(path: Path) -> None:
    """Check that a path exists.

    Raises:
        InputError: it does not; with the nearest name that does.
    """
    if not path.exists():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, beside, n=1)
        hint = f": did you mean '{path.with_name(close[0])}'?" if close else "; give the path of one that does."
        raise InputError(f"the file '{path}' does not exist{hint}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context in which errors of reading a file name the file.

    Args:
        path: the file.

    Raises:
        InputError: the file cannot be read.

    >>> with naming(Path("flowers.csv")):
    ...     raise InputError("column 3 has no name.")
    Traceback (most recent call last):
        ...
    pyro_vae.core.errors.InputError: 'flowers.csv': column 3 has no name.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"'{path}': {error}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' cannot be read ({error}): is it complete, and of this format?") from error
