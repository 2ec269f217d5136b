r"""Test statistics of any data: moments, quantiles, extremes, ties, correlations, and distances of rows.

Those of a feature map columns (N, P) to (P,). All are finite for one row and for a constant column, with the value that
their docstrings state. A NaN in x becomes a NaN in T(x), which the caller refuses.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.distributions.mmd import squared_distances

FEATURES = 30
"""Maximum number of features in correlations: those of the largest variance."""

NEIGHBOURS = 256
"""Maximum number of rows, the first ones, among which nearest neighbours are searched."""


def mean(columns: Tensor) -> Tensor:
    """Mean of each column, (P,), in the data's unit."""
    return columns.mean(0)


def standard_deviation(columns: Tensor) -> Tensor:
    r"""Standard deviation $\sqrt{\frac1N \sum_n (x_n - \bar x)^2}$ of each column, (P,); 0 of one row."""
    return _standardised(columns)[1]


def quantile(percent: int) -> Callable[[Tensor], Tensor]:
    """Function of columns (N, P) to a quantile of each, (P,): the smallest value with that share of values up to it.

    Args:
        percent: an integer from 1 to 100, which makes the rank exact.
    """

    def of(columns: Tensor) -> Tensor:
        return columns.kthvalue(-(-percent * len(columns) // 100), 0).values

    return of


def skewness(columns: Tensor) -> Tensor:
    r"""Skewness $m_3 / m_2^{3/2}$ of each column, (P,), where m are central moments; 0 of a constant."""
    standardised, _ = _standardised(columns)
    return standardised.square().mul_(standardised).mean(0)


def excess_kurtosis(columns: Tensor) -> Tensor:
    r"""Excess kurtosis $m_4 / m_2^2 - 3$, of each column, (P,); 0 of a constant."""
    standardised, deviations = _standardised(columns)
    return torch.where(deviations > 0, standardised.square_().square_().mean(0) - 3, 0)


def smallest(columns: Tensor) -> Tensor:
    """Smallest value of each column, (P,)."""
    return columns.amin(0)


def largest(columns: Tensor) -> Tensor:
    """Largest value of each column, (P,)."""
    return columns.amax(0)


def share_of_zeros(columns: Tensor) -> Tensor:
    """Share of exact zeros in each column, (P,)."""
    return 1 - columns.count_nonzero(0).to(columns) / len(columns)


def unique_values(columns: Tensor) -> Tensor:
    """Number of different values in each column, (P,)."""
    ordered = columns.sort(0).values
    return 1 + (ordered[1:] != ordered[:-1]).sum(0).to(columns)


def mean_correlation(x: Tensor) -> Tensor:
    """Mean absolute correlation over pairs of the (up to 30) features of largest variance; 0 with a constant."""
    return _correlations(x).mean()


def largest_correlation(x: Tensor) -> Tensor:
    """Largest absolute correlation of a pair of the (up to 30) features of largest variance."""
    return _correlations(x).amax()


def neighbour_distance(x: Tensor) -> Tensor:
    """Mean Euclidean distance of each of the first 256 rows to its nearest neighbour among them; 0 for one row."""
    rows = x[:NEIGHBOURS].reshape(min(len(x), NEIGHBOURS), -1).double()
    if len(rows) < 2:
        return x.new_zeros(())
    nearest = squared_distances(rows, rows).fill_diagonal_(torch.inf).argmin(1)
    distances = torch.linalg.vector_norm(rows - rows[nearest], dim=1)  # exactly 0 for equal rows, unlike products
    return distances.mean().to(x)


def row_mean(x: Tensor) -> Tensor:
    """Mean of each row over its elements, (N,), in the data's unit."""
    return x.reshape(len(x), -1).mean(1)


def row_total(x: Tensor) -> Tensor:
    """Sum of each row over its elements, (N,), in the data's unit."""
    return x.reshape(len(x), -1).sum(1)


def row_standard_deviation(x: Tensor) -> Tensor:
    """Standard deviation of each row over its elements, (N,), in the data's unit."""
    rows = x.reshape(len(x), -1)
    return _standardised(rows.mT)[1]


def _standardised(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Columns with mean 0 and standard deviation 1, and their standard deviations (P,); both are 0 for a constant.

    The first row is subtracted before the mean, which is rounded, so that a constant becomes exactly 0.
    """
    moved = columns - columns[0]
    moved -= moved.mean(0)
    deviations = moved.square().mean(0).sqrt()
    if columns.dtype != torch.float64 and not bool(deviations.isfinite().all()):  # squares overflow float32
        moved, deviations = _standardised(columns.double())
        return moved.to(columns), deviations.to(columns)
    moved /= torch.where(deviations > 0, deviations, 1)
    return moved, deviations


def _correlations(x: Tensor) -> Tensor:
    """Absolute correlations of pairs of features; a single 0 where there is no pair.

    Standard deviations that differ by less than 1e-4 of the largest count as equal, and the first features are taken.
    """
    standardised, deviations = _standardised(x.reshape(len(x), -1))
    size = (deviations / deviations.amax().clamp_min(torch.finfo(x.dtype).tiny) * 1e4).round()
    chosen = standardised[:, size.argsort(descending=True, stable=True)[:FEATURES]]
    first, second = torch.triu_indices(chosen.shape[1], chosen.shape[1], 1, device=x.device)
    pairs = (chosen.mT @ chosen)[first, second].abs().clamp_max(len(x)) / len(x)
    return pairs if len(pairs) else x.new_zeros(1)
