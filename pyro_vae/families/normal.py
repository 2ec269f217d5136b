"""Gaussian families: independent elements, and correlated ones."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.families import constraints
from pyro_vae.families.base import Family, Parameter, Source, mean_of, spread_of


class Gaussian(dist.Normal):
    """The Gaussian whose density is computed from its parameters as they were given.

    torch expands a scale that is one number to every pixel of every row first, and then takes as many logarithms.
    """

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.given: Any = SimpleNamespace(loc=loc, scale=scale, _validate_args=False)
        super().__init__(loc, scale, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Gaussian":
        """Expand as torch does; the given parameters broadcast to any shape."""
        expanded: Gaussian = super().expand(batch_shape, self.__new__(type(self)))
        expanded.given = self.given
        return expanded

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each element, by torch's formula."""
        if value.shape[value.ndim - len(self._batch_shape) :] != self._batch_shape:
            value = value.expand(torch.broadcast_shapes(value.shape, self._batch_shape))
        density: Tensor = torch.distributions.Normal.log_prob(self.given, value)
        return density


@dataclass(frozen=True)
class Normal(Family):
    r"""The Gaussian with independent elements.

    $$ p(x) = \prod_j \frac{1}{s_j\sqrt{2\pi}} \exp\Big(-\frac{(x_j - m_j)^2}{2 s_j^2}\Big) $$

    `Normal(0, 1)` is the standard prior; `Normal(scale="learned")` as a likelihood is the sigma-VAE, whose
    one noise scale weighs the reconstruction against the KL by maximum likelihood; `Normal()` as a guide is
    the diagonal Gaussian posterior.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114.
        Rybkin, Daniilidis and Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021,
        https://arxiv.org/abs/2006.13202.

    Args:
        loc: the mean m, of the event's shape, in the data's unit.
        scale: the standard deviation s, of the event's shape, in the data's unit, in [1e-4, 1e6].

    >>> Normal(0, 1)
    Normal(loc=0.0, scale=1.0)
    """

    loc: Source = None
    scale: Source = None
    parameters = {
        "loc": Parameter(constraints.real, start=mean_of),
        "scale": Parameter(constraints.positive, start=spread_of),
    }
    distribution = Gaussian


def _matrix(event: tuple[int, ...], family: Family) -> tuple[int, ...]:
    return (*event, event[-1])


def _diagonal(x: Tensor, family: Family) -> Tensor:
    return torch.diag_embed(spread_of(x, family))


@dataclass(frozen=True)
class MultivariateNormal(Family):
    r"""The Gaussian over vectors, with any covariance.

    $$ p(x) = (2\pi)^{-D/2}\,|L|^{-1} \exp\big(-\tfrac12 \lVert L^{-1}(x - m) \rVert^2\big) $$

    As a guide it is the full-rank Gaussian posterior. Its raw Cholesky factor costs $D^2$ network outputs.

    References:
        Tipping and Bishop, Probabilistic Principal Component Analysis, 1999 (a posterior with correlations).

    Args:
        loc: the mean m, (D,), in the data's unit.
        scale_tril: the Cholesky factor L of the covariance, (D, D): lower triangular, its row norms (the
            standard deviations) in [1e-4, 1e6]. One number for a whole matrix has no meaning.

    >>> MultivariateNormal(loc=0, scale_tril=[[1, 0], [0.5, 1]])
    MultivariateNormal(loc=0.0, scale_tril=((1.0, 0.0), (0.5, 1.0)))
    """

    loc: Source = None
    scale_tril: Source = None
    parameters = {
        "loc": Parameter(constraints.real, start=mean_of),
        "scale_tril": Parameter(constraints.scale_tril, shape=_matrix, start=_diagonal, one_value=False),
    }
    event_ranks: ClassVar = (1,)

    @staticmethod
    def distribution(loc: Tensor, scale_tril: Tensor, validate_args: bool) -> dist.TorchDistribution:
        """Build Pyro's distribution, whose location comes first."""
        return dist.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=validate_args)
