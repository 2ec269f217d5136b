"""Torch and Pyro distributions, and what is asked of any distribution."""

from pyro_vae.distributions import constraints, moments

__all__ = ["constraints", "moments"]
