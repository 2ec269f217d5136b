"""Cases of the other families of real numbers."""

import math

import numpy as np
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import (
    ROLES,
    FamilyCase,
    Named,
    Shape,
    between,
    location_scale,
    mean_and_spread,
    normals,
    spread,
)


def _asymmetric(event: Shape, generator: torch.Generator) -> Named:
    return {**location_scale(event, generator), "asymmetry": between(0.5, 2, event, generator)}


def _quartiles(x: Tensor) -> Named:
    lower, median, upper = (
        torch.as_tensor(np.quantile(x.numpy(), q, axis=0, method="lower")) for q in (0.25, 0.5, 0.75)
    )
    half = (upper - lower) / 2
    floor = 0.1 * half.mean()
    return {"loc": median, "scale": torch.maximum(half, floor) if floor > 0 else torch.ones_like(half)}


def _factors(event: Shape, generator: torch.Generator) -> Named:
    return {
        "loc": between(-2, 2, event, generator),
        "cov_factor": between(-1, 1, (*event, 1), generator),
        "cov_diag": between(0.3, 2, event, generator),
    }


CASES = {
    "Logistic": FamilyCase(
        family=pv.Logistic(),
        roles=ROLES,
        data=normals,
        parameters=location_scale,
        start=lambda x: {"loc": x.mean(0), "scale": spread(x) / scipy.stats.logistic.std()},
        variants=(pv.Logistic(0, 1), pv.Logistic(scale="learned"), pv.Logistic(loc="per_feature")),
        log_prob=scipy.stats.logistic.logpdf,
    ),
    "Cauchy": FamilyCase(
        family=pv.Cauchy(),
        roles=ROLES,
        data=normals,
        parameters=location_scale,
        start=_quartiles,
        start_mean=lambda x: torch.full_like(x[0], math.nan),
        moments=False,
        variants=(pv.Cauchy(0, 1), pv.Cauchy(scale="learned"), pv.Cauchy(loc="per_feature")),
        log_prob=scipy.stats.cauchy.logpdf,
    ),
    "AsymmetricLaplace": FamilyCase(
        family=pv.AsymmetricLaplace(),
        roles=ROLES,
        data=normals,
        parameters=_asymmetric,
        start=lambda x: {**mean_and_spread(x), "asymmetry": torch.ones_like(x[0])},
        variants=(
            pv.AsymmetricLaplace(0, 1, 2),
            pv.AsymmetricLaplace(asymmetry=3),
            pv.AsymmetricLaplace(scale="learned", asymmetry="per_feature"),
        ),
        log_prob=lambda x, loc, scale, asymmetry: scipy.stats.laplace_asymmetric.logpdf(x, asymmetry, loc, scale),
    ),
    "LowRankNormal": FamilyCase(
        family=pv.LowRankNormal(rank=1),
        roles=ROLES,
        data=normals,
        parameters=_factors,
        start=lambda x: {
            "loc": x.mean(0),
            "cov_factor": 0.1 * spread(x)[:, None],
            "cov_diag": spread(x) ** 2,
        },
        variants=(
            pv.LowRankNormal(1, 0, ((1.0,), (2.0,), (0.5,)), 1),
            pv.LowRankNormal(2, cov_factor="per_feature"),
            pv.LowRankNormal(3, "learned", cov_diag="learned"),
        ),
        log_prob=lambda x, loc, cov_factor, cov_diag: scipy.stats.multivariate_normal.logpdf(
            x, loc, cov_factor @ cov_factor.T + np.diag(cov_diag)
        ),
    ),
}
