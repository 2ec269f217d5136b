"""Matplotlib figures of results: every function takes a result, or a model and rows, and returns a `Figure`."""

from pyro_vae.plots.aggregate_posterior import aggregate_posterior
from pyro_vae.plots.compare import compare
from pyro_vae.plots.gap import inference_gap
from pyro_vae.plots.graph import graph
from pyro_vae.plots.khat import khat
from pyro_vae.plots.latent import latent
from pyro_vae.plots.latent_traversal import interpolations, manifold, traversals
from pyro_vae.plots.latent_usage import latent_usage
from pyro_vae.plots.outliers import outliers
from pyro_vae.plots.pit import pit
from pyro_vae.plots.ppc import ppc
from pyro_vae.plots.samples import image_grid, prior_predictive, reconstructions
from pyro_vae.plots.sbc import sbc
from pyro_vae.plots.test_statistics import test_statistics
from pyro_vae.plots.training import training
from pyro_vae.plots.two_sample import two_sample

__all__ = [
    "aggregate_posterior",
    "compare",
    "graph",
    "image_grid",
    "inference_gap",
    "interpolations",
    "khat",
    "latent",
    "latent_usage",
    "manifold",
    "outliers",
    "pit",
    "ppc",
    "prior_predictive",
    "reconstructions",
    "sbc",
    "test_statistics",
    "training",
    "traversals",
    "two_sample",
]
