"""Progress bar on stderr, in a terminal alone."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress, ProgressColumn

T = TypeVar("T")


def progress_bar(show: bool, *columns: ProgressColumn | str, transient: bool = False) -> Progress:
    """Progress bar of rich, with its columns by default, disabled unless `show` and stderr is a terminal."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=transient, disable=not (show and console.is_terminal))


def track(items: Iterable[T], description: str, show: bool, total: float | None = None, **options: Any) -> Iterator[T]:
    """Items, with a bar that counts them, up to `total` where they have no length; options are of `progress_bar`.

    >>> list(track([1, 2], "counting", show=False))
    [1, 2]
    """
    with progress_bar(show, **options) as bar:
        yield from bar.track(items, total, description=description)
