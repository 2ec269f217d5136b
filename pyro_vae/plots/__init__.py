"""Pictures: every function takes results and returns a matplotlib figure."""

from pyro_vae.plots.aggregate import aggregate
from pyro_vae.plots.calibration import calibration
from pyro_vae.plots.checks import checks
from pyro_vae.plots.compare import comparison
from pyro_vae.plots.coverage import coverage
from pyro_vae.plots.gap import inference_gap
from pyro_vae.plots.graph import graph
from pyro_vae.plots.khat import khat
from pyro_vae.plots.latent import latent
from pyro_vae.plots.replicates import replicates
from pyro_vae.plots.samples import draws, reconstructions
from pyro_vae.plots.training import training
from pyro_vae.plots.two_sample import two_sample
from pyro_vae.plots.usage import usage
from pyro_vae.plots.walks import interpolations, manifold, traversals
from pyro_vae.plots.worst import worst

__all__ = [
    "aggregate",
    "calibration",
    "checks",
    "comparison",
    "coverage",
    "draws",
    "graph",
    "inference_gap",
    "interpolations",
    "khat",
    "latent",
    "manifold",
    "reconstructions",
    "replicates",
    "training",
    "traversals",
    "two_sample",
    "usage",
    "worst",
]
