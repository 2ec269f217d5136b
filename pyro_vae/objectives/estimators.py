r"""Estimators of the gradient of a bound, from the weights and the draws of the particles.

A bound $L(\log w_1, \dots, \log w_K)$ of $\log w_k = \log p_\theta(x, z_k) - \log q_\phi(z_k \mid x)$, with
$z_k = z(\epsilon_k, \phi)$, $a_k = \partial L / \partial \log w_k$ and $b_k = \partial^2 L / \partial (\log w_k)^2$,
has the gradients

$$ \nabla_\theta: \sum_k a_k \nabla_\theta \log p_\theta(x, z_k), \qquad
   \nabla_\phi: \sum_k c_k \frac{\partial \log w_k}{\partial z_k} \frac{d z_k}{d \phi}
              - \sum_k d_k \nabla_\phi \log q_\phi(z_k \mid x) $$

The score $\nabla_\phi \log q$ weighted by $a_k$ equals in expectation the path weighted by $b_k$. So all three are
unbiased for the same gradient, except for "stl" where $b_k$ is not 0:

| | path c | score d |
|---|---|---|
| "plain" | a | a |
| "stl", sticking the landing | a | 0 |
| "dreg", doubly reparameterised | a - b | 0 |
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from pyro_vae.objectives.particles import Particles

Estimator: TypeAlias = Literal["plain", "stl", "dreg"]

NEAR = 0.1
"""Below this distance of an order from 1, a power mean is computed relative to the arithmetic one."""


@dataclass(frozen=True)
class WeightedBound:
    """A bound as a function of log weights (K, N), and its derivatives to them.

    Args:
        bound: L of each row, (N,), in nats, differentiable.
        first: a, its derivative with respect to each log weight, (K, N), without gradient; it sums to 1 over particles.
        second: b, its second derivative with respect to each log weight, (K, N), without gradient.
    """

    bound: Tensor
    first: Tensor
    second: Tensor

    def lerp(self, other: "WeightedBound", weight: float | Tensor) -> "WeightedBound":
        """Linear interpolation: (1 - weight) times this bound plus weight times the other."""
        pairs = ((self.bound, other.bound), (self.first, other.first), (self.second, other.second))
        return WeightedBound(*((1 - weight) * mine + weight * theirs for mine, theirs in pairs))


def power_mean(log_weights: Tensor, alpha: float, groups: int = 1) -> WeightedBound:
    r"""Rényi bound of order alpha: the log of a power mean of the weights, averaged over groups of particles.

    $$ L = \frac{1}{1 - \alpha} \log \frac1K \sum_k w_k^{1 - \alpha}, \qquad
       a_k = \frac{w_k^{1 - \alpha}}{\sum_j w_j^{1 - \alpha}}, \qquad b_k = (1 - \alpha)(a_k - a_k^2) $$

    with its limit, the mean of $\log w$, at $\alpha = 1$.

    Args:
        log_weights: log w, (K, N), in nats.
        alpha: the order.
        groups: number of consecutive groups of equal size into which the particles are divided.
    """
    count, power = len(log_weights), 1 - alpha
    grouped = log_weights.reshape(groups, count // groups, -1)
    with torch.no_grad():
        within = torch.softmax(power * grouped, 1)
        first = (within / groups).reshape(log_weights.shape)
        second = (power * (within - within.square()) / groups).reshape(log_weights.shape)
    if power == 0:
        bound = grouped.mean(1)
    elif abs(power) >= NEAR:
        bound = (torch.logsumexp(power * grouped, 1) - math.log(count // groups)) / power
    else:  # log K would cancel against the sum; relative to the largest term there is no cancellation or overflow
        extreme = (grouped.amax(1) if power > 0 else grouped.amin(1)).detach()
        bound = extreme + torch.expm1(power * (grouped - extreme.unsqueeze(1))).mean(1).log1p() / power
    return WeightedBound(bound.mean(0), first, second)


def estimate(
    particles: Particles, estimator: Estimator, model: WeightedBound, guide: WeightedBound | None = None
) -> Tensor:
    """Bound of each row, (N,), in nats, whose gradient is that of the estimator.

    Args:
        particles: drawn by `draw_detached_score`, unless the estimator is "plain" and `guide` is None.
        estimator: its name.
        model: the bound that is returned, and whose gradient the model's parameters get.
        guide: the bound whose gradient the guide's parameters get; None for the same.
    """
    if estimator == "plain" and guide is None:
        return model.bound
    value = model.bound.detach()
    if not torch.is_grad_enabled():
        return value
    of_guide = guide or model
    path = of_guide.first - of_guide.second if estimator == "dreg" else of_guide.first
    log_joint, log_posterior = particles.log_joint, particles.log_posterior
    surrogate = model.first * log_joint
    through = torch.zeros_like(value)
    if path is not model.first:  # a second backward pass through log p(x, z), whose weight along the path differs
        through = through + ((path - model.first) * log_joint).sum(0)
    if estimator == "plain":
        surrogate = surrogate - path * log_posterior
    else:
        through = through - (path * log_posterior).sum(0)
    total = surrogate.sum(0) + particles.path_gradient(through)
    return value + (total - total.detach())
