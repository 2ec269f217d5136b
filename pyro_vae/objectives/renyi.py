"""Variational Rényi bounds."""

from dataclasses import dataclass

from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.objectives.estimators import Estimator, WeightedBound, power_mean
from pyro_vae.objectives.importance import ImportanceObjective
from pyro_vae.schedules import Number


@dataclass(frozen=True)
class Renyi(ImportanceObjective):
    r"""The variational Rényi bound of order alpha, from K particles.

    $$ L_\alpha = \frac{1}{1 - \alpha} \log E_q\Big[\Big(\frac{p(x, z)}{q(z \mid x)}\Big)^{1 - \alpha}\Big]
       \approx \frac{1}{1 - \alpha} \log \frac1K \sum_k w_k^{1 - \alpha} $$

    $L_\alpha = \log p(x) - D_\alpha(q(z \mid x) \,\|\, p(z \mid x))$ decreases in alpha: the limit at 1 is the `ELBO`,
    at 0 it is the evidence, where K particles give `IWAE`, and for negative orders it exceeds the evidence. With few
    particles its estimate is biased towards the ELBO. Value and plain gradient equal those of Pyro's
    `RenyiELBO`; "stl" is biased for K > 1, unless alpha is 1.

    References:
        Li and Turner, Rényi Divergence Variational Inference, 2016, https://arxiv.org/abs/1602.02311.

    Args:
        alpha: the order, a number or a schedule.
        particles: the number K of draws per row.
        estimator: of the gradient, "plain", "stl" or "dreg".

    >>> Renyi(alpha=0.5, particles=10)
    Renyi(alpha=0.5, particles=10, estimator='plain')
    """

    alpha: Number = 0.5
    particles: int = field(5, low=1)
    estimator: Estimator = "plain"

    def combine(self, log_weights: Tensor) -> WeightedBound:
        """Log of the power mean of the weights, of each row."""
        return power_mean(log_weights, float(self.value_of("alpha")))
