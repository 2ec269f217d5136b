"""Methods of estimating evidence, by name."""

from pyro_vae.criticism.methods.annealing import AIS
from pyro_vae.criticism.methods.base import LogWeights, Method
from pyro_vae.criticism.methods.importance import Importance

METHODS: dict[str, type[Method]] = {
    "Importance": Importance,
    "AIS": AIS,
}

__all__ = ["AIS", "METHODS", "Importance", "LogWeights", "Method"]
