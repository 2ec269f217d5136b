"""A small VAE, rows of it, and a short fit, for the tests of fitting."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
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


def grouped(**arguments: Any) -> dict[str, Any]:
    """Arguments of `pv.fit` of fields of `pv.RunOptions` and `pv.Monitor` beside its own."""
    run = {name: arguments.pop(name) for name in ("overwrite", "resume", "checkpoints") if name in arguments}
    monitor = {name: arguments.pop(name) for name in ("loggers", "profile", "stopping") if name in arguments}
    if run:
        arguments["run"] = pv.RunOptions(arguments["run"], **run)
    return arguments | ({"monitor": pv.Monitor(**monitor)} if monitor else {})


def fit(programs: Any, x: Any, **arguments: Any) -> pv.History:
    return pv.fit(programs, x, **grouped(**{"epochs": 3, "batch_size": 20, "progress": False, **arguments}))


def interrupted(fit: Callable[..., Any], *given: Any, **arguments: Any) -> pv.History:
    """The history of a fit that SIGINT ends."""
    with pytest.raises(pv.TrainingInterrupted) as stop:
        fit(*given, **arguments)
    history: pv.History = stop.value.history
    return history


def weights(vae: pv.VAE) -> dict[str, Tensor]:
    return copy.deepcopy(vae.state_dict())


def initialized(**arguments: Any) -> pv.VAE:
    """A small VAE whose starting values do not depend on the data, so that one bad row cannot spoil them."""
    vae = small(**arguments)
    vae.initialize(rows())
    vae.initialize = lambda **batch: vae  # type: ignore[method-assign]
    return vae


def overflowing(*places: int) -> Tensor:
    """Rows of which those in `places` have a density that overflows."""
    x = rows()
    x[list(places)] = 1e30
    return x


def first_order() -> list[int]:
    """The order in which the first epoch of a fit of seed 0 takes the rows."""
    return torch.randperm(50, generator=torch.Generator().manual_seed(0)).tolist()
