"""Declare, check the prior predictive, fit, look: a VAE of handwritten digits in forty lines.

Run: python examples/quickstart.py. It writes the run folder runs/quickstart and prior.png, draws before training.
"""

import os

import torch

import pyro_vae as pv

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))

digits = pv.data.load("digits", seed=0)
print(digits)

torch.manual_seed(0)
vae = pv.VAE(
    event_shape=digits.event_shape,
    latent_dim=2,
    prior=pv.Normal(0, 1),
    likelihood=pv.Normal(scale="learned"),
    guide=pv.Normal(),
)

# Before training: are draws on the data's scale at all? The weights are initial values, not draws from a prior.
vae.initialize(digits.train.x)
pv.plots.prior_predictive(vae, digits.validation.x).savefig("prior.png")

history = pv.fit(
    vae,
    digits.train,
    validation=digits.validation,
    epochs=3 if QUICK else 60,
    run=pv.RunOptions("runs/quickstart", overwrite=True),
)
print(history)
print(pv.describe(vae))

# How the mean KL of the ELBO splits into information about x and distance of the aggregate from the prior.
print(pv.criticism.aggregate_kl(vae, digits.validation.x))
print("Look at runs/quickstart/figures.")
