"""Pairs of families that make a VAE, and rows in the support of each."""

from typing import Any

import torch
from torch import Tensor

import pyro_vae as pv
from helpers.cases import FAMILIES, Place, seeded
from pyro_vae.distributions.constraints import supports_equal
from pyro_vae.families import FAMILIES as FAMILY_TABLE

SMALL_MLP = pv.MLP(hidden=(6,), activation="tanh")


def small_vae(event: tuple[int, ...] = (3,), **words: Any) -> pv.VAE:
    """A small VAE with two latents, for rows of shape (n, *event)."""
    return pv.VAE(event, 2, **{"encoder": SMALL_MLP, **words})


def rows_for(name: str, event: tuple[int, ...] = (3,)) -> Tensor:
    """Rows in a family's support whose elements all rise and fall together, so that there is something to learn."""
    x = FAMILIES[name].data(100, event, seeded())
    if FAMILIES[name].family.event_ranks is not None:  # a vector's elements belong together
        return x
    return x.sort(0).values[torch.randperm(100, generator=seeded())]


def supports(role: str) -> dict[str, Any]:
    """The families that can take a role over latents, and their supports."""
    names = [name for name in FAMILY_TABLE if role in FAMILIES[name].roles]
    return {name: Place("prior", (2,)).build(FAMILIES[name].family).support for name in names}


GUIDES = supports("guide")
PRIORS = {p: s for p, s in supports("prior").items() if any(supports_equal(s, g) for g in GUIDES.values())}
LIKELIHOODS = [name for name in FAMILY_TABLE if "likelihood" in FAMILIES[name].roles]


def kl_is_finite(prior: str, guide: str) -> bool:
    """Whether a prior and a guide make a VAE whose KL divergence is finite."""
    return supports_equal(PRIORS[prior], GUIDES[guide]) and (FAMILIES[guide].moments or not FAMILIES[prior].moments)


def guide_for(prior: str) -> str:
    """The prior's own family where it is a guide, or the first guide that has a finite KL divergence to it."""
    return prior if prior in GUIDES else next(guide for guide in GUIDES if kl_is_finite(prior, guide))


GUIDE_PAIRS = [(prior, guide) for prior in PRIORS for guide in GUIDES if kl_is_finite(prior, guide)]
PAIR_OF_EACH_GUIDE = [next(pair for pair in GUIDE_PAIRS if pair[1] == guide) for guide in GUIDES]
