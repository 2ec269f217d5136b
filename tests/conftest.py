"""What every test starts from and leaves behind: an empty param store, a fixed seed, untouched flags."""

import os
import sys
from collections.abc import Iterator

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib: no test opens a window

import pyro
import pytest
import torch
from torch import Tensor

torch.set_num_threads(2)  # the same sums, and the same speed, on every machine


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


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make every way from a tensor to a Python number raise."""

    def refuse(self: Tensor, *arguments: object) -> None:
        raise AssertionError("the host waited for the device")

    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero"):
        monkeypatch.setattr(Tensor, name, refuse)
    yield
    monkeypatch.undo()
