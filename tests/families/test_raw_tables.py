"""Tables in their users' units reach what their standardised twins reach, and more than independent Gaussians."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.slow import slow_but
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

import pyro_vae as pv
from pyro_vae.families import Family


@pytest.mark.parametrize("likelihood", [pv.Normal(scale="per_feature"), pv.Normal()], ids=["per_feature", "network"])
@pytest.mark.parametrize("load", slow_but([load_wine], [load_wine, load_breast_cancer, load_iris]))
def test_raw_table_is_fitted_as_its_standardised_twin(load: Any, likelihood: Family) -> None:
    x = load().data[np.random.default_rng(0).permutation(len(load().data))]
    train, sd, found = len(x) * 3 // 4, x.std(0), []
    for data in (x, (x - x.mean(0)) / sd):
        torch.manual_seed(0)
        vae = pv.VAE((x.shape[1],), 2, likelihood=likelihood, encoder=pv.MLP(hidden=(32,)))
        pv.fit(vae, data[:train], epochs=80, optimizer=pv.Adam(0.01), progress=False)
        method = pv.criticism.Importance(draws=200)
        found.append(pv.evidence(vae, data[train:], method=method, progress=False).mean)
    raw, twin = found[0], found[1] - np.log(sd).sum()
    assert raw == pytest.approx(twin, abs=1e-2 * x.shape[1])
    mean, variance = x[:train].mean(0), x[:train].var(0)
    terms = np.log(2 * math.pi * variance) + (x[train:] - mean) ** 2 / variance
    assert raw > -0.5 * terms.sum(1).mean() + 0.5
