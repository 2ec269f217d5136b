"""Settings that are known to end in NaN train to a sensible value, or are refused by what makes them train."""

import copy

import numpy as np
import pytest
from nan_museum import MUSEUM, train

import pyro_vae as pv


@pytest.mark.filterwarnings("ignore:one value in all rows:UserWarning")
@pytest.mark.parametrize("name", MUSEUM)
def test_exhibit_trains_or_says_how_to(name: str) -> None:
    exhibit = MUSEUM[name]
    if exhibit.limit is None:
        assert exhibit.mended is not None
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


def test_museum_is_large_enough_and_its_limits_can_fail() -> None:
    assert len(MUSEUM) >= 26
    untrained = copy.copy(MUSEUM["unscaled inputs"])
    object.__setattr__(untrained, "likelihood", pv.Normal(scale=1.0))
    assert untrained.limit is not None
    assert train(untrained).last["loss"] > untrained.limit
