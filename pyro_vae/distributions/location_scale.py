"""Location-scale distributions with finite draws and no host sync."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all, clamp_probs


class UncheckedStudentT(dist.StudentT):
    """Student's t whose degrees of freedom are not checked, for torch's check is a host sync."""

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = dist.Chi2(self.df, validate_args=validate_args)
        torch.distributions.Distribution.__init__(self, self.df.shape, validate_args=validate_args)

    def expand(self, batch_shape: tuple[int, ...], _instance: Any = None) -> "UncheckedStudentT":
        """Expand as torch does, which refuses subclasses with a constructor of their own."""
        expanded: UncheckedStudentT = super().expand(batch_shape, _instance or self.__new__(type(self)))
        return expanded


class FiniteLogistic(dist.Logistic):
    """The logistic distribution whose draws are finite: Pyro's are not where a uniform number is exactly 0."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Invert the distribution function at uniform numbers within (0, 1)."""
        draws: Tensor = self.icdf(clamp_probs(self.loc.new_empty(self._extended_shape(sample_shape)).uniform_()))
        return draws
