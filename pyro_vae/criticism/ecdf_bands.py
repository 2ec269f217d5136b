"""Reference distributions of values that should be uniform: bands of their ECDF, and two-sided p-values of ranks."""

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.99
"""The probability that a uniform sample stays within its band at every point."""

SAMPLES = 1000
"""Simulated uniform samples behind a band."""


def simultaneous_ecdf_band(count: int, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends (P,) of the simultaneous 99 % band of a uniform sample's ECDF, at P points.

    ArviZ has this only inside its own plots, under names that change between its versions.

    References:
        Säilynoja, Bürkner and Vehtari, Graphical Test for Discrete Uniformity and Its Applications in Goodness-of-Fit
            Evaluation and Multiple Sample Comparison, 2022 [sailynoja2022], https://arxiv.org/abs/2103.10522.

    Args:
        count: the sample's size.
        points: increasing numbers in (0, 1).

    >>> low, high = simultaneous_ecdf_band(100, np.array([0.25, 0.5, 0.75]))
    >>> bool((low < [0.25, 0.5, 0.75]).all() and (high > [0.25, 0.5, 0.75]).all())
    True
    """
    from scipy.stats import binom  # here, for importing it takes time

    gaps = np.diff(points, prepend=0.0, append=1.0)
    counts = np.random.default_rng(0).multinomial(count, gaps, SAMPLES).cumsum(1)[:, :-1]
    tails = np.minimum(binom.cdf(counts, count, points), binom.sf(counts - 1, count, points))
    pointwise = np.quantile(tails.min(1), 1 - LEVEL)
    low, high = (binom.ppf(level, count, points) / count for level in (pointwise, 1 - pointwise))
    return low, high


def two_sided_p_values(below: NDArray[np.float64], equal: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    r"""Two-sided tail probabilities of values among draws, where each value counts as one more draw.

    $$ p = \min\Big(1,\; 2\,\frac{1 + \min(\#\{T_s \le T\}, \#\{T_s \ge T\})}{S + 1}\Big) $$

    If the value is exchangeable with the draws, P(p <= a) <= a for every a.

    Args:
        below: the number of draws below each value.
        equal: the number of draws equal to it.
        draws: the number S of draws.

    >>> two_sided_p_values(np.array([0.0, 5.0]), np.array([0.0, 0.0]), 9)
    array([0.2, 1. ])
    """
    tail = (1 + np.minimum(below + equal, draws - below)) / (draws + 1)
    return np.minimum(1.0, 2 * tail)
