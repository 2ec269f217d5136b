"""Trainings that are killed: `python kill_worker.py FOLDER [KILLS [SEED]]` prints what became of them, as JSON.

With KILLED_COMPILED in the environment they are of compiled losses.

Without a number of kills, there is one before every operation on a file.

One process imports everything and forks a child for each training, for importing takes longer than training does.
Checkpoints are written slowly, in two halves, so that many of the kills come while one is written.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import pyro_vae as pv
from helpers.resuming import fit, rows, table
from pyro_vae.compile import tracing
from pyro_vae.plots import _run_figures
from pyro_vae.runs.folder import RunFolder
from pyro_vae.training import snapshot

BEGUN, DONE = b"b", b"d"
COMPILE = "KILLED_COMPILED" in os.environ
TOLD = 0
if COMPILE:  # by what is recorded: a compiler takes half a minute each time
    tracing.compile_graph = lambda recorded, inputs: recorded


def train(run: Path, **arguments: Any) -> None:
    """One training that has everything with a memory in it."""
    torch.manual_seed(1)
    vae = pv.VAE((3,), 2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(5,)))
    x, held = (pv.data.Rows({"x": rows(n).sigmoid()}, dynamic=True) for n in (22, 9))
    objective = pv.objectives.ELBO(beta=pv.schedules.GECO(rate=1))
    rate = pv.schedules.Cosine(0.02, 0, epochs=4, warmup=1)
    optimizer = pv.AdamW(rate, clip_norm=5.0, ema=0.9)
    arguments = {"epochs": 4, "compile": COMPILE, **arguments}
    fit(vae, x, validation=held, objective=objective, optimizer=optimizer, run=run, **arguments)


def child(run: Path, **arguments: Any) -> int:
    """Start a process that trains; returns its number."""
    if COMPILE:  # a graph is recorded with threads that do not outlive a fork
        words = [sys.executable, __file__, "--train", str(run), str(TOLD), str(int("resume" in arguments))]
        return subprocess.Popen(words, pass_fds=[TOLD]).pid
    if number := os.fork():
        return number
    try:
        train(run, **arguments)
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def slowly(told: int) -> None:
    """Make every writing of a checkpoint take time, and tell when it begins and ends."""
    whole = safetensors.torch.save_file

    def save_file(tensors: Any, name: str, metadata: Any = None) -> None:
        if "step-" not in name and "best" not in name:
            return whole(tensors, name, metadata)
        os.write(told, BEGUN)
        whole(tensors, name, metadata)
        data = Path(name).read_bytes()
        with open(name, "wb", buffering=0) as file:
            for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                file.write(half)
                time.sleep(0.005)
        os.write(told, DONE)

    safetensors.torch.save_file = save_file
    snapshot.safetensors.torch.save_file = save_file
    _run_figures.write = lambda *arguments: time.sleep(0.05)


def content(run: Path) -> tuple[bytes, Any]:
    weights, history = (run / "model.safetensors").read_bytes(), table(RunFolder(run).history())
    return weights, history.to_numpy().tolist()


def main(folder: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    torch.set_num_threads(1)  # a pool of threads does not outlive a fork
    global TOLD
    listening, TOLD = os.pipe()
    os.set_blocking(listening, False)
    slowly(TOLD)
    if not COMPILE:
        train(folder / "warm")  # a training in this process, so that the children find everything imported
    plan, chance, found = pv.Checkpoints(every_minutes=0), random.Random(seed), Counter()
    drain(listening)
    start = time.monotonic()
    assert os.waitpid(child(folder / "whole", checkpoints=plan), 0)[1] == 0
    writings = drain(listening).count(BEGUN)
    interval = 0.02 if COMPILE else (time.monotonic() - start) / writings  # compiled: importing takes most of the time
    assert COMPILE or content(folder / "whole") == content(folder / "warm")
    for kill in range(kills):
        run, killed = folder / f"run {kill}", 0
        while True:
            drain(listening)
            number = child(run, checkpoints=plan, resume=True)
            # a number of writings, not a share of the time, for a machine is not always equally fast
            seen = wait_for_writings(listening, chance.randrange(writings), number)
            time.sleep(chance.uniform(0, interval))
            os.kill(number, signal.SIGKILL)
            died = os.waitpid(number, 0)[1] == signal.SIGKILL
            seen += drain(listening)
            found["kills"] += died
            found["while a checkpoint was written"] += died and seen.endswith(BEGUN)
            found["too late"] += not died
            found["before the first"] += died and not list((run / "checkpoints").glob("*.safetensors"))
            killed += died
            if not killed:  # ended before the kill: once more from its start
                shutil.rmtree(run)
            elif not died or chance.random() < 0.6:  # the others are killed again
                break
        ended = os.waitpid(child(run, checkpoints=plan, resume=True), 0)[1]
        found["resumed"] += ended == 0
        found["identical"] += ended == 0 and content(run) == content(folder / "whole")
        found["left behind"] += sum("writing" in str(path) or "damaged" in str(path) for path in folder.rglob("*"))
    return {**found, "runs": kills, "seconds": round(time.monotonic() - start, 1)}


OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


def dying(run: Path, at: int) -> None:
    """End this process, as SIGKILL would, before its operation number `at` on a name in a folder."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in OPERATIONS and run.name in str(arguments[0]):
            count += 1
            if count == at:
                os._exit(9)

    sys.addaudithook(hook)


def windows(folder: Path) -> dict[str, Any]:
    """Kill a training between any two of its operations on files, and resume it."""
    torch.set_num_threads(1)
    _run_figures.write = lambda to, *arguments: (to / "training.png").write_bytes(b"")
    train(folder / "whole", epochs=2)
    found, plan, at = Counter(), pv.Checkpoints(every_minutes=None, every_epochs=1), 0
    while not found["too late"]:
        at += 1
        run = folder / f"killed{at}"
        if not (number := os.fork()):
            dying(run, at)
            train(run, epochs=2, checkpoints=plan)
            os._exit(0)
        found["killed"] += (died := os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 9)
        found["too late"] += not died
        parts = all((run / name).exists() for name in ("model.safetensors", "history.csv", "figures"))
        found["taken for whole"] += RunFolder(run).finished and not (
            parts and content(run) == content(folder / "whole")
        )
        ended = os.waitpid(child(run, epochs=2, checkpoints=plan, resume=True), 0)[1]
        found["resumed"] += ended == 0
        found["identical"] += ended == 0 and content(run) == content(folder / "whole")
        found["left behind"] += sum("writing" in str(path) for path in folder.rglob("*"))
    return dict(found)


def drain(listening: int) -> bytes:
    """Marks of writings since the last call."""
    with contextlib.suppress(BlockingIOError):
        return os.read(listening, 10**6)
    return b""


def wait_for_writings(listening: int, begun: int, process: int) -> bytes:
    """Marks since the last call, once `begun` writings have begun or the process has ended."""
    seen = drain(listening)
    while seen.count(BEGUN) < begun and not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.001)
        seen += drain(listening)
    return seen


if __name__ == "__main__":
    if sys.argv[1] == "--train":
        torch.set_num_threads(1)
        slowly(int(sys.argv[3]))
        train(Path(sys.argv[2]), checkpoints=pv.Checkpoints(every_minutes=0), resume=sys.argv[4] == "1")
        sys.exit()
    given = Path(sys.argv[1]), *map(int, sys.argv[2:])
    print(json.dumps(main(*given) if len(given) > 1 else windows(*given)))
