"""Torch and Pyro distributions, and functions of any distribution."""

from pyro_vae.distributions import constraints, moments

__all__ = ["constraints", "moments"]
