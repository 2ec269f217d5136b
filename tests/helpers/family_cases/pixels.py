"""Cases of the families of pixels."""

import functools
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import Array, FamilyCase, Named, Shape, between, labels, spread

BINS, COMPONENTS = 9, 3


def _mixture(event: Shape, generator: torch.Generator) -> Named:
    shape = (*event, COMPONENTS)
    bounds = {"logits": (-1, 1), "loc": (-1.2, 1.2), "scale": (0.05, 0.4)}
    return {name: between(*bound, shape, generator) for name, bound in bounds.items()}


def _log_prob(x: Array, logits: Array, loc: Array, scale: Array) -> Any:
    edges = np.concatenate([[-np.inf], (np.arange(1, BINS) - 0.5) * 2 / (BINS - 1) - 1, [np.inf]])
    level = x.astype(int)[..., None]
    logistic = scipy.stats.logistic(loc, scale)
    above = level >= BINS / 2  # in whichever tail the difference keeps its digits
    masses = np.where(
        above,
        logistic.sf(edges[level]) - logistic.sf(edges[level + 1]),
        logistic.cdf(edges[level + 1]) - logistic.cdf(edges[level]),
    )
    return np.log((scipy.special.softmax(logits, -1) * masses).sum(-1))


def _mean(**parameters: Array) -> Any:
    event = parameters["loc"].shape[:-1]
    return sum(level * np.exp(_log_prob(np.full(event, level), **parameters)) for level in range(BINS))


def _start(x: Tensor) -> Named:
    unit = 2 / (BINS - 1)
    scale = np.maximum(spread(x).numpy() * np.sqrt(3) / np.pi / 2, 0.5) * unit
    ranks = [(2 * k + 1) * len(x) // 6 for k in range(COMPONENTS)]
    ascending = np.sort(x.numpy(), axis=0)
    loc = np.stack([ascending[r] * unit - 1 + (k - 1) / 4 * scale for k, r in enumerate(ranks)], -1)
    return {
        "logits": torch.zeros(loc.shape, dtype=torch.float64),
        "loc": torch.as_tensor(loc),
        "scale": torch.as_tensor(np.repeat(np.expand_dims(scale, -1), COMPONENTS, -1)),
    }


CASES = {
    "DiscretizedLogistic": FamilyCase(
        family=pv.DiscretizedLogistic(bins=BINS, components=COMPONENTS),
        roles=("prior", "likelihood"),
        data=functools.partial(labels, BINS),
        parameters=_mixture,
        start=_start,
        variants=(
            pv.DiscretizedLogistic(BINS, COMPONENTS, scale="learned"),
            pv.DiscretizedLogistic(BINS, 2, logits=(0, 1), loc="per_feature"),
            pv.DiscretizedLogistic(BINS, 1, logits=0),
            pv.DiscretizedLogistic(256, 2),
        ),
        log_prob=_log_prob,
        values=tuple(range(BINS)),
        start_mean=lambda x: torch.as_tensor(_mean(**{k: v.numpy() for k, v in _start(x).items()})),
    ),
}
