"""HOW parameters follow from a context: every network, by name."""

from pyro_vae.networks.base import InputNormalization, Network
from pyro_vae.networks.conv import Conv
from pyro_vae.networks.mlp import MLP

NETWORKS: dict[str, type[Network]] = {"MLP": MLP, "Conv": Conv}

__all__ = ["MLP", "NETWORKS", "Conv", "InputNormalization", "Network"]
