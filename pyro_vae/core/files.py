"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.core.errors import InputError


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a file beside the target to write to, and put it in place when it is complete.

    Args:
        target: the file; what was there is replaced at the end, and stays if anything fails.

    Raises:
        InputError: it cannot be written.
    """
    fresh = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        yield fresh
        fresh.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)
