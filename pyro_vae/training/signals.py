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
"""What is said of a training that one of them ended."""


@dataclass
class Stop:
    """Whether somebody wants an end, and by which signal."""

    by: signal.Signals | None = None

    @property
    def word(self) -> str:
        """What to say of it."""
        return WORDS[self.by or signal.SIGINT]


@contextlib.contextmanager
def deferred(*signals: signal.Signals) -> Iterator[Stop]:
    """Within the block, a signal is noted and nothing more; its second coming does what it would have done without us.

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
