"""The models of Pyro's examples and tutorials, written anew and small: each a pair of programs and its data."""

from helpers.pyro_examples.example import Example
from helpers.pyro_examples.images import AIR, CVAE, VAE
from helpers.pyro_examples.labels import M2, MIXTURE, SCANVI, UNLABELLED
from helpers.pyro_examples.regression import REGRESSIONS
from helpers.pyro_examples.sequences import DMM
from helpers.pyro_examples.topics import GAMMA_DEF, PRODLDA

EXAMPLES: dict[str, Example] = {
    "vae": VAE,
    "ss_vae_M2, all labelled": M2,
    "cvae": CVAE,
    "prodlda": PRODLDA,
    "dmm": DMM,
    "scanvi, all labelled": SCANVI,
    "sparse_gamma_def": GAMMA_DEF,
    **REGRESSIONS,
}
"""Those that train, by name."""

REFUSED: dict[str, Example] = {"air": AIR, "ss_vae_M2, without labels": UNLABELLED, "mixture": MIXTURE}
"""Those that are refused, by name."""
