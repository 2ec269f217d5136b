"""An objective: a bound on the log evidence as a function of `Particles`, and Pyro's `ELBO` interface to it."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae.declared import Declared
from pyro_vae.objectives.estimators import Estimator
from pyro_vae.objectives.particles import Particles, draw, draw_apart

Program = Callable[..., Any]


class Objective(Declared, PyroELBO):
    """Base of every objective: declare its options as dataclass fields and write `bound`.

    It is a `pyro.infer.ELBO`: `pyro.infer.SVI(model, guide, optim, loss=objective)` takes it, and
    `objective(model, guide)` is the module of its loss.
    """

    # What Pyro's ELBO sets in its constructor; a declared objective is frozen and keeps them on the class.
    max_plate_nesting = float("inf")
    vectorize_particles = True
    retain_graph = None

    particles: int
    estimator: Estimator = "plain"

    @property
    def num_particles(self) -> int:
        """The number of particles, by Pyro's name."""
        return self.particles

    @abstractmethod
    def bound(self, particles: Particles) -> Tensor:
        """The bound on log p(x) of each row, (N,), in nats, to be maximised."""

    def parts(self, particles: Particles) -> dict[str, Tensor]:
        """What the bound is made of, without gradient: scalars per row in nats, and vectors per latent.

        Returns:
            "log_likelihood": E_q log p(x|z), a scalar; "kl": KL(q(z|x) || p(z)), a scalar; "kl_" and a site's
            name: its KL per latent, of the site's event shape, where prior and guide both factorise.
        """
        with torch.no_grad():
            log_likelihood = particles.log_likelihood.mean()
            parts = {"log_likelihood": log_likelihood, "kl": log_likelihood - self.rows(particles).mean()}
            for name, latent in particles.latents.items():
                split = latent.kl_per_dimension(analytic=self.analytic)
                if split is not None:
                    parts[f"kl_{name}"] = split
        return parts

    @property
    def analytic(self) -> bool:
        """Whether KL terms are taken in closed form."""
        return False

    def rows(self, particles: Particles) -> Tensor:
        """The plain ELBO of each row, (N,), in nats: what `parts` splits up."""
        if not self.analytic:
            return particles.log_weights.mean(0)
        total = particles.log_likelihood
        for name, latent in particles.latents.items():
            total = total - latent.kl(name)
        return total.mean(0)

    @property
    def apart(self) -> bool:
        """Whether the gradient is taken to the draws and to the guide's parameters apart: see `draw_apart`."""
        return self.estimator != "plain"

    def draw(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Particles:
        """Draw the particles this objective needs; see `pyro_vae.objectives.particles.draw`."""
        return (draw_apart if self.apart else draw)(model, guide, self.particles, *args, **kwargs)

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
