"""Cases of families on the unit interval and on the circle."""

import math
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import ROLES, Array, FamilyCase, Named, Shape, between, spread


def shares(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    """Numbers inside of the unit interval, some of them near its ends."""
    return torch.sigmoid(2 * torch.randn(rows, *event, generator=generator, dtype=torch.float64))


def grey(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    """Grey values of a picture in black and white, mostly."""
    return torch.sigmoid(5 * torch.randn(rows, *event, generator=generator, dtype=torch.float64))


def angles(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    """Angles about the point where they wrap."""
    turned = 3 + torch.randn(rows, *event, generator=generator, dtype=torch.float64)
    return torch.atan2(turned.sin(), turned.cos())


def sigmoid_mean(loc: Tensor, scale: Tensor) -> Tensor:
    """The mean of a Gaussian's sigmoid, by the trapezoidal rule."""
    nodes = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    weights = torch.exp(-nodes.square() / 2) / math.sqrt(2 * math.pi) * 18 / 2000
    return (torch.sigmoid(loc[..., None] + scale[..., None] * nodes) * weights).sum(-1)


def _cut_exponential(x: Array, logits: Array) -> Any:
    slope = np.abs(logits)
    return scipy.stats.truncexpon.logpdf(np.where(logits < 0, x, 1 - x), slope, scale=1 / slope)


def _solved(excess: Any, goals: Tensor, low: float, high: float) -> Tensor:
    """The number at which an increasing function is each goal."""
    values = goals.flatten().tolist()
    solutions = [scipy.optimize.brentq(lambda r, goal=goal: excess(r) - goal, low, high, xtol=1e-12) for goal in values]
    return torch.tensor(solutions, dtype=torch.float64).reshape(goals.shape)


def _continuous_bernoulli_start(x: Tensor) -> Named:
    def mean(logit: float) -> float:
        return 0.5 if logit == 0 else 1 / (1 - math.exp(-logit)) - 1 / logit

    return {"logits": _solved(mean, x.mean(0).clamp(0.02, 0.98), -60, 60.0)}


def _beta_start(x: Tensor) -> Named:
    mean = x.mean(0)
    total = (mean * (1 - mean) / spread(x) ** 2 - 1).clamp(1, 1e3)
    return {
        "concentration1": (mean * total).clamp(min=0.02),
        "concentration0": ((1 - mean) * total).clamp(min=0.02),
    }


def _logits_start(x: Tensor) -> Named:
    logits = torch.as_tensor(scipy.special.logit(x.numpy()))
    return {"loc": logits.mean(0), "scale": spread(logits)}


def _logit_normal(x: Array, loc: Array, scale: Array) -> Any:
    return scipy.stats.norm.logpdf(scipy.special.logit(x), loc, scale) - np.log(x) - np.log1p(-x)


def _directions(event: Shape, generator: torch.Generator) -> Named:
    return {"loc": between(-3, 3, event, generator), "concentration": between(0.3, 5, event, generator)}


def _circular_mean(x: Tensor) -> Tensor:
    return torch.as_tensor(scipy.stats.circmean(x.numpy(), np.pi, -np.pi, axis=0))


def _circular_start(x: Tensor) -> Named:
    length = torch.polar(torch.ones_like(x), x).mean(0).abs()
    ratio = lambda k: scipy.special.i1e(k) / scipy.special.i0e(k)  # noqa: E731
    return {"loc": _circular_mean(x), "concentration": _solved(ratio, length.clamp(0.01, 0.99), 1e-3, 1e3)}


CASES = {
    "ContinuousBernoulli": FamilyCase(
        family=pv.ContinuousBernoulli(),
        roles=ROLES,
        data=grey,
        parameters=lambda event, generator: {"logits": between(-8, 8, event, generator)},
        start=_continuous_bernoulli_start,
        variants=(pv.ContinuousBernoulli(0), pv.ContinuousBernoulli("learned"), pv.ContinuousBernoulli("per_feature")),
        log_prob=_cut_exponential,
    ),
    "Beta": FamilyCase(
        family=pv.Beta(),
        roles=ROLES,
        data=shares,
        parameters=lambda event, generator: {
            "concentration1": between(0.6, 5, event, generator),
            "concentration0": between(0.6, 5, event, generator),
        },
        start=_beta_start,
        variants=(pv.Beta(1, 1), pv.Beta(2, "learned"), pv.Beta(concentration0="per_feature")),
        log_prob=lambda x, concentration1, concentration0: scipy.stats.beta.logpdf(x, concentration1, concentration0),
    ),
    "LogitNormal": FamilyCase(
        family=pv.LogitNormal(),
        roles=ROLES,
        data=shares,
        parameters=lambda event, generator: {
            "loc": between(-2, 2, event, generator),
            "scale": between(0.3, 2, event, generator),
        },
        start=_logits_start,
        variants=(pv.LogitNormal(0, 1), pv.LogitNormal(scale="learned"), pv.LogitNormal(loc="per_feature")),
        log_prob=_logit_normal,
        start_mean=lambda x: sigmoid_mean(**_logits_start(x)),
    ),
    "VonMises": FamilyCase(
        family=pv.VonMises(),
        roles=("prior", "likelihood"),
        data=angles,
        parameters=_directions,
        start=_circular_start,
        variants=(pv.VonMises(0, 1), pv.VonMises(concentration="learned"), pv.VonMises(loc="per_feature")),
        log_prob=lambda x, loc, concentration: scipy.stats.vonmises.logpdf(x, concentration, loc),
        start_mean=_circular_mean,
    ),
}
