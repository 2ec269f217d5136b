"""A training step as one checked graph."""
