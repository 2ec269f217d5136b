"""What every test starts from and leaves behind: an empty param store, a fixed seed, untouched flags."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib: no test opens a window

import pyro
import pytest
import torch
from torch import Tensor

torch.set_num_threads(1)  # the same sums on every machine; as many processes as there are cores run tests


@pytest.fixture(autouse=True)
def clean_slate() -> Iterator[None]:
    """Isolate a test from the ones before it: parameters, seeds, Pyro's and torch's flags, figures."""
    flags = pyro.settings.get()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.settings.set(**flags)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(autouse=True)
def keyboard() -> Iterator[None]:
    """Listen to the keyboard, also where whoever started the tests ignores it, as `nohup` does: that is inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make every way from a tensor to a Python number raise."""

    def refuse(self: Tensor, *arguments: object) -> None:
        raise AssertionError("the host waited for the device")

    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero"):
        monkeypatch.setattr(Tensor, name, refuse)
    yield
    monkeypatch.undo()


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out: they take most of the time of a small run."""
    monkeypatch.setattr("pyro_vae.plots._run_figures.write", lambda *arguments: None)


@pytest.fixture
def run(tmp_path: Path, no_pictures: None) -> Path:
    """A run of a small VAE."""
    from helpers.small_runs import fit, rows, small  # here, for it imports the package

    fit(small(), rows(), tmp_path / "run")
    return tmp_path / "run"
