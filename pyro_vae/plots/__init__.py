"""Pictures: every function takes results and returns a matplotlib figure."""

from pyro_vae.plots.latent import latent
from pyro_vae.plots.samples import draws, reconstructions
from pyro_vae.plots.training import training

__all__ = ["draws", "latent", "reconstructions", "training"]
