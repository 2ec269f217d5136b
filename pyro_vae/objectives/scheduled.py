"""An objective with its schedules, the step count that they follow, and their states."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor, nn

from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.structure import Program


class ScheduledObjective(PyroELBO):
    """An objective whose hyperparameters follow their schedules: it counts training steps.

    `fit` makes one. With Pyro's `SVI` it is the loss for an objective with schedules:
    `SVI(model, guide, optim, loss=ScheduledObjective(objective, steps_per_epoch=100))`.

    Args:
        objective: the objective as declared.
        steps_per_epoch: the number of training steps per epoch.
        rows: the number of training rows, for objectives that need it; see `BetaTC`.

    >>> from pyro_vae.objectives import ELBO
    >>> from pyro_vae.schedules import Linear
    >>> scheduled = ScheduledObjective(ELBO(beta=Linear(0, 1, epochs=2)), steps_per_epoch=10)
    >>> scheduled.step = 5
    >>> scheduled.current
    ELBO(particles=1, kl='sampled', estimator='plain', beta=0.25, free_bits=0.0, groups=None)
    """

    def __init__(self, objective: Objective, steps_per_epoch: int = 1, rows: int | None = None) -> None:
        self.objective, self.steps_per_epoch = objective, steps_per_epoch
        self.schedules = objective.schedules
        self.fixed = {"rows": rows} if rows is not None and getattr(objective, "rows", 0) is None else {}
        self.step = 0
        self.state = nn.Module()
        for name, schedule in self.schedules.items():
            self.state.register_buffer(name, schedule.init_state())

    @property
    def epoch(self) -> float:
        """Number of epochs done, with fractions."""
        return self.step / self.steps_per_epoch

    @property
    def values(self) -> dict[str, float | Tensor]:
        """Present value of every schedule, by the name of its hyperparameter."""
        return {name: each.value(self.epoch, self.state.get_buffer(name)) for name, each in self.schedules.items()}

    @property
    def current(self) -> Objective:
        """Objective with the present values in place of its schedules."""
        return self.resolve(self.values)

    def resolve(self, values: Mapping[str, float | Tensor]) -> Objective:
        """Objective with these values in place of its schedules."""
        return self.objective.with_values(**values, **self.fixed)

    @property
    def is_adaptive(self) -> bool:
        """Whether a schedule depends on the terms of past steps."""
        return any(schedule.is_adaptive for schedule in self.schedules.values())

    def advance(self, log_likelihood: Tensor | None = None, kl: Tensor | None = None) -> None:
        """Count a step, and update the states of adaptive schedules.

        Args:
            log_likelihood: the mean log-likelihood of its rows, in nats; needed where a schedule is adaptive.
            kl: their mean KL, in nats.
        """
        self.step += 1
        if log_likelihood is None or kl is None:
            return
        for name, schedule in self.schedules.items():
            schedule.update(self.state.get_buffer(name), log_likelihood, kl)

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Minus the present bound, summed over rows, as a float; no step is counted."""
        return self.current.loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Loss as a float, after adding its gradient to the parameters and counting a step."""
        now = self.current
        particles = now.draw(model, guide, *args, **kwargs)
        loss = -now.bound(particles).sum()
        loss.backward()
        with torch.no_grad():
            log_likelihood = particles.log_likelihood.mean()
            self.advance(log_likelihood, now.kl_of(particles).mean())
        return float(loss.detach())

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        return self.objective._get_trace(model, guide, args, kwargs)
