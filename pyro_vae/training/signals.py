"""Signals that end a program, kept until the running step is done."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
"""Participles for a training that one of them ended."""


@dataclass
class Stop:
    """A request to stop, and by which signal."""

    by: signal.Signals | None = None


@contextlib.contextmanager
def deferred(*signals: signal.Signals) -> Iterator[Stop]:
    """A block within which a first signal only sets a flag, and a second one acts as it would outside.

    A signal that is ignored stays so. Only the main thread can do this: in another one nothing is deferred.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if stop.by is not None:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)
        stop.by = stop.by or signal.Signals(number)

    if threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in signals}
        before = {number: now for number, now in known.items() if now not in (None, signal.SIG_IGN)}
    try:
        for number in before:
            signal.signal(number, note)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
