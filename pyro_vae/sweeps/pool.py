"""Points trained one after the other here, or several at a time by a pool of processes."""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

import torch
from joblib.externals.loky import ProcessPoolExecutor

from pyro_vae.sweeps.trial import INTERRUPTED, Outcome, Request, train
from pyro_vae.training import signals

IDLE_SECONDS = 60
"""Time after which a process without work ends, even if the one that started it was killed."""


def train_all(requests: Iterator[Request], done: Callable[[Request, Outcome], None], jobs: int) -> None:
    """Train until no request follows.

    Args:
        requests: the points; each is taken when there is a place for it.
        done: called with each request and its outcome.
        jobs: number of points at a time.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM; checkpoints hold what was under way.
    """
    if jobs > 1:
        _train_in_processes(requests, done, jobs)
        return
    for request in requests:
        outcome = train(request)
        done(request, outcome)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt


def _train_in_processes(requests: Iterator[Request], done: Callable[[Request, Outcome], None], jobs: int) -> None:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    idle: list[Worker] = []
    running: dict[Future[Outcome], tuple[Request, Worker]] = {}
    with signals.deferred(signal.SIGINT, signal.SIGTERM) as stop:
        try:
            while True:
                while not stop.by and len(running) < jobs and (request := next(requests, None)) is not None:
                    worker = idle.pop() if idle else Worker(threads)
                    running[worker.submit(request)] = request, worker
                if not running:
                    break
                for _, worker in running.values() if stop.by else ():
                    worker.stop()
                for future in wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done:
                    request, worker = running.pop(future)
                    idle.append(worker)
                    done(request, _outcome(future, stopped=stop.by is not None))
        finally:
            for _, worker in running.values():
                worker.stop()
            for worker in [*idle, *(worker for _, worker in running.values())]:
                worker.pool.shutdown()
    if stop.by:
        raise KeyboardInterrupt


def _outcome(future: "Future[Outcome]", stopped: bool) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool as error:
        code = re.search(r"\{(.+)\}", str(error))
        how = f" by {code[1]}" if code else ""
        failed = Outcome("failed", f"its process ended{how}: perhaps memory ran out, so try fewer jobs.")
        return INTERRUPTED if stopped else failed


class Worker:
    """One process in a pool of its own, so that a process that dies loses its own point and no other.

    Args:
        threads: how many it may use.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._start()

    def _start(self) -> None:
        # Loky, for it starts a process without running the script that called for it once more.
        self.pool = ProcessPoolExecutor(1, timeout=IDLE_SECONDS, initializer=_initialize, initargs=(self.threads,))
        self.pid: Future[int] = self.pool.submit(os.getpid)
        self.stopping = False

    def submit(self, request: Request) -> "Future[Outcome]":
        """Future outcome of a point, trained by a new process if the last one died."""
        try:
            return self.pool.submit(train, request)
        except BrokenProcessPool:
            self.pool.shutdown()
            self._start()
            return self.pool.submit(train, request)

    def stop(self) -> None:
        """Send SIGTERM, once and as soon as the process has started: the running step ends, and all is saved."""
        if not self.stopping and self.pid.done() and not self.pid.exception():
            self.stopping = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid.result(), signal.SIGTERM)


def _initialize(threads: int) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keyboard's signal is passed on once, as SIGTERM
