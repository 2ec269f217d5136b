"""Swap one word: the same data under several likelihoods and priors, compared by their held-out bound.

Run: python examples/swap.py. Bounds of continuous likelihoods are comparable with one another: all are densities of
the same data on the same scale.
"""

import os

import torch

import pyro_vae as pv

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))
EPOCHS = 2 if QUICK else 60

digits = pv.data.load("digits", seed=0)
torch.manual_seed(0)
first = pv.VAE(event_shape=digits.event_shape, latent_dim=8, encoder=pv.MLP(hidden=(256,)))

words = {
    "N(0, 1) prior, one learned scale": {},
    "one scale per pixel": {"likelihood": pv.Normal(scale="per_feature")},
    "Laplace likelihood": {"likelihood": pv.Laplace(scale="learned")},
    "Student's t likelihood": {"likelihood": pv.StudentT(df="learned", scale="learned")},
    "Laplace prior": {"prior": pv.Laplace(0, 1)},
    "full-rank guide": {"guide": pv.MultivariateNormal()},
}
for name, changed in words.items():
    vae = first.replace(**changed)
    history = pv.fit(vae, digits.train, validation=digits.validation, epochs=EPOCHS, progress=False)
    last = history.last
    print(f"{name:<34} held-out bound {-last['validation_loss']:8.2f} nats per image, KL {last['validation_kl']:5.2f}")
