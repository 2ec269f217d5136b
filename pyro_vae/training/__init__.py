"""The training engine behind `pyro_vae.workflow.fit`: optimizers, steps, stopping, checkpoints, history."""

from pyro_vae.training.history import History
from pyro_vae.training.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Optimizer
from pyro_vae.training.stopping import STOPPINGS, EarlyStopping, Stopping

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "STOPPINGS",
    "Adam",
    "AdamW",
    "EarlyStopping",
    "History",
    "Optimizer",
    "Stopping",
]
