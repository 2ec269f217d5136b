"""WHETHER to believe a model."""

from pyro_vae.criticism.evidence import Evidence, evidence
from pyro_vae.criticism.latent import AggregateKL, aggregate_kl, spread_of_means
from pyro_vae.criticism.methods import Importance, Method

__all__ = ["AggregateKL", "Evidence", "Importance", "Method", "aggregate_kl", "evidence", "spread_of_means"]
