"""A process that trains points for another one."""

from pyro_vae.sweeps.workers import main

main()
