"""Test quantities of counts: whether they vary as much, and are zero as often, as a model says."""

import torch
from torch import Tensor

from pyro_vae.criticism.statistics.general import standard_deviation


def dispersion_index(columns: Tensor) -> Tensor:
    r"""The index of dispersion $\mathrm{Var}[x] / E[x]$ of each column, (P,): 1 of a Poisson, more of clusters.

    Where all counts are 0 it is 1, its limit for rare counts.

    References:
        Cox and Lewis, The Statistical Analysis of Series of Events, 1966.
    """
    mean = columns.mean(0)
    deviation = standard_deviation(columns)
    return torch.where(mean > 0, deviation * (deviation / torch.where(mean > 0, mean, 1)), 1)


def share_of_ones(columns: Tensor) -> Tensor:
    """The share of exact ones in each column, (P,): few beside many zeros is a sign of inflation."""
    return (columns == 1).sum(0).to(columns) / len(columns)


def row_total(x: Tensor) -> Tensor:
    """The total of each row, (N,), in counts."""
    return x.reshape(len(x), -1).sum(1)


def row_zeros(x: Tensor) -> Tensor:
    """The share of exact zeros in each row, (N,)."""
    rows = x.reshape(len(x), -1)
    return 1 - rows.count_nonzero(1).to(rows) / rows.shape[1]
