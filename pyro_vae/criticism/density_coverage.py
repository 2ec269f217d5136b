"""Density and coverage: whether replicates lie where data lie, and wherever data lie."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers

DISTANCES = 2**21
"""Maximum number of distances in memory at a time."""


@dataclass(frozen=True, eq=False, repr=False)
class DensityCoverage:
    """Density, whether replicates lie where data lie, and coverage, whether they lie wherever data lie.

    Args:
        density: 1 on average where the distributions are equal; less where replicates lie off the data, more where
            they concentrate where data are dense.
        coverage: the share of data points with a replicate in their neighbourhood; less than expected where
            replicates miss a part of the data.
        expected: the mean of coverage where the distributions are equal.
        neighbours: the number k of nearest neighbours in a data point's neighbourhood.
        points: the numbers of data points N and of replicates M.
    """

    density: float
    coverage: float
    expected: float
    neighbours: int
    points: tuple[int, int]

    def __repr__(self) -> str:
        """Summarise in a line."""
        expected = f"{self.coverage:.3f} (expected {self.expected:.3f})"
        return f"density {self.density:.3f} (expected 1), coverage {expected}, {self.neighbours} neighbours"


@explained
@torch.no_grad()
def density_coverage(x: Tensor, y: Tensor, *, neighbours: int = 5) -> DensityCoverage:
    r"""Density and coverage of replicates among data.

    Around each data point $x_i$ lies the ball up to its k-th nearest other data point, of radius $r_i$. With N data
    points and M replicates,

    $$ \mathrm{density} = \frac{1}{kM} \sum_{i,j} [\|x_i - y_j\| < r_i], \qquad
    \mathrm{coverage} = \frac1N \sum_i [\min_j \|x_i - y_j\| < r_i]. $$

    If the distributions are equal, the k nearest of the other N - 1 + M points are a uniform draw from them.
    So density is 1 on average, and coverage $1 - \prod_{j=1}^k \frac{N-j}{N+M-j}$, in any dimension. Points at equal
    distances, as discrete data have, count by the chance that each comes first in random order; then this holds for
    them too. Distances are Euclidean: features count by their spread. In many dimensions a few central points lie in
    most balls, so that density varies much about 1 (1.056 was published for two samples of 10,000 standard normals in
    1,000 dimensions), and coverage little.

    References:
        Naeem, Oh, Uh, Choi and Yoo, Reliable Fidelity and Diversity Metrics for Generative Models, 2020 [naeem2020],
            https://arxiv.org/abs/2002.09797.

    Args:
        x: data (N, D).
        y: replicates (M, D).
        neighbours: the number k, below N.

    Raises:
        InputError: the shapes do not go together, there are too few points, or values are not finite.

    >>> z = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    >>> density_coverage(z[:1000], z[1000:])
    density 1.013 (expected 1), coverage 0.961 (expected 0.969), 5 neighbours
    >>> density_coverage(z[:1000], z[1000:].abs())  # a quarter of the plane
    density 0.992 (expected 1), coverage 0.306 (expected 0.969), 5 neighbours
    """
    x, y = _checked(x, y, neighbours)
    inside = covered = 0.0
    for to_data, to_replicates, squares in _distances(x, y):
        radius = to_data.kthvalue(neighbours, 1, keepdim=True).values
        tolerance = 1e-13 * (squares + radius)  # distances that differ by rounding alone count as equal
        nearer, tied = _around(to_data, radius, tolerance)
        replicates_nearer, replicates_tied = _around(to_replicates, radius, tolerance)
        left = neighbours - nearer  # number of tied data points inside of the ball
        inside += float((replicates_nearer + replicates_tied * left / (tied + 1)).sum())
        none = (replicates_nearer == 0) * _none_before(left, tied, replicates_tied)
        covered += float((1 - none).sum())
    counts = len(x), len(y)
    return DensityCoverage(
        density=inside / (neighbours * counts[1]),
        coverage=covered / counts[0],
        expected=_expected_coverage(*counts, neighbours),
        neighbours=neighbours,
        points=counts,
    )


def _expected_coverage(data: int, replicates: int, neighbours: int) -> float:
    """Probability that the nearest k of N - 1 + M points in random order are not all among the N - 1."""
    return 1 - math.prod((data - j) / (data + replicates - j) for j in range(1, neighbours + 1))


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Squared distances of some x to all others (B, N) and to all y (B, M), and from the data's centre (B, 1).

    The centre is rounded to integers, which makes distances of integers, and of fractions as 3/16, exact.
    """
    centre = x.median(0).values.round()
    x, y = x - centre, y - centre
    squares = x.square().sum(1), y.square().sum(1)
    for rows in torch.arange(len(x), device=x.device).split(max(1, DISTANCES // (len(x) + len(y)))):
        own, part = squares[0][rows, None], x[rows]
        to_data = own + squares[0] - 2 * part @ x.mT
        to_data[torch.arange(len(rows), device=x.device), rows] = torch.inf
        yield to_data, own + squares[1] - 2 * part @ y.mT, own


def _around(squared: Tensor, radius: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of points inside of each ball, and on its surface, (B,) each, in float64."""
    nearer = (squared < radius - tolerance).sum(1)
    return nearer.double(), ((squared <= radius + tolerance).sum(1) - nearer).double()


def _none_before(left: Tensor, tied: Tensor, others: Tensor) -> Tensor:
    """Probability that in random order none of `others` comes before the tied point number `left`, (B,)."""
    logs = [torch.lgamma(tied + 1), torch.lgamma(tied + others - left + 1)]
    logs += [-torch.lgamma(tied - left + 1), -torch.lgamma(tied + others + 1)]
    return torch.stack(logs).sum(0).exp()


def _checked(x: Tensor, y: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """Both samples in float64, checked."""
    check_integers(neighbours=(neighbours, 1))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"data and replicates of shapes {tuple(x.shape)} and {tuple(y.shape)} cannot be compared: give (N, D) and "
            "(M, D), images as x.flatten(1)."
        )
    if len(x) <= neighbours or not len(y):
        raise InputError(
            f"{len(x)} data points and {len(y)} replicates are too few for {neighbours} neighbours: give more than "
            f"{neighbours} data points and at least one replicate."
        )
    return finite_samples(x, y)


def finite_samples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both samples (N, D) in float64, checked for NaN and infinity, and moved so that the mean of x is 0.

    Distances and classifiers depend on no common shift, and resolve more near 0.

    Raises:
        InputError: a value is NaN or infinite.
    """
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise InputError("a sample holds values that are not finite: find them with x.isfinite().all(1).")
    x, y = x.detach().double(), y.detach().double()
    centre = x.mean(0)
    return x - centre, y - centre
