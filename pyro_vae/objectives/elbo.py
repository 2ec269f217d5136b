"""The evidence lower bound."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pyro_vae.declared import option
from pyro_vae.errors import InputError
from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.estimators import Estimator, estimate, power_mean
from pyro_vae.objectives.particles import Particles


@dataclass(frozen=True)
class ELBO(Objective):
    r"""The evidence lower bound, by Monte Carlo or with a KL in closed form.

    $$ \log p(x) \ge E_q[\log p(x \mid z)] - KL(q(z \mid x) \,\|\, p(z))
       \approx \frac1K \sum_k \log p(x, z_k) - \log q(z_k \mid x), \qquad z_k \sim q(z \mid x) $$

    Value and gradient equal those of Pyro's `Trace_ELBO` (`kl="sampled"`) and `TraceMeanField_ELBO`
    (`kl="analytic"`) for the same draws of a reparameterised guide. The estimator "stl" leaves out the score of the
    guide, whose mean is 0: its noise vanishes as the guide nears the posterior. "dreg" is the same here.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114.
        Roeder, Wu and Duvenaud, Sticking the Landing, 2017, https://arxiv.org/abs/1703.09194.

    Args:
        particles: the number K of draws per row.
        kl: "sampled", or "analytic" where torch or Pyro register the pair; no silent fallback.
        estimator: of the gradient, "plain", "stl" or "dreg".

    Raises:
        InputError: fewer than one particle; "analytic" for a pair without a closed form, or with another estimator
            than "plain".

    >>> ELBO(particles=5)
    ELBO(particles=5, kl='sampled', estimator='plain')
    """

    particles: int = option(1, low=1)
    kl: Literal["sampled", "analytic"] = "sampled"
    estimator: Estimator = "plain"

    def __post_init__(self) -> None:
        """Check that there is a score to leave out."""
        super().__post_init__()
        if self.analytic and self.apart:
            raise InputError(
                f"ELBO.estimator = {self.estimator!r} is about the sampled log q(z|x), and kl='analytic' takes the KL "
                "in closed form: leave one of the two out."
            )

    @property
    def analytic(self) -> bool:
        """Whether the KL is taken in closed form."""
        return self.kl == "analytic"

    def bound(self, particles: Particles) -> Tensor:
        """The ELBO of each row, (N,), in nats."""
        if not self.apart:
            return self.rows(particles)
        return estimate(particles, self.estimator, power_mean(particles.log_weights, 1))
