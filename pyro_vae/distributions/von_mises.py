"""The von Mises distribution, stable for any concentration."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.constraints import interval


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
        return exponent - torch.log(torch.special.i0e(self.concentration)) - math.log(2 * math.pi)
