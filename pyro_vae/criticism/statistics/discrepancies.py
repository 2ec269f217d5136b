"""Discrepancies T(x, z): distances of rows from the distribution p(x|z) at their latents."""

from typing import Any

import torch
from torch import Tensor

from pyro_vae.distributions import moments

DRAWS = 100
"""Draws behind a mean or variance without a closed form: by default a moment takes 1,000 of them."""


def chi_squared(distribution: Any, x: Tensor) -> Tensor:
    r"""Pearson's discrepancy $\sum_j (x_j - E[x_j|z])^2 / \mathrm{Var}[x_j|z]$ of each row, (N,), in float64.

    Variances are at least the smallest normal number of float32, about 1e-38, so that an element without spread adds
    0 where x equals its mean and much elsewhere. An element of infinite variance, as of a Student's t with few degrees
    of freedom, adds 0.

    References:
        Gelman, Meng and Stern, Posterior Predictive Assessment of Model Fitness via Realized Discrepancies, 1996
            [gelman1996].

    Args:
        distribution: p(x|z) with batch shape (N,).
        x: rows (N, *event_shape).

    Raises:
        InputError: no element has a mean and a variance: the values are labels, or all tails too heavy.
    """
    mean, variance = (_moment(distribution, name) for name in ("mean", "variance"))
    terms = (x.double() - mean).square() / variance.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(mean.isfinite() & variance.isfinite(), terms, 0).reshape(len(x), -1).sum(1)


def _moment(distribution: Any, name: str) -> Tensor:
    """Moment in float64, NaN or infinite for elements that have none."""
    try:
        value: Tensor = getattr(distribution, name)
    except NotImplementedError:
        value = torch.full((), torch.nan)
    if bool(value.isnan().all()):  # no closed form: by draws, which raises where there is no moment
        value = getattr(moments, name)(distribution, DRAWS).value
    return value.double()


def minus_log_likelihood(distribution: Any, x: Tensor) -> Tensor:
    r"""Negative log-likelihood $-\log p(x|z)$ of each row, (N,), in nats; infinite outside of the support."""
    log_prob: Tensor = distribution.log_prob(x)
    return -log_prob
