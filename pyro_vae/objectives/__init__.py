"""HOW to fit: every objective, by name."""

from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.elbo import ELBO
from pyro_vae.objectives.importance import CIWAE, IWAE, MIWAE, PIWAE
from pyro_vae.objectives.particles import Latent, Particles, draw, draw_apart
from pyro_vae.objectives.renyi import Renyi

OBJECTIVES: dict[str, type[Objective]] = {
    "ELBO": ELBO,
    "IWAE": IWAE,
    "Renyi": Renyi,
    "MIWAE": MIWAE,
    "PIWAE": PIWAE,
    "CIWAE": CIWAE,
}

__all__ = [
    "CIWAE",
    "ELBO",
    "IWAE",
    "MIWAE",
    "OBJECTIVES",
    "PIWAE",
    "Latent",
    "Objective",
    "Particles",
    "Renyi",
    "draw",
    "draw_apart",
]
