"""HOW to fit: every objective, by name."""

from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.elbo import ELBO
from pyro_vae.objectives.particles import Latent, Particles, draw

OBJECTIVES: dict[str, type[Objective]] = {"ELBO": ELBO}

__all__ = ["ELBO", "OBJECTIVES", "Latent", "Objective", "Particles", "draw"]
