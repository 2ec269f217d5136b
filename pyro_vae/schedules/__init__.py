"""WHEN a hyperparameter has which value: every schedule, by name."""

from pyro_vae.schedules.base import Number, Schedule
from pyro_vae.schedules.geco import GECO
from pyro_vae.schedules.time import Cosine, Cyclical, Exponential, Linear, MultiStep, Sigmoid

SCHEDULES: dict[str, type[Schedule]] = {
    "Linear": Linear,
    "Sigmoid": Sigmoid,
    "Cyclical": Cyclical,
    "Cosine": Cosine,
    "Exponential": Exponential,
    "MultiStep": MultiStep,
    "GECO": GECO,
}

__all__ = ["SCHEDULES", *SCHEDULES, "Number", "Schedule"]
