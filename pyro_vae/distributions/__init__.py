"""Torch and Pyro distributions, and what is asked of any distribution."""
