"""Training: `pyro_vae.workflow.fit` and what it is declared by.

`fit` is not imported here: it writes runs, which are read through the tables of this folder.
"""

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
