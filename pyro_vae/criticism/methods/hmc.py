"""Hamiltonian Monte Carlo for many chains and rows at once, on a path between two densities.

There is no host sync: a chain that becomes infinite or NaN continues from its start, and is rejected.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Density = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function of positions (K, B, D) to (b, s), (K, B) each: a path of log densities b + beta s, with beta from 0 to 1."""

JITTER = 0.2
"""Relative range of each chain's random step size, up and down, which avoids periodic orbits."""


@dataclass(frozen=True, eq=False)
class ChainState:
    """Chains at positions u (K, B, D), with b(u) and s(u), (K, B), and the gradient of b + beta s, (K, B, D)."""

    position: Tensor
    base: Tensor
    slope: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, density: Density, position: Tensor, beta: float) -> "ChainState":
        """State at some positions (K, B, D): the density and its gradient there."""
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            base, slope = density(position)
            (gradient,) = torch.autograd.grad((base + beta * slope).sum(), position)
        return cls(position.detach(), base.detach(), slope.detach(), gradient)

    def log_density(self, beta: float) -> Tensor:
        """Log density b + beta s, (K, B)."""
        return self.base + beta * self.slope


def transition(
    density: Density, position: Tensor, beta: float, step: Tensor, leapfrog: int
) -> tuple[Tensor, Tensor, Tensor]:
    r"""One Hamiltonian transition of every chain, which leaves exp(b + beta s) invariant.

    $$ p \sim N(0, I), \quad (u, p) \to (u', p') \text{ by leapfrog steps}, \quad
       P(\text{accept}) = \min\big(1, e^{H(u, p) - H(u', p')}\big), \quad H = -b(u) - \beta s(u) + p^\top p / 2 $$

    References:
        Neal, MCMC Using Hamiltonian Dynamics, 2011 [neal2011], https://arxiv.org/abs/1206.1901.

    Args:
        density: the path of densities.
        position: the positions u, (K, B, D).
        beta: the inverse temperature, in (0, 1].
        step: the step size of each row, (B,).
        leapfrog: the number of leapfrog steps.

    Returns:
        The new positions (K, B, D), s there (K, B), and the acceptance probabilities (K, B).

    >>> def normal(u: Tensor) -> tuple[Tensor, Tensor]:
    ...     return torch.zeros(u.shape[:-1]), -u.square().sum(-1) / 2
    >>> _ = torch.manual_seed(0)
    >>> u = torch.zeros(2000, 1, 1)
    >>> for _ in range(5):
    ...     u, _, _ = transition(normal, u, 1.0, torch.tensor([0.5]), 4)
    >>> round(float(u.var()), 1)
    1.0
    """
    start = here = ChainState.of(density, position, beta)
    step = (step * (1 + JITTER * (2 * torch.rand_like(start.slope) - 1))).unsqueeze(-1)
    started = momentum = torch.randn_like(position)
    finite = torch.ones_like(step, dtype=torch.bool)
    for _ in range(leapfrog):
        momentum = momentum + step / 2 * here.gradient
        ahead = here.position + step * momentum
        finite = finite & ahead.isfinite().all(-1, keepdim=True)
        here = ChainState.of(density, torch.where(finite, ahead, start.position), beta)
        momentum = momentum + step / 2 * here.gradient
    kinetic = (momentum.square() - started.square()).sum(-1) / 2
    ratio = here.log_density(beta) - start.log_density(beta) - kinetic
    acceptance = torch.where(finite.squeeze(-1), ratio.clamp(max=0).exp(), 0).nan_to_num(0)
    accepted = torch.rand_like(acceptance) < acceptance
    return (
        torch.where(accepted.unsqueeze(-1), here.position, start.position),
        torch.where(accepted, here.slope, start.slope),
        acceptance,
    )
