r"""Objectives that decompose the KL, or add a penalty on the aggregate posterior q(z) of a batch.

$$ E_x KL(q(z|x) \,\|\, p(z)) = \underbrace{I_q(x; z)}_{\text{information}}
   + \underbrace{KL(q(z) \,\|\, \textstyle\prod_j q(z_j))}_{\text{total correlation}}
   + \underbrace{\textstyle\sum_j KL(q(z_j) \,\|\, p(z_j))}_{\text{dimension-wise}}, \qquad
   q(z) = \frac1N \sum_n q(z \mid x_n) $$

Each needs one particle per row and one latent site, since rows are compared. A term of the batch is subtracted from
every row alike.
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
from pyro_vae.distributions.wrappers import distribution_name
from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.particles import Latent, Particles
from pyro_vae.schedules import Number


class AggregateObjective(Objective):
    """Base class of objectives that compare the rows of a batch."""

    particles: int = 1
    is_evidence_bound = False

    def latent(self, particles: Particles) -> Latent:
        """The only latent site, with draws (N, D).

        Raises:
            InputError: there are several sites, or its draws are not one vector per row.
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
    r"""The ELBO with a weight for each part of its KL: beta total correlation (and the ELBO itself at weights 1).

    $$ E_q \log p(x|z) - \alpha\, I_q(x; z) - \beta\, TC - \gamma \sum_j KL(q(z_j) \,\|\, p(z_j)) $$

    The densities of the aggregate posterior are estimated from a batch of B rows, where $z_n$ was drawn given row n:

    - "weighted": $q(z_n) \approx \frac{1}{NB} \sum_m q(z_n | x_m)$, a lower bound (Chen et al., appendix C.1), so that
      information and total correlation are overestimated;
    - "stratified": $q(z_n) \approx \frac1N q(z_n | x_n) + \frac{N - 1}{N (B - 1)} \sum_{m \ne n} q(z_n | x_m)$,
      unbiased; all other rows have the same weight, where Chen et al. (appendix C.2) give one of them another.

    The history records "information", "total_correlation" and "dimensionwise_kl", by these estimates.

    References:
        Chen, Li, Grosse and Duvenaud, Isolating Sources of Disentanglement in VAEs, 2018 [chen2018],
            https://arxiv.org/abs/1802.04942.
        Kim and Mnih, Disentangling by Factorising, 2018 [kim2018a], https://arxiv.org/abs/1802.05983.

    Args:
        beta: the weight of the total correlation, a number or a schedule.
        alpha: the weight of the information, a number or a schedule.
        gamma: the weight of the dimension-wise KL, a number or a schedule.
        sampling: the estimator of the aggregate posterior.
        rows: the number N of training rows; `fit` sets it.

    Raises:
        InputError: a guide that does not factorise over latents, or no N.

    >>> BetaTC(beta=6)
    BetaTC(beta=6.0, alpha=1.0, gamma=1.0, sampling='stratified', rows=None)
    """

    beta: Number = field(6.0, low=0)
    alpha: Number = field(1.0, low=0)
    gamma: Number = field(1.0, low=0)
    sampling: Literal["stratified", "weighted"] = "stratified"
    rows: int | None = field(None, low=1)

    def bound(self, particles: Particles) -> Tensor:
        """Log-likelihood of each row minus the weighted parts of its KL, (N,), in nats."""
        parts = self.parts_of_kl(particles)
        weights = {"information": "alpha", "total_correlation": "beta", "dimensionwise_kl": "gamma"}
        cost = sum((self.value_of(weight) * parts[name] for name, weight in weights.items()), torch.zeros(()))
        return particles.log_likelihood[0] - cost

    def extra_terms(self, particles: Particles) -> dict[str, Tensor]:
        """Means of the three parts of the KL over rows, scalars in nats."""
        return {name: part.mean() for name, part in self.parts_of_kl(particles).items()}

    def parts_of_kl(self, particles: Particles) -> dict[str, Tensor]:
        """The three parts of the KL of each row, (N,), in nats; they add up to its sampled KL."""
        latent = self.latent(particles)
        posterior = latent.posterior
        if not (isinstance(posterior, Independent) and posterior.reinterpreted_batch_ndims == 1):
            raise InputError(
                f"{type(self).__name__} needs the density of each latent by itself, and {distribution_name(posterior)} "
                "as a guide does not factorise: take one with independent elements, such as guide=pv.Normal()."
            )
        each = posterior.base_dist.log_prob(latent.value.unsqueeze(1))  # (N, N, D): [n, m] is of draw n given row m
        weights = self._log_weights(len(each)).to(each)
        joint = torch.logsumexp(each.sum(-1) + weights, 1)
        product = torch.logsumexp(each + weights.unsqueeze(-1), 1).sum(-1)
        return {
            "information": latent.log_posterior[0] - joint,
            "total_correlation": joint - product,
            "dimensionwise_kl": product - latent.log_prior[0],
        }

    def _log_weights(self, batch: int) -> Tensor:
        """Log weight of the density given row m in the aggregate at the draw of row n, (B, B)."""
        if self.rows is None:
            raise InputError(
                "BetaTC needs the number of training rows, which pv.fit sets: for Pyro's SVI give it, as in "
                "BetaTC(rows=60000)."
            )
        count = max(self.rows, batch)
        if self.sampling == "weighted":
            return torch.full((batch, batch), -math.log(count * batch), dtype=torch.float64)
        others = (count - 1) / (count * max(batch - 1, 1))
        return torch.full((batch, batch), others, dtype=torch.float64).fill_diagonal_(1 / count).log()


@dataclass(frozen=True)
class InfoVAE(AggregateObjective):
    r"""The ELBO with less weight on its KL and a penalty on the distance of the aggregate posterior from the prior.

    $$ E_q \log p(x|z) - (1 - \alpha)\, KL(q(z|x) \,\|\, p(z)) - (\alpha + \lambda - 1)\, \mathrm{MMD}^2(q(z), p(z)) $$

    With alpha = 1 there is no KL: the MMD-VAE, or a Wasserstein autoencoder with a random encoder. The discrepancy is
    `pyro_vae.distributions.mmd.mmd2`, between one draw per row from guide and prior; the history records it as "mmd".

    References:
        Zhao, Song and Ermon, InfoVAE, 2019 [zhao2019], https://arxiv.org/abs/1706.02262.
        Tolstikhin et al., Wasserstein Auto-Encoders, 2018 [tolstikhin2018], https://arxiv.org/abs/1711.01558.

    Args:
        alpha: the share of the information between x and z that costs nothing, a number or a schedule.
        scale: lambda, the weight of the discrepancy, a number or a schedule; 10 for MNIST in Tolstikhin et al.
        kl: "sampled" or "analytic", as for `ELBO`.

    >>> InfoVAE(alpha=1)
    InfoVAE(alpha=1.0, scale=10.0, kl='sampled')
    """

    alpha: Number = field(0.0, high=1)
    scale: Number = field(10.0, low=0)
    kl: Literal["sampled", "analytic"] = "sampled"

    def bound(self, particles: Particles) -> Tensor:
        """ELBO of each row with its KL weighted, minus the weighted discrepancy, (N,), in nats."""
        alpha, scale = self.value_of("alpha"), self.value_of("scale")
        return self.elbo(particles.scale_kl(1 - alpha)) - (alpha + scale - 1) * self._distance(particles)

    def extra_terms(self, particles: Particles) -> dict[str, Tensor]:
        """Squared maximum mean discrepancy, by its own draws from the prior, a scalar."""
        return {"mmd": self._distance(particles)}

    def _distance(self, particles: Particles) -> Tensor:
        latent = self.latent(particles)
        prior: Any = latent.prior
        if len(latent.value) < 2:
            return torch.zeros_like(particles.log_likelihood[0, 0])
        return mmd2(latent.value, prior.rsample() if prior.has_rsample else prior.sample())


@dataclass(frozen=True)
class DIP(AggregateObjective):
    r"""Disentangled inferred prior: the ELBO minus the distance of the aggregate posterior's covariance from identity.

    $$ \mathcal{L} - \lambda_{od} \sum_{i \ne j} C_{ij}^2 - \lambda_d \sum_i (C_{ii} - 1)^2, \qquad
       C = \mathrm{Cov}_x[E_q z] \;\text{("means")} \quad\text{or}\quad
       \mathrm{Cov}_x[E_q z] + E_x[\mathrm{Var}_q z] \;\text{("draws")} $$

    DIP-VAE-I takes the covariance of the guide's means over the batch, DIP-VAE-II that of its draws. The history
    records the penalty as "covariance".

    References:
        Kumar, Sattigeri and Balakrishnan, Variational Inference of Disentangled Latent Concepts, 2018 [kumar2018],
            https://arxiv.org/abs/1711.00848.

    Args:
        of: what the covariance is of, "draws" (II) or "means" (I).
        off_diagonal: lambda_od, a number or a schedule.
        diagonal: lambda_d, a number or a schedule; ten times lambda_od is usual for the means.
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
        """ELBO of each row minus the penalty of the batch, (N,), in nats."""
        return self.elbo(particles) - self._penalty(particles)

    def extra_terms(self, particles: Particles) -> dict[str, Tensor]:
        """Penalty on the covariance, a scalar."""
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
                f"DIP needs mean and variance of the guide in closed form, and {distribution_name(posterior)} has "
                "none: take a guide with both, such as pv.Normal()."
            ) from None
        diagonal = covariance.diagonal()
        off = covariance - diagonal.diag()
        return (
            self.value_of("off_diagonal") * off.square().sum()
            + self.value_of("diagonal") * (diagonal - 1).square().sum()
        )
