"""Pictures: every function takes results and returns a matplotlib figure."""

from pyro_vae.plots.calibration import calibration
from pyro_vae.plots.compare import comparison
from pyro_vae.plots.gap import inference_gap
from pyro_vae.plots.latent import latent
from pyro_vae.plots.samples import draws, reconstructions
from pyro_vae.plots.training import training
from pyro_vae.plots.usage import usage

__all__ = ["calibration", "comparison", "draws", "inference_gap", "latent", "reconstructions", "training", "usage"]
