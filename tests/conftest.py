"""What every test starts from and leaves behind: an empty param store, a fixed seed, untouched flags.

Files run in the order of the time they took when it was recorded (`make durations`), the longest first, so that no
process waits for another at the end.
"""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib: no test opens a window

import pyro
import pytest
import torch
from torch import Tensor

torch.set_num_threads(1)  # the same sums on every machine; as many processes as there are cores run tests


DURATIONS = Path(__file__).with_name("durations.json")
"""Seconds that the tests of each file took, and how many there were."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that records."""
    parser.addoption("--record-durations", action="store_true", help=f"write how long files took into {DURATIONS.name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that took longest first."""
    took = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    items.sort(key=lambda item: -took.get(item.nodeid.split("::")[0], {"seconds": 0})["seconds"])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write how long the tests of each file took."""
    if not config.getoption("--record-durations"):
        return
    seconds, tests = Counter[str](), Counter[str]()
    for report in (each for kind in terminalreporter.stats.values() for each in kind if hasattr(each, "duration")):
        seconds[report.nodeid.split("::")[0]] += report.duration
        tests[report.nodeid.split("::")[0]] += report.when == "call"
    known = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}  # of files that this run left out
    took = known | {file: {"seconds": round(seconds[file], 1), "tests": tests[file]} for file in seconds}
    DURATIONS.write_text(json.dumps(took, indent=1, sort_keys=True) + "\n")


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
def pictures() -> None:
    """Ask for the pictures of runs, in `figures`."""


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of runs out, unless a test asks for `pictures`: they take most of the time of a small run."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("pyro_vae.plots._run_figures.write", lambda *arguments: None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a small VAE."""
    from helpers.small_runs import fit, rows, small  # here, for it imports the package

    fit(small(), rows(), tmp_path / "run")
    return tmp_path / "run"
