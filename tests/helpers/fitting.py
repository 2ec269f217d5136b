"""A small VAE, rows of it, and a short fit, for the tests of fitting."""

import copy
from typing import Any

import torch
from torch import Tensor

import pyro_vae as pv
from helpers.oracles import PPCA

ELBO = pv.objectives.ELBO
STILL = pv.SGD(1e-300)
"""An optimizer whose steps change no weight."""


def small(seed: int = 0, **arguments: Any) -> pv.VAE:
    torch.manual_seed(seed)
    return pv.VAE((3,), 2, **{"encoder": pv.MLP(hidden=(6,), activation="tanh"), **arguments})


def rows(n: int = 50) -> Tensor:
    torch.manual_seed(7)
    return PPCA.random(3, 2).marginal().sample((n,)).float()


def fit(programs: Any, x: Any, **arguments: Any) -> pv.History:
    return pv.fit(programs, x, **{"epochs": 3, "batch_size": 20, "progress": False, **arguments})


def weights(vae: pv.VAE) -> dict[str, Tensor]:
    return copy.deepcopy(vae.state_dict())
