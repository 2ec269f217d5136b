"""The von Mises distribution, stable for any concentration."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.constraints import interval

SERIES_FROM, TERMS = 50.0, 8
"""Concentration from which so many terms of a series are exact to 1e-12."""


class StableVonMises(dist.VonMises):
    """Von Mises's distribution over one turn of the circle, to full precision.

    torch's normaliser is a polynomial with an error of 1e-7, its exponent cancels at high concentrations, and its
    support is the real line.
    """

    support = interval(-math.pi, math.pi)

    @property
    def mean(self) -> Tensor:
        """The mean direction, within the turn."""
        return torch.atan2(self.loc.sin(), self.loc.cos())

    @property
    def variance(self) -> Tensor:
        """Not in closed form: that of torch and Pyro is the circular variance, 1 - E cos(x - loc).

        Raises:
            NotImplementedError: always, so that `moments.variance` takes draws.
        """
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density at an angle, in radians."""
        exponent = -2 * self.concentration * torch.sin((value - self.loc) / 2).square()
        return exponent - log_i0e(self.concentration) - math.log(2 * math.pi)


def log_i0e(k: Tensor) -> Tensor:
    r"""Logarithm of $e^{-k} I_0(k)$, k > 0: by its asymptotic series from 50 on, where its slope $-1 / (2k)$ is lost.

    $$ e^{-k} I_0(k) \sqrt{2 \pi k} \sim \sum_n \frac{((2n - 1)!!)^2}{n!\,(8k)^n} $$

    >>> [round(value, 4) for value in log_i0e(torch.tensor([1.0, 49.0, 51.0, 1e6])).tolist()]
    [-0.7641, -2.8623, -2.8824, -7.8267]
    """
    is_large = k > SERIES_FROM
    small, inverse = torch.where(is_large, 1.0, k), 1 / torch.where(is_large, k, SERIES_FROM)
    series = torch.zeros_like(k)
    for n in range(TERMS, 0, -1):
        series = (2 * n - 1) ** 2 / (8 * n) * inverse * (1 + series)
    large = 0.5 * torch.log(inverse / (2 * math.pi)) + torch.log1p(series)
    return torch.where(is_large, large, torch.log(torch.special.i0e(small)))
