"""An objective: a bound on the log evidence as a function of `Particles`, and Pyro's `ELBO` interface to it."""

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError
from pyro_vae.objectives.estimators import Estimator
from pyro_vae.objectives.particles import Particles, draw, draw_detached_score, draw_no_path
from pyro_vae.schedules import Schedule

Program = Callable[..., Any]


class Objective(Config, PyroELBO):
    """Base of every objective: declare its options as dataclass fields and write `bound`.

    It is a `pyro.infer.ELBO`: `pyro.infer.SVI(model, guide, optim, loss=objective)` takes it, and
    `objective(model, guide)` is the module of its loss.
    """

    # What Pyro's ELBO sets in its constructor; a declared objective is frozen and keeps them on the class.
    max_plate_nesting = float("inf")
    vectorize_particles = True
    retain_graph = None

    particles: int
    kl: Literal["sampled", "analytic"] = "sampled"
    estimator: Estimator = "plain"

    @property
    def num_particles(self) -> int:
        """The number of particles, by Pyro's name."""
        return self.particles

    @abstractmethod
    def bound(self, particles: Particles) -> Tensor:
        """The bound on log p(x) of each row, (N,), in nats, to be maximised.

        A term of the whole batch is taken off every row, so that the mean over rows holds it once.
        """

    def extra_terms(self, particles: Particles) -> dict[str, Tensor]:
        """What the bound holds beside log-likelihood and KL, by name: scalars in nats per row, for the history."""
        return {}

    @property
    def is_evidence_bound(self) -> bool:
        """Whether the bound is one on log p(x), so that bits per dimension can be told from it."""
        return True

    @property
    def schedules(self) -> dict[str, Schedule]:
        """The hyperparameters that follow a schedule, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if isinstance(value, Schedule)}

    def value_of(self, name: str) -> float | Tensor:
        """The value of a hyperparameter.

        Raises:
            InputError: it follows a schedule, and nobody tells the time.
        """
        value = getattr(self, name)
        if isinstance(value, Schedule):
            raise InputError(
                f"{type(self).__name__}.{name} = {value!r} follows time, which pv.fit tells: with Pyro's SVI give "
                "loss=pv.objectives.ScheduledObjective(objective, steps_per_epoch=...)."
            )
        return float(value) if isinstance(value, int) else value

    def with_values(self, **values: Any) -> Self:
        """The objective with numbers, or scalar tensors, in some of its fields."""
        if not values:
            return self
        other = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        return other

    def summary(self, particles: Particles) -> dict[str, Tensor]:
        """What the bound is made of, without gradient: scalars per row in nats, and vectors per latent.

        Returns:
            "log_likelihood": E_q log p(x|z), a scalar; "kl": KL(q(z|x) || p(z)), a scalar; "kl_" and a site's
            name: its KL per latent, of the site's event shape, where prior and guide both factorise; and `extra_terms`.
        """
        with torch.no_grad():
            log_likelihood = particles.log_likelihood.mean()
            parts = {"log_likelihood": log_likelihood, "kl": log_likelihood - self.elbo(particles).mean()}
            parts |= self.extra_terms(particles)
            for name, latent in particles.latents.items():
                split = latent.kl_per_dimension(analytic=self.analytic)
                if split is not None:
                    parts[f"kl_{name}"] = split
        return parts

    @property
    def analytic(self) -> bool:
        """Whether KL terms are taken in closed form."""
        return self.kl == "analytic"

    def elbo(self, particles: Particles) -> Tensor:
        """The plain ELBO of each row, (N,), in nats: what `summary` splits up."""
        if not self.analytic:
            return particles.log_weights.mean(0)
        total = particles.log_likelihood
        for name, latent in particles.latents.items():
            total = total - latent.kl(name)
        return total.mean(0)

    @property
    def separates_score(self) -> bool:
        """Whether the gradient is taken to the draws and to the guide's parameters apart: see `draw_detached_score`."""
        return self.estimator != "plain"

    @property
    def needs_rsample(self) -> bool:
        """Whether the gradient goes through the draws, so that the guide has to be reparameterised."""
        return True

    def draw(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Particles:
        """Draw the particles this objective needs; see `pyro_vae.objectives.particles.draw`.

        Raises:
            InputError: the programs do not fit each other or the objective.
        """
        how = draw_no_path if not self.needs_rsample else draw_detached_score if self.separates_score else draw
        return how(model, guide, self.particles, *args, **kwargs)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over rows, with its gradient; a scalar tensor, not waited for."""
        return -self.bound(self.draw(model, guide, *args, **kwargs)).sum()

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, summed over rows, as a number."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Accumulate the gradient of the loss and return it as a number: what Pyro's `SVI` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward(retain_graph=self.retain_graph)
        return float(loss.detach())

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        raise TypeError("an objective of pyro_vae reads Particles: use objective.draw(model, guide, ...)")
