"""Programs of a fixed number of rows, and those without a plate of rows, are said to be so."""

import types
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.fitting import fit
from torch import Tensor

import pyro_vae as pv


def fixed() -> Any:
    def model(x: Tensor) -> None:
        with pyro.plate("data", 60, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 60, dim=-1):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    return types.SimpleNamespace(model=model, guide=guide)


def without_plate() -> Any:
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(pyro.param("w", torch.tensor(0.1)) * x, 1.0).to_event(1))

    return types.SimpleNamespace(model=model, guide=guide)


@pytest.mark.parametrize(
    ("programs", "words"), [(fixed, "run on 60 rows only"), (without_plate, "'z' is in no plate of rows")]
)
def test_batches_are_refused_by_the_size_that_takes_all(programs: Any, words: str) -> None:
    x = torch.randn(60)
    with pytest.raises(pv.InputError, match=f"{words}.*batch_size=60"):
        fit(programs(), x, batch_size=20)
    assert len(fit(programs(), x, batch_size=60)) == 3


@pytest.mark.parametrize(("programs", "words"), [(fixed, "run on 60 rows only"), (without_plate, "rows as 1")])
def test_evidence_of_each_row_is_refused_by_the_plate_that_is_meant(programs: Any, words: str) -> None:
    with pytest.raises(pv.InputError, match=rf"{words}.*x.shape\[0\], dim=-1"):
        pv.evidence(programs(), torch.randn(60), method=pv.criticism.Importance(draws=10), progress=False)


@pytest.mark.parametrize("programs", [fixed, without_plate])
def test_replicates_are_of_all_rows(programs: Any) -> None:
    tree = pv.predictive_check(programs(), torch.randn(60), draws=20, two_sample=False, progress=False)
    assert tree["posterior_predictive"].to_dataset()["x"].shape == (1, 20, 60)
