"""Two tiny runs on one table, a page on one of them and a page on both, made once for the tests of both kinds."""

import atexit
import csv
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.plots import _run_figures

QUICK: dict[str, Any] = {"draws": 60, "method": pv.criticism.Importance(draws=60), "progress": False}
NAMES = ["plain", "<script>alert(1)</script>", "a & \"b\" 'c'"]


def write_table(path: Path) -> Path:
    """A table of three columns whose names look like markup."""
    x = np.random.default_rng(0).normal(size=(300, len(NAMES)))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *x.tolist()])
    return path


def fit(folder: Path, data: Path, name: str, **words: Any) -> str:
    """A tiny run as the command line would write it, without its figures."""
    dataset = pv.data.load(str(data), test=0.3)
    vae = pv.VAE((3,), 2, encoder=pv.MLP(hidden=(4,)), **words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_run_figures, "write", lambda *given: None)
        pv.fit(vae, dataset.train, validation=dataset.validation, epochs=2, run=folder / name, progress=False)
    return str(folder / name)


@functools.cache
def pages() -> Path:
    """The folder of the runs: learned/report.html is the page on one, comparison.html that on both."""
    at = Path(tempfile.mkdtemp(prefix="pyro-vae-report-"))
    atexit.register(shutil.rmtree, at, ignore_errors=True)
    data = write_table(at / "table.csv")
    torch.manual_seed(0)
    runs = [
        fit(at, data, "learned"),
        fit(at, data, "fixed", prior=pv.Mixture(pv.Normal(), components=3), likelihood=pv.Normal(scale=4)),
    ]
    state = torch.get_rng_state()
    assert pv.report(runs[0], **QUICK) == at / "learned" / "report.html"
    assert pv.report(runs, **QUICK) == at / "comparison.html"
    assert torch.equal(torch.get_rng_state(), state), "random numbers of their own"
    return at
