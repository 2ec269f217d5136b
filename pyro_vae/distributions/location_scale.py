"""Location-scale distributions with finite draws and no host sync."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all, clamp_probs

from pyro_vae.distributions.wrappers import ExpandMixin


class UncheckedStudentT(ExpandMixin, dist.StudentT):
    """Student's t whose degrees of freedom are not checked, for torch's check is a host sync."""

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = dist.Chi2(self.df, validate_args=validate_args)
        torch.distributions.Distribution.__init__(self, self.df.shape, validate_args=validate_args)


class FiniteLogistic(dist.Logistic):
    """The logistic distribution whose draws are finite: Pyro's are not where a uniform number is exactly 0."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws by the inverse of the distribution function at uniform numbers within (0, 1)."""
        return self.icdf(clamp_probs(self.loc.new_empty(self._extended_shape(sample_shape)).uniform_()))
