"""A process that trains points for another one."""

from pyro_vae.sweep.workers import main

main()
