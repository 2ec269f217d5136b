"""Calibration: the PIT of each observed value among its replicates, and the coverage of central intervals."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.criticism.ecdf_bands import simultaneous_ecdf_band

ELEMENTS = 2**20
"""Maximum number of elements whose ranks are kept; of larger data, those of the first rows."""

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Contents of the central intervals whose coverage is reported."""

POINTS = np.linspace(0, 1, 41)[1:-1]
"""Points at which the ECDF of the PIT values is reported."""


class RankCounter:
    """Counts of the replicates below each of some values, of any shape, and of those equal to it."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.below, self.equal = (torch.zeros(values.shape, dtype=torch.int32, device=values.device) for _ in range(2))
        self.draws = 0

    def update(self, replicate: Tensor, values: Tensor | None = None) -> None:
        """Count one replicate, of the values' shape; pass `values` where they vary with the replicate."""
        values = self.values if values is None else values
        self.below += replicate < values
        self.equal += replicate == values
        self.draws += 1

    def randomised_pit(self) -> Tensor:
        r"""Randomised probability integral transform of each value, of their shape, in float64.

        $$ u = \frac{\#\{x' < x\} + V\,(1 + \#\{x' = x\})}{S + 1}, \qquad V \sim \mathrm{Uniform}(0, 1) $$

        It is exactly uniform where the value is exchangeable with its S replicates, discrete data included.

        References:
            Czado, Gneiting and Held, Predictive Model Assessment for Count Data, 2009 [czado2009].
        """
        share = torch.rand(self.values.shape, dtype=torch.float64, device=self.values.device)
        return (self.below + share * (self.equal + 1)) / (self.draws + 1)


def pit_calibration(pit: Tensor, observed: Tensor, features: Sequence[str]) -> xr.Dataset:
    """Coverage of central intervals, ECDF and a test of uniformity of PIT values (N, P), by feature.

    Only values where `observed`, (N, P), is true are used.
    """
    values, known = pit.cpu().numpy(), observed.cpu().numpy()
    counts = known.sum(0)
    least = np.maximum(counts, 1)
    held = [(np.abs(values - 0.5) <= level / 2) & known for level in LEVELS]
    share = np.array([inside.sum() for inside in held]) / max(known.sum(), 1)
    below = [(values <= point) & known for point in POINTS]
    p_values = uniform_p_values(np.where(known, values, np.nan))
    low, high = simultaneous_ecdf_band(int(counts[counts > 0].min(initial=len(values))), POINTS)
    return xr.Dataset(
        {
            "coverage": (("feature", "level"), np.stack([inside.sum(0) / least for inside in held], 1)),
            "coverage_overall": ("level", share),
            "coverage_error": (
                "level",
                _coverage_se(np.stack([inside.sum(1) for inside in held]), known.sum(1), share),
            ),
            "ecdf": (("feature", "u"), np.stack([each.sum(0) / least for each in below], 1)),
            "ecdf_overall": ("u", np.array([each.sum() / max(known.sum(), 1) for each in below])),
            "band_low": ("u", low),
            "band_high": ("u", high),
            "pit_p_value": ("feature", p_values),
            "pit_q_value": ("feature", adjust_p_values(p_values)),
            "values": ("feature", counts),
        },
        coords={"feature": np.array(features, dtype=str), "level": np.array(LEVELS), "u": POINTS},
    )


def _coverage_se(
    inside: NDArray[np.int64], known: NDArray[np.int64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Standard errors over rows of the coverage `share` at each level, (L,), at least those of independent values.

    Of each row, `inside` counts the values inside the interval of each level, (L, N), `known` the observed ones, (N,).
    """
    rows, values = int((known > 0).sum()), max(int(known.sum()), 1)
    level = np.array(LEVELS)
    if rows < 2:
        return np.sqrt(level * (1 - level))
    residuals = inside - share[:, None] * known
    of_rows = np.sqrt((residuals**2).sum(1) * rows / (rows - 1)) / values
    found: NDArray[np.float64] = np.maximum(of_rows, np.sqrt(level * (1 - level) / values))
    return found


def uniform_p_values(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""P-values (P,) of the Kolmogorov-Smirnov test of uniformity on (0, 1), of all columns at once.

    $$ D = \max_i \max\{i / n - u_{(i)},\; u_{(i)} - (i - 1) / n\} $$

    Args:
        columns: values (N, P); NaN are omitted, and a column of NaN alone has p-value NaN.

    >>> uniform_p_values(np.array([[0.1], [0.5], [0.9]])).round(4)
    array([0.9858])
    """
    from scipy.stats import kstwo

    ordered = np.sort(columns, 0)
    counts = (~np.isnan(ordered)).sum(0)
    least = np.maximum(counts, 1)
    step = np.arange(1, len(ordered) + 1)[:, None]
    gaps = np.maximum(step / least - ordered, ordered - (step - 1) / least)
    distance = np.nan_to_num(gaps, nan=0.0).max(0)
    p_values: NDArray[np.float64] = np.where(counts > 0, kstwo.sf(distance, least), np.nan)
    return p_values


def adjust_p_values(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values adjusted by Benjamini and Hochberg to control the false discovery rate; NaN stays NaN.

    Of the tests with an adjusted p-value below a, the expected share of false discoveries is at most a. This holds for
    independent tests and many kinds of dependent ones, and is not proved for all of them.

    References:
        Benjamini and Hochberg, Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple
            Testing, 1995 [benjamini1995].

    >>> adjust_p_values(np.array([0.01, 0.04, np.nan]))
    array([0.02, 0.04,  nan])
    """
    from scipy.stats import false_discovery_control

    found = np.full(len(p_values), np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        found[known] = false_discovery_control(p_values[known])
    return found
