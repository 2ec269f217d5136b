"""Gaussian families: independent elements, and correlated ones."""

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.distributions import constraints
from pyro_vae.distributions.normal import FusedNormal, StableLowRankMultivariateNormal
from pyro_vae.families.base import Family, Source, init_mean, init_std, parameter
from pyro_vae.families.site import BoundFamily, SiteSpec


@dataclass(frozen=True)
class Normal(Family):
    r"""The Gaussian with independent elements.

    $$ p(x) = \prod_j \frac{1}{s_j\sqrt{2\pi}} \exp\Big(-\frac{(x_j - m_j)^2}{2 s_j^2}\Big) $$

    `Normal(0, 1)` is the standard prior; `Normal(scale="learned")` as a likelihood is the sigma-VAE, whose
    one noise scale weighs the reconstruction against the KL by maximum likelihood; `Normal()` as a guide is
    the diagonal Gaussian posterior.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014 [kingma2014], https://arxiv.org/abs/1312.6114.
        Rybkin, Daniilidis and Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021 [rybkin2021],
            https://arxiv.org/abs/2006.13202.

    Args:
        loc: the mean m, of the event's shape, in the data's unit.
        scale: the standard deviation s, of the event's shape, in [1e-4, 1e6] times the data's unit.

    >>> Normal(0, 1)
    Normal(loc=0.0, scale=1.0)
    """

    loc: Source = parameter(constraints.real, init=init_mean, unit="location")
    scale: Source = parameter(constraints.positive, init=init_std, unit="scale")
    distribution = FusedNormal


@dataclass(frozen=True)
class MultivariateNormal(Family):
    r"""The Gaussian over vectors, with any covariance.

    $$ p(x) = (2\pi)^{-D/2}\,|L|^{-1} \exp\big(-\tfrac12 \lVert L^{-1}(x - m) \rVert^2\big) $$

    As a guide it is the full-rank Gaussian posterior. Its raw Cholesky factor costs $D^2$ network outputs.

    References:
        Tipping and Bishop, Probabilistic Principal Component Analysis, 1999 [tipping1999] (a posterior with
            correlations).

    Args:
        loc: the mean m, (D,), in the data's unit.
        scale_tril: the Cholesky factor L of the covariance, (D, D): lower triangular, its row norms (the standard
            deviations) in [1e-4, 1e6] times the data's unit, the eigenvalues of the correlation matrix over 1e-4. One
            number for a whole matrix has no meaning.

    >>> MultivariateNormal(loc=0, scale_tril=[[1, 0], [0.5, 1]])
    MultivariateNormal(loc=0.0, scale_tril=((1.0, 0.0), (0.5, 1.0)))
    """

    loc: Source = parameter(constraints.real, init=init_mean, unit="location")
    scale_tril: Source = parameter(
        constraints.scale_tril,
        shape=lambda event, _: (*event, event[-1]),
        init=lambda x, family: init_std(x, family).diag_embed(),
        unit="rows",
        allows_scalar=False,
    )
    event_ranks = (1,)
    data_kind = "Vectors"
    support_text = "vectors of real numbers"
    distribution = dist.MultivariateNormal


def _waves(x: Tensor, family: "LowRankNormal") -> Tensor:
    """A tenth of the spread, in waves along the elements, so that no factor is zero and no two are alike."""
    size = x.shape[-1]
    place = torch.arange(size, dtype=x.dtype, device=x.device)[:, None] + 0.5
    wave = torch.cos(place * torch.arange(family.rank, dtype=x.dtype, device=x.device) * (math.pi / size))
    return 0.1 * init_std(x, family)[:, None] * wave


@dataclass(frozen=True)
class LowRankNormal(Family):
    r"""The Gaussian over vectors whose covariance is a few factors and a diagonal.

    $$ p(x) = N(x;\, m,\, F F^\top + \mathrm{diag}(d)), \qquad F \in \mathbb{R}^{D \times r} $$

    The correlations of `MultivariateNormal` for $D(r + 2)$ numbers and $O(D r^2)$ operations: a posterior over many
    latents, a likelihood whose noise is shared by elements. F is known up to a rotation. A factor is at most 1e5
    times as loud as the noise, $F_k^\top \mathrm{diag}(d)^{-1} F_k \le 10^5$, and is shortened to that.

    References:
        Ong, Nott and Smith, Gaussian Variational Approximation with a Factor Covariance Structure, 2018 [ong2018],
            https://arxiv.org/abs/1701.03208.

    Args:
        rank: the number r of factors, from 1 to D.
        loc: the mean m, (D,), in the data's unit.
        cov_factor: the factors F, (D, r), in the data's unit. One number for all of them has no meaning.
        cov_diag: the variance d that is each element's own, (D,), in [1e-8, 1e12] times the data's unit squared.

    Raises:
        InputError: when it is put in its place: there are more factors than elements.

    >>> LowRankNormal(rank=3, loc=0)
    LowRankNormal(rank=3, loc=0.0, cov_factor=None, cov_diag=None)
    """

    rank: int = field(1, low=1)
    loc: Source = parameter(constraints.real, init=init_mean, unit="location")
    cov_factor: Source = parameter(
        constraints.real,
        shape=lambda event, family: (*event, family.rank),
        init=_waves,
        unit="rows",
        init_noise=0.1,  # at zero they have no gradient
        allows_scalar=False,
    )
    cov_diag: Source = parameter(
        constraints.Bounded(1e-8, 1e12), init=lambda x, family: init_std(x, family).square(), unit="variance"
    )
    distribution = StableLowRankMultivariateNormal
    event_ranks = (1,)
    data_kind = "Vectors"
    support_text = "vectors of real numbers"

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, with no more factors than elements."""
        if self.rank > site.event_shape[0]:
            raise InputError(
                f"{site.role}: {self!r} has more factors than the {site.event_shape[0]} elements of its events: take "
                f"a rank of at most {site.event_shape[0]}, or MultivariateNormal() for any covariance."
            )
        return super().bind(site)
