"""WHEN a hyperparameter has which value: every schedule, by name."""

from pyro_vae.schedules.base import Number, Schedule
from pyro_vae.schedules.geco import GECO
from pyro_vae.schedules.ramps import Cosine, Cyclical, Exponential, Linear, Sigmoid, Steps

SCHEDULES: dict[str, type[Schedule]] = {
    "Linear": Linear,
    "Sigmoid": Sigmoid,
    "Cyclical": Cyclical,
    "Cosine": Cosine,
    "Exponential": Exponential,
    "Steps": Steps,
    "GECO": GECO,
}

__all__ = ["SCHEDULES", *SCHEDULES, "Number", "Schedule"]
