"""Many fits that differ in some options, as one table: a grid, random points, or what a study proposes.

A sweep is a folder of ordinary runs, one for each point, and beside them

    study.log     Optuna's journal: the points, and the outcome of each trial
    sweep.yaml    the options that all have in common, and those of each point
    sweep.csv     the table
    sweep.png     the loss by option

The journal alone is read again: a sweep called again leaves out what is finished and goes on with what was cut off.
"""

from pyro_vae.sweeps.results import Result, Sweep
from pyro_vae.sweeps.study import sweep

__all__ = ["Result", "Sweep", "sweep"]
