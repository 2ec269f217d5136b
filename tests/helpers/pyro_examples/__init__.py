"""Examples of Pyro's, written anew and small: pairs of a model and a guide with made-up data."""

from helpers.pyro_examples import counts, images, regressions, scenes, sequences

TRAINED = images.TRAINED | counts.TRAINED | sequences.TRAINED | regressions.TRAINED
"""The examples that `pv.fit` trains with `ELBO`, by name."""

DISCRETE = {"ss_vae_M2": images.UNLABELLED, "scanvi": counts.UNLABELLED, "air": scenes.AIR}
"""The examples whose guide draws discrete latents, by name."""
