"""WHETHER to believe a model."""

from pyro_vae.criticism.latent import AggregateKL, aggregate_kl, spread_of_means

__all__ = ["AggregateKL", "aggregate_kl", "spread_of_means"]
