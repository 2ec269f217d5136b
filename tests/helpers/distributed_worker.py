"""Trainings in several processes: `python distributed_worker.py FOLDER [COMMAND]`, started once or by torchrun.

Every process writes what it found into FOLDER, `RANK.json`.
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pyro
import torch

import pyro_vae as pv
import pyro_vae.training.loop as loop
from helpers.fitting import grouped, rows, small
from helpers.programs import DeterministicPrograms
from helpers.resuming import EVERY_STEP, cut, steps, table
from pyro_vae.compile import tracing
from pyro_vae.plots import _run_figures
from pyro_vae.schedules import GECO, Linear

LIKELIHOOD = pv.Normal(scale="learned")  # a weight without dimensions
TWO = pv.Runtime(accelerator="cpu", devices=2)
RANK = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))

# Steps of 10, 10 and 1 rows: the last leaves a process without any.
CERTAIN: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": pv.SGD(0.01)},
    "accumulated": {"optimizer": pv.SGD(0.01, accumulate_grad_batches=2), "batch_size": 4},
    "everything": {
        "optimizer": pv.Adam(
            Linear(0.05, 0, 2), accumulate_grad_batches=3, clip_norm=1.0, ema=0.5, lr_by_part={"decoder": 0.01}
        ),
        "batch_size": 3,
        "objective": pv.objectives.ELBO(beta=GECO(rate=1)),
    },
}
COMPILED = ("plain", "everything")


def certain(programs: Any = DeterministicPrograms, **arguments: Any) -> dict[str, Any]:
    """A training in which nothing is drawn."""
    pyro.clear_param_store()
    programs = programs()
    arguments = {"epochs": 2, "batch_size": 10, "progress": False, **arguments}
    history = pv.fit(programs, rows(21).double(), validation=rows(9).double(), **arguments)
    return {"weights": [w.tolist() for w in programs.parameters()], "history": table(history).to_dict("list")}


def drawing(prior: Any = pv.VampPrior(4), **arguments: Any) -> dict[str, Any]:
    """A training of a VAE, of dynamic rows."""
    torch.manual_seed(RANK)  # the processes begin apart
    vae = small(seed=RANK, likelihood=LIKELIHOOD, prior=prior)
    x = pv.data.Rows({"x": rows(22).sigmoid()}, dynamic=True)
    arguments = {"epochs": 3, "batch_size": 8, "progress": False, "optimizer": pv.Adam(0.02, ema=0.9), **arguments}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            history = pv.fit(vae, x, validation=x, **grouped(**{"runtime": TWO, **arguments}))
        except pv.TrainingInterrupted as stop:
            history = stop.history
    return {
        "weights": [w.tolist() for w in vae.parameters()],
        "history": table(history).to_dict("list"),
        "stopped": history.stopped,
        "warnings": [str(each.message) for each in told],
    }


def refusal(**arguments: Any) -> str:
    try:
        drawing(**arguments)
    except (pv.InputError, FloatingPointError) as error:
        return str(error)
    return ""


class Cutting(torch.optim.SGD):
    """Something happens to one process before its step number 5."""

    count, rank, by = 0, 1, signal.SIGTERM

    def step(self, closure: Any = None) -> Any:
        type(self).count += 1
        if self.count == 5 and self.rank == RANK:
            os.kill(os.getpid(), self.by)
        return super().step(closure)


def all_of_it(folder: Path) -> dict[str, Any]:
    _run_figures.write = lambda *arguments: None
    run = folder / "run"
    found: dict[str, Any] = {name: certain(runtime=TWO, **words) for name, words in CERTAIN.items()}
    tracing.compile_graph = lambda recorded, inputs: recorded  # in place of a compiler, which takes half a minute
    found |= {f"{name}, compiled": certain(runtime=TWO, compile=True, **CERTAIN[name]) for name in COMPILED}
    found["drawing"] = drawing(run=run, checkpoints=EVERY_STEP)
    if RANK == 0:
        cut(run, steps(run)[4], folder / "cut")
        cut(run, steps(run)[4], folder / "for one")
    torch.distributed.barrier()
    found["resumed"] = drawing(run=folder / "cut", checkpoints=EVERY_STEP, resume=True)
    found["refused"] = refusal(run=run)
    return found


def cutting(weights: Any) -> torch.optim.Optimizer:
    return Cutting(weights, lr=0.01)


def cut_off(folder: Path, by: signal.Signals) -> dict[str, Any]:
    """A training of which one process gets a signal."""
    _run_figures.write = lambda *arguments: None
    Cutting.by = by
    try:
        return drawing(run=folder / "run", checkpoints=EVERY_STEP, epochs=6, optimizer=cutting)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(folder: Path, command: str = "all") -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("error", message="training runs uncompiled")
    loop.SYNC_RANKS_EVERY_STEPS = 1
    found = all_of_it(folder) if command == "all" else cut_off(folder, signal.Signals[command])
    (folder / f"{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
