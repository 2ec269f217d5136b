"""WHEN a hyperparameter has which value: every schedule, by name."""

from pyro_vae.schedules.base import Number, Schedule
from pyro_vae.schedules.geco import GECO
from pyro_vae.schedules.ramps import Cyclical, Linear, Sigmoid

SCHEDULES: dict[str, type[Schedule]] = {
    "Linear": Linear,
    "Sigmoid": Sigmoid,
    "Cyclical": Cyclical,
    "GECO": GECO,
}

__all__ = ["GECO", "SCHEDULES", "Cyclical", "Linear", "Number", "Schedule", "Sigmoid"]
