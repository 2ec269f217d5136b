"""K-hat: how heavy the tail of importance weights is, for many rows at once."""

import math

import torch
from torch import Tensor

TAIL = 25
"""Draws below which no tail can be fitted: five are needed in the last fifth."""

PRIOR, SHARE = 10, 0.5
"""The prior of a shape k: so many draws that say 0.5."""


def khats(log_weights: Tensor, eps: float) -> Tensor:
    r"""The Pareto shape k of the largest $\min(K / 5, 3 \sqrt K)$ of each row's weights.

    The same numbers as `arviz_stats.psislw` gives row by row, in a tenth of the time.

    References:
        Vehtari et al., Pareto Smoothed Importance Sampling, 2024, https://arxiv.org/abs/1507.02646.

    Args:
        log_weights: log w, (K, B).
        eps: the rounding error of the type in which they were computed.

    Returns:
        (B,): 0 where only rounding tells the weights apart, or where the whole tail is one value, so that they are
        bounded; infinite where a few draws have all the weight; NaN with fewer than 25 draws.

    >>> shares = torch.arange(1, 4001).double() / 4001
    >>> [round(float(k), 2) for k in khats(-shares.log()[:, None] * torch.tensor([0.3, 0.8]), 1e-16)]  # w = u^-k
    [0.28, 0.74]
    """
    draws = len(log_weights)
    if draws < TAIL:
        return torch.full_like(log_weights[0], math.nan)
    size = int(min(draws / 5, 3 * math.sqrt(draws)))
    top = log_weights.T.topk(size + 1).values.flip(1)  # the tail, after the largest value below it
    largest = top[:, -1]
    relative = (top - largest[:, None]).exp()
    shape = pareto_shape(relative[:, 1:] - relative[:, :1])
    nothing_left = relative[:, 1 + size // 4] == 0  # of the tail beside a few draws: no fit
    shape = torch.where(shape.isfinite() & ~nothing_left, shape, math.inf)
    rounding = 64 * eps * largest.abs().clamp(min=1)
    equal = (largest - log_weights.amin(0) <= rounding) | (top[:, 1] == largest)
    return torch.where(equal & largest.isfinite(), 0.0, shape)


def pareto_shape(excess: Tensor) -> Tensor:
    r"""The shape k of a generalised Pareto distribution, of which each row is a sample.

    $$ k(b) = \frac1n \sum_i \log(1 - b x_i), \qquad \hat k = k(\hat b), \qquad
       \hat b = \sum_j b_j \frac{L(b_j)}{\sum_l L(b_l)}, \qquad \log L(b) = n (\log(-b / k(b)) - k(b) - 1), $$

    drawn towards 0.5 as by ten more observations.

    References:
        Zhang and Stephens, A New and Efficient Estimation Method for the Generalized Pareto Distribution, 2009.

    Args:
        excess: (B, n), not negative, ascending.
    """
    n = excess.shape[1]
    candidates = 30 + int(math.sqrt(n))
    steps = torch.arange(1, candidates + 1, dtype=excess.dtype, device=excess.device) - 0.5
    quartile, largest = excess[:, int(n / 4 + 0.5) - 1, None], excess[:, -1, None]
    b = (1 - (candidates / steps).sqrt()) / (3 * quartile) + 1 / largest
    k = torch.stack([torch.log1p(-one[:, None] * excess).mean(1) for one in b.T], 1)  # (B, n) at once, and no more
    weights = (n * ((-b / k).log() - k - 1)).softmax(1)
    kept = weights >= 10 * torch.finfo(weights.dtype).eps  # none where a quarter of the tail is its start: k is then 0
    total = torch.where(kept, weights, 0.0).sum(1, keepdim=True)
    b_hat = torch.where(kept, b * weights, 0.0).sum(1, keepdim=True) / torch.where(total > 0, total, 1.0)
    k_hat = torch.log1p(-b_hat * excess).mean(1)
    return (n * k_hat + PRIOR * SHARE) / (n + PRIOR)
