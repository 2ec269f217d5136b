"""WHEN a hyperparameter has which value: every schedule, by name."""

from pyro_vae.schedules.base import Number, Schedule
from pyro_vae.schedules.geco import GECO
from pyro_vae.schedules.time import Cosine, Cyclical, Exponential, Linear, MultiStep, Sigmoid

SCHEDULES: dict[str, type[Schedule]] = {
    schedule.__name__: schedule for schedule in (Linear, Sigmoid, Cyclical, Cosine, Exponential, MultiStep, GECO)
}

__all__ = ["SCHEDULES", *SCHEDULES, "Number", "Schedule"]
