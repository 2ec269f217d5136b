"""Importance-weighted bounds: functions of the log weights of K particles, tighter the larger K is."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.estimators import Estimator, WeightedBound, estimate, power_mean
from pyro_vae.objectives.particles import Particles
from pyro_vae.schedules import Number


class ImportanceObjective(Objective):
    """Base class of objectives that are functions of the log weights alone: a subclass defines `combine`."""

    @abstractmethod
    def combine(self, log_weights: Tensor) -> WeightedBound:
        """Bound as a function of log weights (K, N), with its derivatives."""

    def bound(self, particles: Particles) -> Tensor:
        """Bound on log p(x) of each row, (N,), in nats."""
        return estimate(particles, self.estimator, self.combine(particles.log_weights))


@dataclass(frozen=True)
class IWAE(ImportanceObjective):
    r"""The importance-weighted bound.

    $$ \log p(x) \ge E\Big[\log \frac1K \sum_k w_k\Big], \qquad
       w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x) $$

    It does not decrease with K and tends to the evidence. The signal-to-noise ratio of the guide's plain gradient falls
    as $K^{-1/2}$; that of "dreg" rises as $K^{1/2}$: take it for many particles. "stl" is biased here for K > 1.
    Value and plain gradient equal those of Pyro's `RenyiELBO(alpha=0)`.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016 [burda2016],
            https://arxiv.org/abs/1509.00519.
        Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019 [tucker2019],
            https://arxiv.org/abs/1810.04152.

    Args:
        particles: the number K of draws per row.
        estimator: of the gradient, "plain", "stl" or "dreg".

    >>> IWAE(particles=50, estimator="dreg")
    IWAE(particles=50, estimator='dreg')
    """

    particles: int = field(5, low=1)
    estimator: Estimator = "plain"

    def combine(self, log_weights: Tensor) -> WeightedBound:
        """Log of the mean weight of each row."""
        return power_mean(log_weights, 0)


@dataclass(frozen=True)
class GroupedObjective(ImportanceObjective):
    """Base class of objectives that divide their particles into groups."""

    particles: int = field(8, low=1)
    groups: int = field(4, low=1)
    estimator: Estimator = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.particles % self.groups:
            name = type(self).__name__
            raise InputError(
                f"{name}.groups = {self.groups} does not divide {name}.particles = {self.particles} into groups of "
                f"equal size: write, for example, {name}(particles={4 * self.groups}, groups={self.groups})."
            )


@dataclass(frozen=True)
class MIWAE(GroupedObjective):
    r"""The multiply importance-weighted bound: a mean over groups of importance-weighted bounds.

    $$ \log p(x) \ge E\Big[\frac1M \sum_{m=1}^M \log \frac{M}{K} \sum_{k \in G_m} w_k\Big] $$

    for K particles in M groups $G_m$; one group is `IWAE`, groups of one are `ELBO`. Fewer particles per group give a
    looser bound and a less noisy gradient of the guide. "stl" is biased for groups of more than one.

    References:
        Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018 [rainforth2018],
            https://arxiv.org/abs/1802.04537.

    Args:
        particles: the number K of draws per row, over all groups.
        groups: the number M of groups.
        estimator: of the gradient, "plain", "stl" or "dreg".

    Raises:
        InputError: the groups do not divide the particles.

    >>> MIWAE(particles=64, groups=8)
    MIWAE(particles=64, groups=8, estimator='plain')
    """

    def combine(self, log_weights: Tensor) -> WeightedBound:
        """Mean over groups of the log of the mean weight, of each row."""
        return power_mean(log_weights, 0, self.groups)


@dataclass(frozen=True)
class PIWAE(GroupedObjective):
    r"""The partially importance-weighted objective: the model is trained by `IWAE`, the guide by `MIWAE`.

    $$ \nabla_\theta\, E\Big[\log \frac1K \sum_k w_k\Big], \qquad
       \nabla_\phi\, E\Big[\frac1M \sum_{m=1}^M \log \frac{M}{K} \sum_{k \in G_m} w_k\Big] $$

    from the same K particles in M groups $G_m$: the model has the tight bound, the guide the less noisy gradient. Its
    value is that of `IWAE`; its gradient is that of no single bound. Parameters of the guide inside the prior
    (`VampPrior`) count as the model's.

    References:
        Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018 [rainforth2018],
            https://arxiv.org/abs/1802.04537.

    Args:
        particles: the number K of draws per row, over all groups.
        groups: the number M of groups.
        estimator: of the guide's gradient, "plain", "stl" (biased for groups of more than one) or "dreg".

    Raises:
        InputError: the groups do not divide the particles.

    >>> PIWAE(particles=64, groups=8)
    PIWAE(particles=64, groups=8, estimator='plain')
    """

    separates_score = True  # the guide follows another bound than the model

    def combine(self, log_weights: Tensor) -> WeightedBound:
        """Log of the mean weight over all particles, of each row."""
        return power_mean(log_weights, 0)

    def bound(self, particles: Particles) -> Tensor:
        """IWAE bound of each row, (N,), in nats, whose gradient with respect to the guide is that of MIWAE."""
        weights = particles.log_weights
        return estimate(particles, self.estimator, self.combine(weights), power_mean(weights, 0, self.groups))


@dataclass(frozen=True)
class CIWAE(ImportanceObjective):
    r"""The combination importance-weighted bound: a mixture of `ELBO` and `IWAE`.

    $$ \log p(x) \ge E\Big[\beta\, \frac1K \sum_k \log w_k + (1 - \beta) \log \frac1K \sum_k w_k\Big] $$

    "stl" is biased for K > 1, unless beta is 1.

    References:
        Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018 [rainforth2018],
            https://arxiv.org/abs/1802.04537.

    Args:
        particles: the number K of draws per row.
        beta: the share of the ELBO, in [0, 1], a number or a schedule.
        estimator: of the gradient, "plain", "stl" or "dreg".

    >>> CIWAE(particles=5, beta=0.1).beta
    0.1
    """

    particles: int = field(5, low=1)
    beta: Number = field(0.5, low=0, high=1)
    estimator: Estimator = "plain"

    def combine(self, log_weights: Tensor) -> WeightedBound:
        """Mixture of the mean log weight and the log of the mean weight, of each row."""
        return power_mean(log_weights, 0).lerp(power_mean(log_weights, 1), self.value_of("beta"))


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
        Li and Turner, Rényi Divergence Variational Inference, 2016 [li2016], https://arxiv.org/abs/1602.02311.

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
