"""HOW evidence is measured."""

from pyro_vae.criticism.methods.base import Method, Weights
from pyro_vae.criticism.methods.importance import Importance

METHODS: dict[str, type[Method]] = {
    "Importance": Importance,
}

__all__ = ["METHODS", "Importance", "Method", "Weights"]
