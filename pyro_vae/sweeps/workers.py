"""Points trained one after the other here, or several at a time by processes of their own.

A worker reads requests as JSON, one a line, and answers in the same way. A process that dies takes its point with it
and no other.
"""

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from pyro_vae.sweeps.status import Outcome
from pyro_vae.sweeps.trial import Request, train
from pyro_vae.training import signals

Next = Callable[[], Request | None]
Done = Callable[[Request, Outcome], None]


def train_all(following: Next, done: Done, jobs: int) -> None:
    """Train until nothing follows.

    Args:
        following: the next point, or None if there is none.
        done: told of each point that is over.
        jobs: how many at a time.

    Raises:
        KeyboardInterrupt: somebody wants an end; what was under way is kept by checkpoints.
    """
    if jobs > 1:
        _train_apart(following, done, jobs)
        return
    while (request := following()) is not None:
        outcome = train(request)
        done(request, outcome)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt


def _train_apart(following: Next, done: Done, jobs: int) -> None:
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    workers = [Worker(max(1, (os.cpu_count() or 1) // jobs)) for _ in range(jobs)]
    for worker in workers:
        idle.put(worker)

    def one(request: Request) -> Outcome:
        worker = idle.get()
        try:
            return worker.train(request)
        finally:
            idle.put(worker)

    running: dict[Future[Outcome], Request] = {}
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(signals.deferred(signal.SIGINT, signal.SIGTERM))
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        for worker in workers:
            stack.callback(worker.end)
        while True:
            while not stop.by and len(running) < jobs and (request := following()) is not None:
                running[pool.submit(one, request)] = request
            if stop.by:
                for worker in workers:
                    worker.end()
            if not running:
                break
            for future in wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done:
                done(running.pop(future), future.result())
    for worker in workers:
        worker.reap()
    if stop.by:
        raise KeyboardInterrupt


class Worker:
    """A process that trains points, started when there is one, and again if it died.

    Args:
        threads: how many it may use.
    """

    def __init__(self, threads: int) -> None:
        self.threads, self.ended = threads, False
        self.process: subprocess.Popen[str] | None = None

    def train(self, request: Request) -> Outcome:
        """Have a point trained."""
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "pyro_vae.sweeps", str(self.threads)]
            self.process = subprocess.Popen(  # in a session of its own: the keyboard's signal is ours to pass on, once
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(dataclasses.asdict(request)) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return Outcome(**json.loads(answer))
        code = self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        if self.ended:
            return Outcome("interrupted", "it is not finished: call the sweep again to go on.")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return Outcome("failed", f"its process ended by {how}: perhaps memory ran out, so try fewer jobs.")

    def end(self) -> None:
        """Let it finish the running step, save, and go."""
        if self.process is not None and not self.ended:
            self.ended = True
            self.process.terminate()
            assert self.process.stdin is not None
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def reap(self) -> None:
        """Wait until it has gone."""
        if self.process is not None:
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


def main() -> None:
    """Train what comes in, and answer."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what anybody prints is no answer
        torch.set_num_threads(int(sys.argv[1]))
        for line in sys.stdin:
            plain = json.loads(line)
            trial = plain.pop("trial")
            outcome = train(Request(**plain, trial=None if trial is None else tuple(trial)))
            print(json.dumps(dataclasses.asdict(outcome)), file=answers, flush=True)
