"""Pictures: every function takes results and returns a matplotlib figure."""

from pyro_vae.plots.aggregate_posterior import aggregate
from pyro_vae.plots.compare import comparison
from pyro_vae.plots.gap import inference_gap
from pyro_vae.plots.graph import graph
from pyro_vae.plots.khat import khat
from pyro_vae.plots.latent import latent
from pyro_vae.plots.latent_traversal import interpolations, manifold, traversals
from pyro_vae.plots.latent_usage import usage
from pyro_vae.plots.outliers import worst
from pyro_vae.plots.pit import coverage
from pyro_vae.plots.replicates import replicates
from pyro_vae.plots.samples import draws, reconstructions
from pyro_vae.plots.sbc import calibration
from pyro_vae.plots.test_statistics import checks
from pyro_vae.plots.training import training
from pyro_vae.plots.two_sample import two_sample

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
