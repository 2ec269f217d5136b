"""Cases of the families of positive numbers."""

from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import ROLES, Array, FamilyCase, Named, Shape, between


def _amounts(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    return (0.5 + 0.7 * torch.randn(rows, *event, generator=generator, dtype=torch.float64)).exp()


def _variation(x: Tensor) -> Array:
    return np.clip(scipy.stats.variation(x.numpy(), axis=0), 0.1, 3)


def _gamma_start(x: Tensor) -> Named:
    concentration = torch.as_tensor(1 / _variation(x) ** 2)
    return {"concentration": concentration, "rate": concentration / x.mean(0)}


def _lognormal_start(x: Tensor) -> Named:
    variance = torch.as_tensor(np.log(1 + _variation(x) ** 2))
    return {"loc": torch.log(x.mean(0)) - variance / 2, "scale": variance**0.5}


def _weibull_start(x: Tensor) -> Named:
    concentration = _variation(x) ** -1.086
    return {
        "scale": x.mean(0) / torch.as_tensor(scipy.special.gamma(1 + 1 / concentration)),
        "concentration": torch.as_tensor(concentration),
    }


def _weibull_log_prob(x: Array, scale: Array, concentration: Array) -> Any:
    return scipy.stats.weibull_min.logpdf(x, concentration, scale=scale)


CASES = {
    "Gamma": FamilyCase(
        family=pv.Gamma(),
        roles=ROLES,
        data=_amounts,
        parameters=lambda event, generator: {
            "concentration": between(0.7, 5, event, generator),
            "rate": between(0.3, 3, event, generator),
        },
        start=_gamma_start,
        variants=(pv.Gamma(2, 1), pv.Gamma("learned"), pv.Gamma(rate="per_feature")),
        log_prob=lambda x, concentration, rate: scipy.stats.gamma.logpdf(x, concentration, scale=1 / rate),
    ),
    "LogNormal": FamilyCase(
        family=pv.LogNormal(),
        roles=ROLES,
        data=_amounts,
        parameters=lambda event, generator: {
            "loc": between(-1, 1, event, generator),
            "scale": between(0.2, 0.7, event, generator),
        },
        start=_lognormal_start,
        variants=(pv.LogNormal(0, 1), pv.LogNormal(scale="learned"), pv.LogNormal(loc="per_feature")),
        log_prob=lambda x, loc, scale: scipy.stats.lognorm.logpdf(x, scale, scale=np.exp(loc)),
    ),
    "Exponential": FamilyCase(
        family=pv.Exponential(),
        roles=ROLES,
        data=_amounts,
        parameters=lambda event, generator: {"rate": between(0.3, 3, event, generator)},
        start=lambda x: {"rate": 1 / x.mean(0)},
        variants=(pv.Exponential(1), pv.Exponential("learned"), pv.Exponential("per_feature")),
        log_prob=lambda x, rate: scipy.stats.expon.logpdf(x, scale=1 / rate),
    ),
    "Weibull": FamilyCase(
        family=pv.Weibull(),
        roles=ROLES,
        data=_amounts,
        parameters=lambda event, generator: {
            "scale": between(0.3, 3, event, generator),
            "concentration": between(0.8, 4, event, generator),
        },
        start=_weibull_start,
        variants=(pv.Weibull(1, 2), pv.Weibull("learned"), pv.Weibull(concentration="per_feature")),
        log_prob=_weibull_log_prob,
    ),
}
