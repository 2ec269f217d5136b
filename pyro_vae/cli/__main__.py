"""`python -m pyro_vae.cli`."""

from pyro_vae.cli import main

main()
