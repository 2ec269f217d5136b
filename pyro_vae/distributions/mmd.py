"""Maximum mean discrepancy of two samples, with a gradient."""

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Scales s of the kernel, over which it sums: in units of the distance of two standard normals."""


def kernel(squared: Tensor, dimension: int) -> Tensor:
    r"""The sum of inverse multiquadratics, $\sum_s C_s / (C_s + r^2)$ with $C_s = 2 D s$, elementwise.

    Args:
        squared: squared distances $r^2$, of any shape.
        dimension: the dimension D.

    >>> kernel(torch.tensor([0.0, 4.0]), 2)  # of two equal points, and of two at the distance 2
    tensor([7.0000, 3.5000])
    """
    constants = [2 * dimension * scale for scale in SCALES]
    return sum((c / (c + squared) for c in constants), torch.zeros_like(squared))


def mmd2(x: Tensor, y: Tensor) -> Tensor:
    r"""Unbiased estimate of the squared maximum mean discrepancy of two samples, which may be negative.

    $$ \widehat{\mathrm{MMD}^2} = \frac{\sum_{i \ne j} k(x_i, x_j)}{N (N - 1)}
       + \frac{\sum_{i \ne j} k(y_i, y_j)}{M (M - 1)} - \frac{2}{N M} \sum_{i,j} k(x_i, y_j), \qquad
       k(a, b) = \sum_s \frac{C_s}{C_s + |a - b|^2} $$

    with $C_s = 2 D s$, twice the mean squared norm of a normal of variance s: heavy tails, so that points far off
    have a gradient. It is 0 in expectation if and only if the two distributions are equal.

    References:
        Gretton et al., A Kernel Two-Sample Test, 2012 [gretton2012], https://jmlr.org/papers/v13/gretton12a.html.
        Tolstikhin et al., Wasserstein Auto-Encoders, 2018 [tolstikhin2018], https://arxiv.org/abs/1711.01558.

    Args:
        x: a sample (N, D) with N at least 2.
        y: another (M, D) with M at least 2.

    Returns:
        The estimate, a scalar with no unit; differentiable, without a host sync.

    >>> z = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> mmd2(z[:250], z[250:]).abs() < 0.1, mmd2(z[:250], z[250:] + 3) > 1
    (tensor(True), tensor(True))
    """
    dimension = x.shape[1]
    return _within(x) + _within(y) - 2 * kernel(squared_distances(x, y), dimension).mean()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (N, M), by products: no (N, M, D) is held, and equal points have a gradient."""
    centre = y.mean(0).detach()  # far from 0, squares would leave nothing of a distance
    x, y = x - centre, y - centre
    squares = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T
    return squares.clamp(min=0)


def _within(x: Tensor) -> Tensor:
    """Mean kernel of different points of one sample: the diagonal is subtracted, with its rounding."""
    count, dimension = x.shape
    values = kernel(squared_distances(x, x), dimension)
    return (values.sum() - values.diagonal().sum()) / (count * (count - 1))
