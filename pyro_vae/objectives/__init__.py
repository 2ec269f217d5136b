"""HOW to fit: every objective, by name."""

from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.disentanglement import DIP, BetaTC, InfoVAE
from pyro_vae.objectives.elbo import ELBO, Capacity
from pyro_vae.objectives.importance import CIWAE, IWAE, MIWAE, PIWAE, Renyi
from pyro_vae.objectives.particles import Latent, Particles, draw, draw_detached_score
from pyro_vae.objectives.scheduled import ScheduledObjective
from pyro_vae.objectives.wake_sleep import RWS

OBJECTIVES: dict[str, type[Objective]] = {
    objective.__name__: objective
    for objective in (ELBO, Capacity, IWAE, Renyi, MIWAE, PIWAE, CIWAE, BetaTC, InfoVAE, DIP, RWS)
}

__all__ = [
    "OBJECTIVES",
    *OBJECTIVES,
    "Latent",
    "Objective",
    "Particles",
    "ScheduledObjective",
    "draw",
    "draw_detached_score",
]
