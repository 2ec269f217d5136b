"""Trainings that were cut off after any of their steps, for the tests of checkpoints."""

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.cases import same
from helpers.fitting import grouped
from helpers.small_runs import content

EVERY_STEP = pv.Checkpoints(every_minutes=0, keep=10**6)
ROWS = 22  # three steps of 8, 8 and 6 an epoch


def small(**arguments: Any) -> pv.VAE:
    torch.manual_seed(1)
    return pv.VAE((3,), 2, **{"encoder": pv.MLP(hidden=(5,)), **arguments})


def rows(n: int = ROWS) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(n, 3, generator=generator) @ torch.randn(3, 3, generator=generator)


def fit(programs: Any, x: Any, **arguments: Any) -> pv.History:
    return pv.fit(programs, x, **grouped(**{"epochs": 3, "batch_size": 8, "seed": 5, "progress": False, **arguments}))


def steps(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*.safetensors"))


@functools.cache
def _whole() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_vae.plots._run_figures.write", lambda *arguments: None)
        fit(small(), rows(), run=Path(folder) / "run", checkpoints=EVERY_STEP)
        return content(Path(folder) / "run")


def whole(run: Path) -> Path:
    """A finished run with a checkpoint of every step, made once."""
    for name, data in _whole().items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(data)
    return run


def cut(run: Path, at: Path, to: Path) -> Path:
    """What a crash leaves that comes after the checkpoint `at` of a run: no run, and no later checkpoint."""
    (to / "checkpoints").mkdir(parents=True)
    for file in (run / "checkpoints").iterdir():
        if file.name == "spec.yaml" or file in steps(run)[: steps(run).index(at) + 1]:
            shutil.copy(file, to / "checkpoints")
    return to


def table(history: pv.History) -> pd.DataFrame:
    return history.to_pandas().drop(columns="seconds")


def require_equal(first: tuple[Any, pv.History], second: tuple[Any, pv.History]) -> None:
    assert same(first[0].state_dict(), second[0].state_dict())
    pd.testing.assert_frame_equal(table(first[1]), table(second[1]), check_exact=True)
    assert first[1].stopped == second[1].stopped


def require_resumable(
    make: Callable[[], Any], x: Any, folder: Path, at: Callable[[list[Path]], list[Path]], **arguments: Any
) -> None:
    """Hold every resumed training to the uninterrupted one, and that to the one without checkpoints."""
    plain, saving = make(), make()
    reference = plain, fit(plain, x, **arguments)
    history = fit(saving, x, run=folder / "whole", checkpoints=EVERY_STEP, **arguments)
    require_equal(reference, (saving, history))
    for number, file in enumerate(at(steps(folder / "whole"))):
        resumed, run = make(), cut(folder / "whole", file, folder / f"cut {number}")
        torch.randn(3)  # the global random state has no say
        require_equal(reference, (resumed, fit(resumed, x, run=run, resume=True, **arguments)))


def acting(at: int, act: Callable[[], Any]) -> Callable:
    """An optimizer that does something before its step number `at`."""

    class Acting(torch.optim.SGD):
        count = 0

        def step(self, closure: Any = None) -> Any:
            self.count += 1
            if self.count == at:
                act()
            return super().step(closure)

    return functools.partial(Acting, lr=0.01)


def out_of_memory() -> None:
    raise MemoryError
