"""An adaptive schedule: the weight of the KL that holds the rate, or the distortion, at a target."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.schedules.base import Schedule

MAX_LOG_WEIGHT = 14.0
"""Largest absolute log of the weight, reached where a constraint cannot be met; e^14 is 1.2 million."""


@dataclass(frozen=True)
class GECO(Schedule):
    r"""A Lagrange multiplier as the weight of the KL: generalised ELBO with constrained optimisation.

    The rate is $R = KL(q(z|x) \,\|\, p(z))$, the distortion $D = -E_q \log p(x|z)$, and training solves

    $$ \min D \;\text{ subject to }\; R \le R^* \qquad\text{or}\qquad \min R \;\text{ subject to }\; D \le D^* $$

    by $\log\beta \leftarrow \log\beta + \eta\, c$, where c is the excess of a moving average over its target, in nats
    per row, clamped to [-1, 1]. For a distortion target the sign is negative, since $\beta$ is one over the multiplier.

    References:
        Rezende and Viola, Taming VAEs, 2018 [rezende2018], https://arxiv.org/abs/1810.00597.
        Alemi et al., Fixing a Broken ELBO, 2018 [alemi2018], https://arxiv.org/abs/1711.00464.

    Args:
        rate: the target of the KL, in nats per row; or
        distortion: the target of minus the log-likelihood, in nats per row.
        speed: eta, the largest change of log beta per step.
        average: the decay of the moving average per step, in [0, 1).

    Raises:
        InputError: not exactly one target.

    >>> GECO(rate=5)
    GECO(rate=5.0, distortion=None, speed=0.01, average=0.9)
    """

    rate: float | None = field(None, low=0)
    distortion: float | None = None
    speed: float = field(0.01, low=1e-9, high=1)
    average: float = field(0.9, low=0, high=1 - 1e-9)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.rate is None) == (self.distortion is None):
            raise InputError(
                f"{self!r} needs one target: the rate (KL) or the distortion (minus log-likelihood), in nats per row, "
                "as in GECO(rate=5)."
            )

    def init_state(self) -> Tensor:
        """State before the first step, (3,): log beta, the moving average, and the sum of its weights."""
        return torch.zeros(3)

    def value(self, epoch: float, state: Tensor) -> Tensor:
        """Beta, a scalar tensor."""
        return state[0].exp()

    def update(self, state: Tensor, log_likelihood: Tensor, kl: Tensor) -> None:
        """Change log beta in place by the excess over the target."""
        if self.rate is not None:
            seen, target, sign = kl, self.rate, 1.0
        else:
            seen, target, sign = -log_likelihood, self.distortion or 0.0, -1.0
        state[1:].mul_(self.average).add_((1 - self.average) * torch.stack((seen, torch.ones_like(seen))).to(state))
        excess = (state[1] / state[2] - target).clamp(-1, 1)
        state[0].add_(sign * self.speed * excess).clamp_(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT)
