"""Test statistics of counts: their dispersion, and shares of zeros and ones."""

import torch
from torch import Tensor

from pyro_vae.criticism.statistics.general import standard_deviation


def dispersion_index(columns: Tensor) -> Tensor:
    r"""Index of dispersion $\mathrm{Var}[x] / E[x]$ of each column, (P,): 1 for a Poisson, more for clustered counts.

    Where all counts are 0 it is 1, its limit for rare counts.

    References:
        Cox and Lewis, The Statistical Analysis of Series of Events, 1966 [cox1966].
    """
    mean = columns.mean(0)
    deviation = standard_deviation(columns)
    return torch.where(mean > 0, deviation * (deviation / torch.where(mean > 0, mean, 1)), 1)


def share_of_ones(columns: Tensor) -> Tensor:
    """Share of exact ones in each column, (P,); few ones beside many zeros are a sign of zero inflation."""
    return (columns == 1).sum(0).to(columns) / len(columns)


def row_zeros(x: Tensor) -> Tensor:
    """Share of exact zeros in each row, (N,)."""
    rows = x.reshape(len(x), -1)
    return 1 - rows.count_nonzero(1).to(rows) / rows.shape[1]
