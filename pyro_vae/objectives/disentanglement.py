r"""Objectives that take the KL apart, or add to it: what the aggregate posterior of a batch looks like.

$$ E_x KL(q(z|x) \,\|\, p(z)) = \underbrace{I_q(x; z)}_{\text{information}}
   + \underbrace{KL(q(z) \,\|\, \textstyle\prod_j q(z_j))}_{\text{total correlation}}
   + \underbrace{\textstyle\sum_j KL(q(z_j) \,\|\, p(z_j))}_{\text{dimension-wise}}, \qquad
   q(z) = \frac1N \sum_n q(z \mid x_n) $$

Each has one particle a row, and one latent site, for what is compared are rows. A term of the batch is taken off every
row alike.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.distributions.mmd import mmd2
from pyro_vae.distributions.wrappers import name_of
from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.particles import Latent, Particles
from pyro_vae.schedules import Number


class AggregateObjective(Objective):
    """Base of objectives that compare the rows of a batch."""

    particles: int = 1

    @property
    def is_evidence_bound(self) -> bool:
        """Whether the bound is one on log p(x): not in general."""
        return False

    def latent(self, particles: Particles) -> Latent:
        """The one latent site, of vectors (N, D).

        Raises:
            InputError: there are several sites, or its draws are no vector for each row.
        """
        name = type(self).__name__
        if len(particles.latents) != 1:
            raise InputError(
                f"{name} compares rows by one latent site, and these programs have {', '.join(particles.latents)}: "
                "take pv.objectives.ELBO(), or put the latents into one site."
            )
        ((site, latent),) = particles.latents.items()
        rows = particles.log_likelihood.shape[1]
        if latent.prior is None or latent.value.ndim != 2 or len(latent.value) != rows:
            raise InputError(
                f"{name} compares rows by vectors (N, D), and site {site!r} has draws of shape "
                f"{tuple(latent.value.shape)} for {rows} rows: take pv.objectives.ELBO()."
            )
        return latent


@dataclass(frozen=True)
class BetaTC(AggregateObjective):
    r"""The ELBO with each part of its KL weighed: beta total correlation (and the plain ELBO at weights 1).

    $$ E_q \log p(x|z) - \alpha\, I_q(x; z) - \beta\, TC - \gamma \sum_j KL(q(z_j) \,\|\, p(z_j)) $$

    The densities of the aggregate posterior are estimated from the batch, of which row n is known to have made $z_n$:

    - "weighted": $q(z_n) \approx \frac{1}{NB} \sum_m q(z_n | x_m)$, a bound from below (Chen et al., appendix C.1), by
      which information and total correlation come out too large;
    - "stratified": $q(z_n) \approx \frac1N q(z_n | x_n) + \frac{N - 1}{N (B - 1)} \sum_{m \ne n} q(z_n | x_m)$, without
      bias; all other rows count alike, where Chen et al. (appendix C.2) give one of them another weight.

    The history records "information", "total_correlation" and "dimensionwise_kl", by these estimates.

    References:
        Chen, Li, Grosse and Duvenaud, Isolating Sources of Disentanglement in VAEs, 2018,
        https://arxiv.org/abs/1802.04942.
        Kim and Mnih, Disentangling by Factorising, 2018, https://arxiv.org/abs/1802.05983.

    Args:
        beta: the weight of the total correlation, a number or a schedule.
        alpha: the weight of the information, likewise.
        gamma: the weight of the dimension-wise KL, likewise.
        sampling: how the aggregate posterior is estimated.
        rows: the number N of training rows; `fit` knows it.

    Raises:
        InputError: a guide that does not factorise over latents, or N is not known.

    >>> BetaTC(beta=6)
    BetaTC(beta=6.0, alpha=1.0, gamma=1.0, sampling='stratified', rows=None)
    """

    beta: Number = field(6.0, low=0)
    alpha: Number = field(1.0, low=0)
    gamma: Number = field(1.0, low=0)
    sampling: Literal["stratified", "weighted"] = "stratified"
    rows: int | None = field(None, low=1)

    def bound(self, particles: Particles) -> Tensor:
        """The log-likelihood of each row less its weighed parts, (N,), in nats."""
        parts = self.parts_of_kl(particles)
        weights = {"information": "alpha", "total_correlation": "beta", "dimensionwise_kl": "gamma"}
        cost = sum((self.value_of(weight) * parts[name] for name, weight in weights.items()), torch.zeros(()))
        return particles.log_likelihood[0] - cost

    def extra_terms(self, particles: Particles) -> dict[str, Tensor]:
        """The three parts of the KL."""
        return {name: part.mean() for name, part in self.parts_of_kl(particles).items()}

    def parts_of_kl(self, particles: Particles) -> dict[str, Tensor]:
        """Each row's share of the three parts, (N,), in nats; they add up to its sampled KL."""
        latent = self.latent(particles)
        each = _pairs(latent, type(self).__name__)
        weights = self._log_weights(len(each)).to(each)
        joint = torch.logsumexp(each.sum(-1) + weights, 1)
        product = torch.logsumexp(each + weights.unsqueeze(-1), 1).sum(-1)
        return {
            "information": latent.log_posterior[0] - joint,
            "total_correlation": joint - product,
            "dimensionwise_kl": product - latent.log_prior[0],
        }

    def _log_weights(self, batch: int) -> Tensor:
        """What the density given row m counts in the aggregate at the draw of row n, (B, B)."""
        if self.rows is None:
            raise InputError(
                "BetaTC has to know the number of training rows, which pv.fit tells: with Pyro's SVI give it, as in "
                "BetaTC(rows=60000)."
            )
        count = max(self.rows, batch)
        if self.sampling == "weighted":
            return torch.full((batch, batch), -math.log(count * batch), dtype=torch.float64)
        others = (count - 1) / (count * max(batch - 1, 1))
        return torch.full((batch, batch), others, dtype=torch.float64).fill_diagonal_(1 / count).log()


@dataclass(frozen=True)
class InfoVAE(AggregateObjective):
    r"""The ELBO with less of its KL and more of what its purpose is: an aggregate posterior like the prior.

    $$ E_q \log p(x|z) - (1 - \alpha)\, KL(q(z|x) \,\|\, p(z)) - (\alpha + \lambda - 1)\, \mathrm{MMD}^2(q(z), p(z)) $$

    With alpha = 1 the KL is gone: the MMD-VAE, or a Wasserstein autoencoder whose encoder is random. The discrepancy is
    `pyro_vae.distributions.mmd.mmd2`, between a batch of draws from guide and prior; the history records it as "mmd".

    References:
        Zhao, Song and Ermon, InfoVAE, 2019, https://arxiv.org/abs/1706.02262.
        Tolstikhin et al., Wasserstein Auto-Encoders, 2018, https://arxiv.org/abs/1711.01558.

    Args:
        alpha: how much of the information between x and z is not paid for, a number or a schedule.
        scale: lambda, the weight of the distance to the prior, likewise; 10 for MNIST in Tolstikhin et al.
        kl: "sampled" or "analytic", as for `ELBO`.

    >>> InfoVAE(alpha=1)
    InfoVAE(alpha=1.0, scale=10.0, kl='sampled')
    """

    alpha: Number = field(0.0, high=1)
    scale: Number = field(10.0, low=0)
    kl: Literal["sampled", "analytic"] = "sampled"

    def bound(self, particles: Particles) -> Tensor:
        """The ELBO of each row with its KL weighed, less the cost of the distance, (N,)."""
        alpha, scale = self.value_of("alpha"), self.value_of("scale")
        return self.elbo(particles.scale_kl(1 - alpha)) - (alpha + scale - 1) * self._distance(particles)

    def extra_terms(self, particles: Particles) -> dict[str, Tensor]:
        """The squared discrepancy, by draws from the prior of its own."""
        return {"mmd": self._distance(particles)}

    def _distance(self, particles: Particles) -> Tensor:
        latent = self.latent(particles)
        prior: Any = latent.prior
        if len(latent.value) < 2:
            return torch.zeros_like(particles.log_likelihood[0, 0])
        return mmd2(latent.value, prior.rsample() if prior.has_rsample else prior.sample())


@dataclass(frozen=True)
class DIP(AggregateObjective):
    r"""Disentangled inferred prior: the ELBO less how far the aggregate posterior's covariance is from the identity.

    $$ \mathcal{L} - \lambda_{od} \sum_{i \ne j} C_{ij}^2 - \lambda_d \sum_i (C_{ii} - 1)^2, \qquad
       C = \mathrm{Cov}_x[E_q z] \;\text{("means")} \quad\text{or}\quad
       \mathrm{Cov}_x[E_q z] + E_x[\mathrm{Var}_q z] \;\text{("draws")} $$

    DIP-VAE-I and -II: the covariance of the guide's means, or of its draws, over the batch. The history records the
    penalty as "covariance".

    References:
        Kumar, Sattigeri and Balakrishnan, Variational Inference of Disentangled Latent Concepts, 2018,
        https://arxiv.org/abs/1711.00848.

    Args:
        of: whose covariance, "draws" (II) or "means" (I).
        off_diagonal: lambda_od, a number or a schedule.
        diagonal: lambda_d, likewise; ten times lambda_od is usual for the means.
        kl: "sampled" or "analytic", as for `ELBO`.

    Raises:
        InputError: a guide without mean and variance in closed form.

    >>> DIP("means", off_diagonal=10, diagonal=100).of
    'means'
    """

    of: Literal["draws", "means"] = "draws"
    off_diagonal: Number = field(10.0, low=0)
    diagonal: Number = field(10.0, low=0)
    kl: Literal["sampled", "analytic"] = "sampled"

    def bound(self, particles: Particles) -> Tensor:
        """The ELBO of each row less the batch's penalty, (N,)."""
        return self.elbo(particles) - self._penalty(particles)

    def extra_terms(self, particles: Particles) -> dict[str, Tensor]:
        """The penalty."""
        return {"covariance": self._penalty(particles)}

    def _penalty(self, particles: Particles) -> Tensor:
        posterior: Any = self.latent(particles).posterior
        try:
            mean = posterior.mean
            covariance = torch.einsum("ni,nj->ij", mean - mean.mean(0), mean - mean.mean(0)) / len(mean)
            if self.of == "draws":
                within = getattr(posterior, "covariance_matrix", None)
                covariance = covariance + (posterior.variance.mean(0).diag() if within is None else within.mean(0))
        except NotImplementedError:
            raise InputError(
                f"DIP needs mean and variance of the guide in closed form, and {name_of(posterior)} has none: take a "
                "guide that has, such as pv.Normal()."
            ) from None
        diagonal = covariance.diagonal()
        off = covariance - diagonal.diag()
        return (
            self.value_of("off_diagonal") * off.square().sum()
            + self.value_of("diagonal") * (diagonal - 1).square().sum()
        )


def _pairs(latent: Latent, objective: str) -> Tensor:
    """The log-density of each latent of each draw given each row, (N, N, D): [n, m] is draw n given row m."""
    posterior = latent.posterior
    if not (isinstance(posterior, Independent) and posterior.reinterpreted_batch_ndims == 1):
        raise InputError(
            f"{objective} needs the density of each latent by itself, and {name_of(posterior)} as a guide does not "
            "factorise: take one with independent elements, such as guide=pv.Normal()."
        )
    pairs: Tensor = posterior.base_dist.log_prob(latent.value.unsqueeze(1))
    return pairs
