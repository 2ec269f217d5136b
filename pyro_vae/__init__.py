"""Variational autoencoders as Bayesian models, on Pyro.

vae = pv.VAE(event_shape=(1, 28, 28), latent_dim=16,
prior=pv.Normal(0, 1), likelihood=pv.Normal(scale="learned"), guide=pv.Normal())
history = pv.fit(vae, x)
vae.sample(10)

A name is imported when it is first used (PEP 562); the names stand once, in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
