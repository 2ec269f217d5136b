"""Processes that take turns: each does one round of its work when it is told to, and waits for its next turn.

So a busy machine, or a warm one, is as slow for one as for the others, and each has a peak of memory of its own. A
process is told "go" or "stop" by a line on its standard input, and answers with a line of JSON.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Gate:
    """The turns of a process, from its own side.

    Args:
        steps: how many steps a round has.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.first = steps, 0, 0.0
        self.settle: Callable[[], Any] = _settle_torch
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a library prints is no answer

    def begin(self) -> None:
        """Everything is imported and the data are there: time and memory count from the first turn on."""
        self._wait({})
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self.before = resident("VmRSS")

    def __call__(self, steps: int = 1) -> None:
        """Some steps are done; waits for the next turn where a round is complete, and ends with the last."""
        self.done += steps
        if not self.first and self.done >= 2:  # some compile after a first step
            self.settle()
            self.first = time.perf_counter() - self.start
        if self.done % self.steps == 0:
            self.settle()
            self._wait({"seconds": time.perf_counter() - self.start, "first": self.first})

    def fail(self, error: BaseException) -> None:
        """Say why there is no answer."""
        lines = str(error).strip().splitlines() or [""]
        self._answer({"failed": f"{type(error).__name__}: {lines[0]}"})

    def _wait(self, answer: Mapping[str, Any]) -> None:
        self._answer(answer)
        if sys.stdin.readline().strip() != "go":
            self._answer({"peak": resident("VmHWM"), "before": self.before})
            os._exit(0)  # without what libraries do at their end
        self.start = time.perf_counter()

    def _answer(self, answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=self.answers, flush=True)


class Contender:
    """A process that takes turns, from its parent's side; once it has failed it takes no more of them.

    Args:
        words: its command line.
        threads: how many threads it may use.
        patience: seconds after which it is given up, if it does not answer.
    """

    def __init__(self, words: Sequence[str], threads: int, patience: float = 900.0) -> None:
        self.rounds: list[float] = []
        self.first = self.peak = self.before = float("nan")
        self.failed, self.patience = "", patience
        self.scratch = tempfile.TemporaryDirectory()
        self.log = Path(self.scratch.name, "log")
        number = str(threads)
        own = {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "TORCHINDUCTOR_CACHE_DIR": self.scratch.name}
        # A cache of its own, for time to the first step is that of a first time.
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(words, **pipes, stderr=log, text=True, env=os.environ | own)
        self._answer()

    def turn(self) -> None:
        """One round."""
        if answer := self._ask("go"):
            self.rounds.append(answer["seconds"])
            self.first = answer["first"]

    def close(self) -> None:
        """End the process, and keep what it says of its memory."""
        if answer := self._ask("stop"):
            self.peak, self.before = answer["peak"], answer["before"]
        self.process.kill()
        self.process.communicate()
        self.scratch.cleanup()

    def _ask(self, word: str) -> Mapping[str, Any]:
        if self.failed:
            return {}
        with contextlib.suppress(BrokenPipeError):
            print(word, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Mapping[str, Any]:
        there, _, _ = select.select([self.process.stdout], [], [], self.patience)
        line = self.process.stdout.readline() if there and self.process.stdout else ""
        answer: dict[str, Any] = json.loads(line) if line else {"failed": self._last_words(bool(there))}
        self.failed = answer.get("failed", "")
        return {} if self.failed else answer

    def _last_words(self, ended: bool) -> str:
        if not ended:
            return f"no answer in {self.patience:.0f} s"
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"ended by itself: {lines[-1] if lines else 'without a word'}"


def keep_to(threads: int) -> None:
    """Take no more cores than that, where the system can tell."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def resident(field: str) -> float:
    """The memory of this process in MB, now (VmRSS) or at its peak (VmHWM), as Linux tells it; NaN elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _settle_torch() -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
