"""Hamiltonian Monte Carlo for many chains and rows at once, between two densities.

Nothing here waits for the device: a chain that leaves the finite numbers is carried on and rejected.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Density = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of positions (K, B, D): (b, s), each (K, B), of log densities b + beta s of a path with beta from 0 to 1."""

JITTER = 0.2
"""The share by which a chain's step size is drawn anew, up or down, so that no orbit closes on itself."""


@dataclass(frozen=True, eq=False)
class Point:
    """Where K chains of B rows are on a path of densities.

    Args:
        at: the positions u, (K, B, D).
        base: b(u), (K, B).
        slope: s(u), (K, B).
        gradient: the gradient of b + beta s, (K, B, D).
    """

    at: Tensor
    base: Tensor
    slope: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, density: Density, at: Tensor, beta: float) -> "Point":
        """Evaluate the density there, with its gradient."""
        with torch.enable_grad():
            at = at.detach().requires_grad_()
            base, slope = density(at)
            (gradient,) = torch.autograd.grad((base + beta * slope).sum(), at)
        return cls(at.detach(), base.detach(), slope.detach(), gradient)

    def log_density(self, beta: float) -> Tensor:
        """B + beta s, (K, B)."""
        return self.base + beta * self.slope


def transition(density: Density, at: Tensor, beta: float, step: Tensor, leapfrog: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Move every chain by one transition that leaves exp(b + beta s) invariant.

    $$ p \sim N(0, I), \quad (u, p) \to (u', p') \text{ by leapfrog steps}, \quad
       P(\text{accept}) = \min\big(1, e^{H(u, p) - H(u', p')}\big), \quad H = -b(u) - \beta s(u) + p^\top p / 2 $$

    References:
        Neal, MCMC Using Hamiltonian Dynamics, 2011, https://arxiv.org/abs/1206.1901.

    Args:
        density: the path of densities.
        at: the positions u, (K, B, D).
        beta: how far along the path, in (0, 1].
        step: the step size of each row, (B,).
        leapfrog: the number of leapfrog steps.

    Returns:
        The positions after it; s there, (K, B); and the probability with which each chain was to move, (K, B).

    >>> def normal(u: Tensor) -> tuple[Tensor, Tensor]:
    ...     return torch.zeros(u.shape[:-1]), -u.square().sum(-1) / 2
    >>> _ = torch.manual_seed(0)
    >>> u = torch.zeros(2000, 1, 1)
    >>> for _ in range(5):
    ...     u, _, _ = transition(normal, u, 1.0, torch.tensor([0.5]), 4)
    >>> round(float(u.var()), 1)
    1.0
    """
    start = here = Point.of(density, at, beta)
    step = (step * (1 + JITTER * (2 * torch.rand_like(start.slope) - 1))).unsqueeze(-1)
    started = momentum = torch.randn_like(at)
    finite = torch.ones_like(step, dtype=torch.bool)
    for _ in range(leapfrog):
        momentum = momentum + step / 2 * here.gradient
        ahead = here.at + step * momentum
        finite = finite & ahead.isfinite().all(-1, keepdim=True)
        here = Point.of(density, torch.where(finite, ahead, start.at), beta)
        momentum = momentum + step / 2 * here.gradient
    kinetic = (momentum.square() - started.square()).sum(-1) / 2
    ratio = here.log_density(beta) - start.log_density(beta) - kinetic
    chance = torch.where(finite.squeeze(-1), ratio.clamp(max=0).exp(), 0).nan_to_num(0)
    moved = torch.rand_like(chance) < chance
    return (
        torch.where(moved.unsqueeze(-1), here.at, start.at),
        torch.where(moved, here.slope, start.slope),
        chance,
    )
