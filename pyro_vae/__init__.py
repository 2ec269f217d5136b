"""Variational autoencoders as Bayesian models, on Pyro.

vae = pv.VAE(event_shape=(1, 28, 28), latent_dim=16,
prior=pv.Normal(0, 1), likelihood=pv.Normal(scale="learned"), guide=pv.Normal())
history = pv.fit(vae, x)
vae.sample(10)
"""

from pyro_vae import criticism, data, objectives, plots
from pyro_vae.describe import describe
from pyro_vae.errors import InputError
from pyro_vae.families import Bernoulli, Categorical, Laplace, MultivariateNormal, Normal, StudentT
from pyro_vae.networks import MLP, Conv
from pyro_vae.run import load
from pyro_vae.training import SGD, Adam, AdamW, History
from pyro_vae.training.fit import Runtime, fit
from pyro_vae.vae import VAE

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "VAE",
    "Adam",
    "AdamW",
    "Bernoulli",
    "Categorical",
    "Conv",
    "History",
    "InputError",
    "Laplace",
    "MultivariateNormal",
    "Normal",
    "Runtime",
    "StudentT",
    "criticism",
    "data",
    "describe",
    "fit",
    "load",
    "objectives",
    "plots",
]
