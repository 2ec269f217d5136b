"""The evidence lower bound, and variants that weight, threshold or target its KL."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.estimators import Estimator, estimate, power_mean
from pyro_vae.objectives.particles import Latent, Particles
from pyro_vae.schedules import Linear, Number


@dataclass(frozen=True)
class ELBO(Objective):
    r"""The evidence lower bound, by Monte Carlo or with a KL in closed form.

    $$ \log p(x) \ge E_q[\log p(x \mid z)] - KL(q(z \mid x) \,\|\, p(z))
       \approx \frac1K \sum_k \log p(x, z_k) - \log q(z_k \mid x), \qquad z_k \sim q(z \mid x) $$

    Value and gradient equal those of Pyro's `Trace_ELBO` (`kl="sampled"`) and `TraceMeanField_ELBO`
    (`kl="analytic"`) for the same draws of a reparameterised guide. The estimator "stl" omits the score of the guide,
    whose mean is 0: its variance vanishes as the guide approaches the posterior. "dreg" is the same here.

    With `beta` and `free_bits` it is $E_q \log p(x|z) - \beta \sum_g \max(\lambda, KL_g)$, with lambda nats at no
    cost in each group g of latents. With beta other than 1 it is not the ELBO of the declared model. Where a Gaussian
    likelihood learns its scale s, beta is usually not needed: a fixed s under beta has the optima of a scale
    $s \sqrt\beta$ under beta = 1, and the learned s is the one of highest likelihood (sigma-VAE).

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014 [kingma2014], https://arxiv.org/abs/1312.6114.
        Higgins et al., beta-VAE, 2017 [higgins2017], https://openreview.net/forum?id=Sy2fzU9gl.
        Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016 [kingma2016] (free
            bits), https://arxiv.org/abs/1606.04934.
        Rybkin, Daniilidis and Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021 [rybkin2021]
            (sigma-VAE), https://arxiv.org/abs/2006.13202.
        Roeder, Wu and Duvenaud, Sticking the Landing, 2017 [roeder2017], https://arxiv.org/abs/1703.09194.

    Args:
        particles: the number K of draws per row.
        kl: "sampled", or "analytic" where torch or Pyro have a closed form for the pair; there is no silent fallback.
        estimator: of the gradient, "plain", "stl" or "dreg".
        beta: the weight of the KL, a number or a schedule.
        free_bits: lambda, the nats per group that cost nothing: a group's KL, averaged over the batch, has no gradient
            below lambda; a number or a schedule.
        groups: number of groups of equal size into which the latents are divided, in their order; None for one latent
            each. It has to be 1 where prior or guide does not factorise over latents.

    Raises:
        InputError: an option out of range; "analytic" for a pair without a closed form, or with another estimator than
            "plain"; free bits with another estimator than "plain".

    >>> ELBO(particles=5).estimator
    'plain'
    >>> from pyro_vae.schedules import Linear
    >>> ELBO(beta=Linear(0, 1, epochs=10), free_bits=0.1).beta
    Linear(start=0.0, end=1.0, epochs=10.0)
    """

    particles: int = field(1, low=1)
    kl: Literal["sampled", "analytic"] = "sampled"
    estimator: Estimator = "plain"
    beta: Number = field(1.0, low=0)
    free_bits: Number = field(0.0, low=0)
    groups: int | None = field(None, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separates_score and (self.analytic or self._has_free_bits):
            other = "kl='analytic' does not sample it" if self.analytic else "free bits truncate it"
            raise InputError(
                f"ELBO.estimator = {self.estimator!r} is about the sampled log q(z|x), and {other}: leave one of "
                "the two out."
            )

    @property
    def is_evidence_bound(self) -> bool:
        """Whether it is the ELBO itself: beta is 1, and no bits are free."""
        return self.beta == 1 and not self._has_free_bits

    @property
    def _has_free_bits(self) -> bool:
        return isinstance(self.free_bits, Tensor) or self.free_bits != 0

    def bound(self, particles: Particles) -> Tensor:
        """ELBO of each row with its KL weighted and thresholded, (N,), in nats."""
        if self._has_free_bits:
            return particles.log_likelihood.mean(0) - self.value_of("beta") * self._above_free_bits(particles)
        beta = self.value_of("beta")
        if isinstance(beta, Tensor) or beta != 1:
            particles = particles.scale_kl(beta)
        if not self.separates_score:
            return self.elbo(particles)
        return estimate(particles, self.estimator, power_mean(particles.log_weights, 1))

    def _above_free_bits(self, particles: Particles) -> Tensor:
        """Mean KL of the batch, each group's clamped from below at its free nats: a scalar."""
        total = torch.zeros_like(particles.log_likelihood[0, 0])
        for name, latent in particles.latents.items():
            if self.groups == 1:
                kl = latent.kl(name) if self.analytic else latent.log_posterior - latent.log_prior
                by_group = kl.mean()
            else:
                by_group = self._by_group(name, latent)
            total = total + by_group.clamp(min=self.value_of("free_bits")).sum()
        return total

    def _by_group(self, name: str, latent: Latent) -> Tensor:
        split = latent.kl_per_dimension(analytic=self.analytic)
        if split is None:
            raise InputError(
                f"the KL at site {name!r} is not a sum over latents, since prior or guide does not factorise, so free "
                "bits of each latent are not defined: take groups=1, free bits for all of them together."
            )
        groups = self.groups or split.numel()
        if split.numel() % groups:
            raise InputError(
                f"ELBO.groups = {groups} does not divide the {split.numel()} latents at site {name!r} into groups of "
                "equal size."
            )
        return split.reshape(groups, -1).sum(1)


@dataclass(frozen=True)
class Capacity(Objective):
    r"""The ELBO with a penalty on the distance of its KL from a capacity: controlled capacity increase.

    $$ E_q \log p(x \mid z) - \gamma \, \big| \overline{KL} - C \big| $$

    with the KL averaged over the batch. It is not a bound on log p(x). The capacity C usually grows with the epochs.

    References:
        Burgess et al., Understanding Disentangling in beta-VAE, 2018 [burgess2018], https://arxiv.org/abs/1804.03599.

    Args:
        capacity: C, in nats per row, a number or a schedule.
        gamma: the weight of the distance of the KL from C, a number or a schedule.
        particles: the number K of draws per row.
        kl: "sampled" or "analytic", as for `ELBO`.

    >>> Capacity(capacity=5, gamma=10)
    Capacity(capacity=5.0, gamma=10.0, particles=1, kl='sampled')
    """

    capacity: Number = Linear(0, 25, epochs=20)
    gamma: Number = field(100.0, low=0)
    particles: int = field(1, low=1)
    kl: Literal["sampled", "analytic"] = "sampled"
    is_evidence_bound = False

    def bound(self, particles: Particles) -> Tensor:
        """Log-likelihood of each row minus the penalty of the batch, (N,), in nats."""
        log_likelihood = particles.log_likelihood.mean(0)
        kl = self.kl_of(particles).mean()
        return log_likelihood - self.value_of("gamma") * (kl - self.value_of("capacity")).abs()
