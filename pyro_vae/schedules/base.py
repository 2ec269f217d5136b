"""A schedule: a hyperparameter as a function of the epoch.

Wherever an objective takes a `Number`, a schedule may replace it: `ELBO(beta=Linear(0, 1, epochs=10))`. An adaptive
schedule depends on the terms of past steps too, through a state; it is a tensor, so that a training step has no host
sync and a checkpoint can hold it.
"""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor

from pyro_vae.core.config import Config


class Schedule(Config, ABC):
    """Base class of schedules: a subclass declares its options as dataclass fields and defines `value`."""

    @abstractmethod
    def value(self, epoch: float, state: Tensor) -> float | Tensor:
        """Value of the hyperparameter after some epochs of training.

        Args:
            epoch: number of epochs done, with fractions.
            state: the state of an adaptive schedule.
        """

    def init_state(self) -> Tensor:
        """State before the first step; empty unless the schedule is adaptive."""
        return torch.zeros(0)

    @property
    def is_adaptive(self) -> bool:
        """Whether it depends on the terms of past steps, and not on the epoch alone."""
        return self.init_state().numel() > 0

    def update(self, state: Tensor, log_likelihood: Tensor, kl: Tensor) -> None:
        """Change `state` in place after a step.

        Args:
            state: the state, with its values after the step before.
            log_likelihood: E_q log p(x|z) of the step's rows, a scalar in nats per row.
            kl: KL(q(z|x) || p(z)) of these rows, a scalar in nats per row.
        """


Number: TypeAlias = float | Schedule
"""A hyperparameter: a number, or a schedule of it."""
