"""Settings that are known to end in NaN train to a sensible value, or are refused by what makes them train."""

import dataclasses
import re

import numpy as np
import pytest
from helpers.slow import slow_but
from nan_museum import MUSEUM, train

import pyro_vae as pv

FAST = (
    "constant column",
    "unscaled inputs",
    "square of the scale overflows",
    "infinity of float16",
    "NaN under a mask",
    "zero library size",
    "library size of 1e-8",
    "counts of 1e8",
    "only zeros",
    "ends of the unit interval under Beta",
    "saturated Bernoulli",
    "one-class column",
    "a fixed scale of 1e-6",
    "a fixed scale of 1e-18",
    "learning rate of 0.1",
    "bf16-mixed",
)
"""Exhibits that the fast suite visits."""


@pytest.mark.filterwarnings("ignore:one value in all rows:UserWarning")
@pytest.mark.parametrize("name", slow_but(FAST, MUSEUM))
def test_exhibit_trains_or_says_how_to(name: str) -> None:
    exhibit = MUSEUM[name]
    if exhibit.mended is not None:
        if exhibit.warns:
            with pytest.warns(UserWarning, match=re.escape(exhibit.says)):
                train(exhibit)
        else:
            with pytest.raises((pv.InputError, FloatingPointError)) as refusal:
                train(exhibit)
            assert exhibit.says in str(refusal.value)
        exhibit = exhibit.mended
    assert exhibit.limit is not None
    history = train(exhibit)
    for column in ("loss", "log_likelihood", "kl"):
        assert np.isfinite(history[column]).all()
    assert history.last["loss"] < exhibit.limit
    assert history.last["kl"] > -0.5


def test_museum_is_large_enough() -> None:
    assert len(MUSEUM) >= 26


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:one value in all rows:UserWarning")
@pytest.mark.parametrize("name", MUSEUM)
def test_exhibit_without_training_fails(name: str) -> None:
    exhibit = MUSEUM[name].mended or MUSEUM[name]
    assert exhibit.limit is not None
    untrained = {**exhibit.options, "epochs": 1, "optimizer": pv.Adam(1e-9)}
    assert train(dataclasses.replace(exhibit, options=untrained)).last["loss"] > exhibit.limit
