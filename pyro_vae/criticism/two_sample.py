"""One replicate data set against the data: can they be told apart, by what, and does each cover the other?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pyro_vae.criticism.density_coverage import density_coverage
from pyro_vae.criticism.two_sample_tests import classifier_test, mmd_test

if TYPE_CHECKING:
    import xarray as xr

ROWS = 1000
"""Rows at most of each sample."""

LEAST = 50
"""Rows at least: of fewer, nothing could be told apart."""


def two_sample(x: Tensor, replicate: Tensor, features: Sequence[str], seed: int) -> "xr.Dataset | None":
    """Hold a replicate data set against the data.

    Args:
        x: the data (N, *event_shape); the first 1,000 rows are used.
        replicate: a replicate of them.
        features: the names of a row's elements.
        seed: of folds and permutations.

    Returns:
        The tests' numbers; None of fewer than 50 rows.
    """
    import xarray as xr

    if len(x) < LEAST:
        return None
    data, drawn = (sample[:ROWS].reshape(min(len(sample), ROWS), -1).double().cpu() for sample in (x, replicate))
    told, mmd, fidelity = (
        classifier_test(data, drawn, seed=seed),
        mmd_test(data, drawn, seed=seed),
        density_coverage(data, drawn),
    )
    numbers = {
        "classifier_accuracy": told.accuracy,
        "classifier_error": told.error,
        "classifier_p_value": told.p_value,
        "mmd2": mmd.mmd2,
        "mmd_p_value": mmd.p_value,
        "density": fidelity.density,
        "coverage": fidelity.coverage,
        "coverage_expected": fidelity.expected,
        "points": len(data),
    }
    importance = np.full(len(features), np.nan) if told.importance is None else told.importance.numpy()
    return xr.Dataset(
        {**numbers, "importance": ("feature", importance)}, coords={"feature": np.array(features, dtype=str)}
    )
