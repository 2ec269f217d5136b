"""An objective: a function of `Particles` to be maximised, such as a bound on log p(x), as a `pyro.infer.ELBO`."""

import copy
import dataclasses
from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError
from pyro_vae.objectives.estimators import Estimator
from pyro_vae.objectives.particles import Particles, draw, draw_detached_score, draw_no_path
from pyro_vae.objectives.structure import Program, check_order
from pyro_vae.schedules import Schedule


class Objective(Config, PyroELBO):
    """Base class of objectives: a subclass declares its options as dataclass fields and defines `bound`.

    It is a `pyro.infer.ELBO`: `pyro.infer.SVI(model, guide, optim, loss=objective)` takes it, and
    `objective(model, guide)` is the module of its loss.
    """

    # Pyro's ELBO sets these in its constructor; an objective is frozen, so they are class attributes.
    max_plate_nesting = float("inf")
    vectorize_particles = True
    retain_graph = None

    particles: int
    kl: Literal["sampled", "analytic"] = "sampled"
    estimator: Estimator = "plain"
    needs_rsample: ClassVar[bool] = True
    """Whether the gradient goes through the draws, so that the guide has to be reparameterised."""

    @abstractmethod
    def bound(self, particles: Particles) -> Tensor:
        """Bound on log p(x) of each row, (N,), in nats, to be maximised.

        A term of the batch is subtracted from every row, so that the mean over rows contains it once.
        """

    def extra_terms(self, particles: Particles) -> dict[str, Tensor]:
        """Terms of the bound other than log-likelihood and KL, by name: scalars in nats per row, for the history."""
        return {}

    @property
    def is_evidence_bound(self) -> bool:
        """Whether it is a bound on log p(x), so that bits per dimension follow from it."""
        return True

    @property
    def schedules(self) -> dict[str, Schedule]:
        """Schedules by the name of the hyperparameter that they set."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if isinstance(value, Schedule)}

    def value_of(self, name: str) -> float | Tensor:
        """Value of a hyperparameter: a number, or the scalar tensor of an adaptive schedule.

        Raises:
            InputError: it follows a schedule, whose value depends on the epoch.
        """
        value = getattr(self, name)
        if isinstance(value, Schedule):
            raise InputError(
                f"{type(self).__name__}.{name} = {value!r} depends on the epoch, which pv.fit sets: for Pyro's SVI "
                "give loss=pv.objectives.ScheduledObjective(objective, steps_per_epoch=...)."
            )
        return float(value) if isinstance(value, int) else value

    def with_values(self, **values: Any) -> Self:
        """Objective with numbers, or scalar tensors, in place of some of its fields."""
        if not values:
            return self
        other = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        return other

    def summary(self, particles: Particles) -> dict[str, Tensor]:
        """Terms of the bound without gradient, in nats per row: scalars, and vectors per latent.

        Returns:
            "log_likelihood": E_q log p(x|z), a scalar; "kl": KL(q(z|x) || p(z)), a scalar; "kl_" and a site's
            name: its KL per latent, of the site's event shape, where prior and guide both factorise; and `extra_terms`.
        """
        with torch.no_grad():
            log_likelihood = particles.log_likelihood.mean()
            parts = {"log_likelihood": log_likelihood, "kl": self.kl_of(particles).mean()}
            parts |= self.extra_terms(particles)
            for name, latent in particles.latents.items():
                split = latent.kl_per_dimension(analytic=self.analytic)
                if split is not None:
                    parts[f"kl_{name}"] = split
        return parts

    @property
    def analytic(self) -> bool:
        """Whether KL terms are computed in closed form."""
        return self.kl == "analytic"

    def elbo(self, particles: Particles) -> Tensor:
        """ELBO of each row with unit weights, (N,), in nats: the sum of the terms of `summary`."""
        if not self.analytic:
            return particles.log_weights.mean(0)
        total = particles.log_likelihood
        for name, latent in particles.latents.items():
            total = total - latent.kl(name)
        return total.mean(0)

    def kl_of(self, particles: Particles) -> Tensor:
        """KL(q(z|x) || p(z)) of each row with unit weight, (N,), in nats, in closed form where `kl` says so."""
        if not self.analytic:
            return particles.kl.mean(0)
        terms = [latent.kl(name) for name, latent in particles.latents.items()]
        return sum(terms, torch.zeros_like(particles.log_likelihood)).mean(0)

    @property
    def separates_score(self) -> bool:
        """Whether the gradient separates the path through the draws from the score: see `draw_detached_score`."""
        return self.estimator != "plain"

    def draw(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Particles:
        """Particles with the gradients that this objective needs; see `pyro_vae.objectives.particles.draw`.

        Raises:
            InputError: model and guide do not match each other, or not the objective.
        """
        how = draw_no_path if not self.needs_rsample else draw_detached_score if self.separates_score else draw
        particles = how(model, guide, self.particles, *args, **kwargs)
        if self.analytic and not particles.in_order:
            check_order(model, list(particles.latents), args, kwargs)
        return particles

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over rows, with its gradient: a scalar tensor, with no host sync."""
        return -self.bound(self.draw(model, guide, *args, **kwargs)).sum()

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, summed over rows, as a float."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Loss as a float, after adding its gradient to the parameters: the method that Pyro's `SVI` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:  # as in Pyro, programs may have nothing to train
            loss.backward(retain_graph=self.retain_graph)
        return float(loss.detach())

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        raise TypeError("an objective of pyro_vae takes Particles: use objective.draw(model, guide, ...)")
