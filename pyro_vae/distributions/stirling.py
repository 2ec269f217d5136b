r"""Log-densities of large counts without cancellation, in the precision of their arguments.

A log-density of a count x is a difference of terms of size $x \log x$, of which float32 leaves an error of whole nats
at $x = 10^6$. Here each such term is taken out by hand, with Stirling's series

$$ \log\Gamma(y) = (y - \tfrac12) \log y - y + \tfrac12 \log 2\pi + \delta(y) $$

and what is left is of the size of the log-density.

References:
    Loader, Fast and Accurate Computation of Binomial Probabilities, 2000.
"""

import math

import torch
from torch import Tensor

LOG_ROOT_TAU = 0.5 * math.log(2 * math.pi)

SERIES_FROM = 8.0
"""Argument from which five terms of Stirling's series are exact to 1e-12."""

SERIES_TO = 0.15
"""Argument up to which a series of log(1 + t) - t replaces the difference."""


def stirling_error(y: Tensor) -> Tensor:
    r"""Error $\delta(y)$ of Stirling's formula for $\log\Gamma(y)$, y > 0.

    >>> stirling_error(torch.tensor([1.0, 10.0, 1e7])).tolist()
    [0.0810..., 0.00833..., 8.33...e-09]
    """
    is_small = y < SERIES_FROM
    large = torch.where(is_small, SERIES_FROM, y)
    inverse = 1 / large
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))
    small = torch.where(is_small, y, SERIES_FROM)
    direct = torch.lgamma(small) - ((small - 0.5) * small.log() - small + LOG_ROOT_TAU)
    return torch.where(is_small, direct, series)


def log1pmx(t: Tensor) -> Tensor:
    r"""Difference $\log(1 + t) - t$, t > -1, exact near 0.

    With $v = t / (2 + t)$ it is $2 (v + v^3/3 + v^5/5 + \dots) - t = -t v + 2 v^3 (1/3 + v^2/5 + \dots)$.

    >>> log1pmx(torch.tensor([1e-6, 1.0])).tolist()
    [-4.99...e-13, -0.3068...]
    """
    is_near = t.abs() < SERIES_TO
    near, far = torch.where(is_near, t, 0.0), torch.where(is_near, 1.0, t)
    v = near / (2 + near)
    square = v * v
    tail = 1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9 + square * (1 / 11 + square / 13))))
    return torch.where(is_near, 2 * v * square * tail - near * v, torch.log1p(far) - far)


def deviance(x: Tensor, mean: Tensor, log_mean: Tensor) -> Tensor:
    r"""Half the Poisson deviance, $x \log(x / m) - x + m$, for x > 0, from the mean m > 0 and its logarithm.

    >>> mean = torch.tensor(1.001e7)
    >>> deviance(torch.tensor(1e7), mean, mean.log()).item()
    4.99...
    """
    t = (mean - x) / x
    is_near = t.abs() < SERIES_TO
    near = -x * log1pmx(torch.where(is_near, t, 0.0))
    apart = x.log() - log_mean  # of which rounding leaves little, unless it is large: there the mean may underflow
    log_ratio = torch.where(apart.abs() > 20, apart, torch.log(x / torch.where(apart.abs() > 20, 1.0, mean)))
    return torch.where(is_near, near, x * log_ratio - x + mean)


def log_quotient(x: Tensor, y: Tensor, difference: Tensor) -> Tensor:
    """Logarithm of x / y, for positive numbers whose difference is known better than x is."""
    t = difference / y
    is_near = t.abs() < SERIES_TO
    return torch.where(is_near, torch.log1p(torch.where(is_near, t, 0.0)), torch.log(x / y))


def log_gamma_ratio(x: Tensor, d: Tensor) -> Tensor:
    r"""What $\log\Gamma(x + d) - \log\Gamma(x)$ is beyond $d \log(x + d)$, for x > 0 and x + d > 0."""
    t = d / x
    return (x - 0.5) * log1pmx(t) - 0.5 * t + stirling_error(x + d) - stirling_error(x)


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    r"""Logarithm of the beta function $\Gamma(a) \Gamma(b) / \Gamma(a + b)$."""
    total = a + b
    shares = (a - 0.5) * torch.log(a / total) + (b - 0.5) * torch.log(b / total) - 0.5 * total.log()
    return shares + LOG_ROOT_TAU + stirling_error(a) + stirling_error(b) - stirling_error(total)
