"""Latents: how the guide uses them, and how far their aggregate is from the prior."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.vae import VAE

ROWS = 2000
"""Rows at most in an aggregate: the cost grows with their square."""


@dataclass(frozen=True)
class AggregateKL:
    r"""The KL of the ELBO, taken apart.

    $$ E_x KL(q(z|x) \| p(z)) = I_q(x; z) + KL(q(z) \| p(z)), \qquad q(z) = \frac1N \sum_n q(z \mid x_n) $$

    References:
        Hoffman and Johnson, ELBO surgery, 2016.

    Args:
        mean: the mean KL per row, in nats.
        information: the mutual information of row number and latent, in nats; at most log N.
        aggregate: the KL from the aggregate posterior of these rows to the prior, in nats.
        rows: the number N of rows.
    """

    mean: float
    information: float
    aggregate: float
    rows: int

    @property
    def saturated(self) -> bool:
        """Whether so few rows tell each latent's row apart: then more rows would lower `aggregate`."""
        return self.information > 0.9 * math.log(self.rows)


@torch.no_grad()
def aggregate_kl(vae: VAE, x: Tensor, **given: Tensor) -> AggregateKL:
    """Take the mean KL of some rows apart, by Monte Carlo with one draw per row.

    Args:
        vae: the model.
        x: rows (N, *event_shape); the first 2,000 are used.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The terms; they add up exactly, for they share their draws.
    """
    posterior = vae.encode(x[:ROWS], **{name: value[:ROWS] for name, value in given.items()})
    z = posterior.sample()
    count = len(z)
    log_prior = vae.prior().log_prob(z)
    own = posterior.log_prob(z)
    chunks = [posterior.expand((len(part), count)).log_prob(part.unsqueeze(1)) for part in z.split(250)]
    log_aggregate = torch.cat([chunk.logsumexp(1) for chunk in chunks]) - math.log(count)
    return AggregateKL(
        mean=float((own - log_prior).mean()),
        information=float((own - log_aggregate).mean()),
        aggregate=float((log_aggregate - log_prior).mean()),
        rows=count,
    )


@torch.no_grad()
def spread_of_means(vae: VAE, x: Tensor, *, draws: int = 64, **given: Tensor) -> Tensor:
    """Estimate the variance over rows of each latent's posterior mean, Var_x E[z|x], without bias.

    Args:
        vae: the model.
        x: rows (N, *event_shape); the first 2,000 are used.
        draws: draws per row behind each mean.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        Variances (D,); around 0, and perhaps below it, where the means do not vary.
    """
    z = vae.encode(x[:ROWS], **{name: value[:ROWS] for name, value in given.items()}).sample((draws,))
    noise = z.var(0).mean(0) / draws * (1 - 1 / z.shape[1])  # what the error of the means adds to their variance
    return z.mean(0).var(0, correction=0) - noise
