"""HOW evidence is measured."""

from pyro_vae.criticism.methods.annealing import AIS
from pyro_vae.criticism.methods.base import Method, Weights
from pyro_vae.criticism.methods.importance import Importance

METHODS: dict[str, type[Method]] = {
    "Importance": Importance,
    "AIS": AIS,
}

__all__ = ["AIS", "METHODS", "Importance", "Method", "Weights"]
