"""A schedule: a number that changes as training goes on.

Wherever an objective takes a `Number`, a schedule may stand for it: `ELBO(beta=Linear(0, 1, epochs=10))`. It follows
the clock, in epochs, and may follow what was observed; then it remembers in a tensor, so that a training step waits for
nothing and a checkpoint can hold it.
"""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor

from pyro_vae.core.config import Config


class Schedule(Config, ABC):
    """Base of every schedule: declare its options as dataclass fields and write `value`."""

    @abstractmethod
    def value(self, epoch: float, state: Tensor) -> float | Tensor:
        """The number after some epochs of training.

        Args:
            epoch: epochs done; parts of them count.
            state: what was remembered.
        """

    def init_state(self) -> Tensor:
        """What is remembered before the first step; nothing, where time is all that counts."""
        return torch.zeros(0)

    @property
    def is_adaptive(self) -> bool:
        """Whether it follows more than the clock."""
        return self.init_state().numel() > 0

    def update(self, state: Tensor, log_likelihood: Tensor, kl: Tensor) -> None:
        """Change `state` in place after a step.

        Args:
            state: what is remembered.
            log_likelihood: E_q log p(x|z) of the step's rows, a scalar in nats per row.
            kl: KL(q(z|x) || p(z)) of these rows, a scalar in nats per row.
        """


Number: TypeAlias = float | Schedule
"""A hyperparameter: a number, or a schedule of it."""
