"""Cases of the first families."""

import functools
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import torch

import pyro_vae as pv
from helpers.family_case import (
    ROLES,
    Array,
    FamilyCase,
    Named,
    Shape,
    between,
    labels,
    location_scale,
    mean_and_spread,
    normals,
    spread,
)


def _student(event: Shape, generator: torch.Generator) -> Named:
    return {"df": between(6, 30, event, generator), **location_scale(event, generator)}


def _correlated(event: Shape, generator: torch.Generator) -> Named:
    root = torch.randn(*event, 2 * event[-1], generator=generator, dtype=torch.float64)
    return {"loc": between(-2, 2, event, generator), "scale_tril": torch.linalg.cholesky(root @ root.mT)}


def _categorical_log_prob(x: Array, logits: Array) -> Any:
    return scipy.stats.multinomial.logpmf(np.eye(3)[x.astype(int)], 1, scipy.special.softmax(logits, -1))


CASES = {
    "Normal": FamilyCase(
        family=pv.Normal(),
        roles=ROLES,
        data=normals,
        parameters=location_scale,
        start=mean_and_spread,
        variants=(pv.Normal(0, 1), pv.Normal(scale="learned"), pv.Normal("learned", 2), pv.Normal(loc="per_feature")),
        log_prob=scipy.stats.norm.logpdf,
    ),
    "Laplace": FamilyCase(
        family=pv.Laplace(),
        roles=ROLES,
        data=normals,
        parameters=location_scale,
        start=mean_and_spread,
        variants=(pv.Laplace(0, 1), pv.Laplace(scale="learned"), pv.Laplace(loc="per_feature")),
        log_prob=scipy.stats.laplace.logpdf,
    ),
    "StudentT": FamilyCase(
        family=pv.StudentT(),
        roles=ROLES,
        data=normals,
        parameters=_student,
        start=lambda x: {"df": torch.full_like(x[0], 10), **mean_and_spread(x)},
        variants=(pv.StudentT(5, 0, 1), pv.StudentT("learned", scale="per_feature"), pv.StudentT(loc="learned")),
        log_prob=scipy.stats.t.logpdf,
    ),
    "MultivariateNormal": FamilyCase(
        family=pv.MultivariateNormal(),
        roles=ROLES,
        data=normals,
        parameters=_correlated,
        start=lambda x: {"loc": x.mean(0), "scale_tril": torch.diag_embed(spread(x))},
        variants=(
            pv.MultivariateNormal(0, [[1, 0, 0], [0.5, 1, 0], [0.5, 0.2, 2]]),
            pv.MultivariateNormal(scale_tril="per_feature"),
            pv.MultivariateNormal(loc="learned"),
        ),
        log_prob=lambda x, loc, scale_tril: scipy.stats.multivariate_normal.logpdf(x, loc, scale_tril @ scale_tril.T),
    ),
    "Bernoulli": FamilyCase(
        family=pv.Bernoulli(),
        roles=("prior", "likelihood"),
        data=functools.partial(labels, 2),
        parameters=lambda event, generator: {"logits": between(-3, 3, event, generator)},
        start=lambda x: {"logits": torch.logit((x.sum(0) + 0.5) / (len(x) + 1))},
        variants=(pv.Bernoulli(0.5), pv.Bernoulli("learned"), pv.Bernoulli("per_feature"), pv.Bernoulli(grey=True)),
        log_prob=lambda x, logits: scipy.stats.bernoulli.logpmf(x, scipy.special.expit(logits)),
        values=(0, 1),
    ),
    "Categorical": FamilyCase(
        family=pv.Categorical(classes=3),
        roles=("prior", "likelihood"),
        data=functools.partial(labels, 3),
        parameters=lambda event, generator: {"logits": between(-2, 2, (*event, 3), generator)},
        start=lambda x: {
            "logits": torch.stack([(x == k).double().mean(0) for k in range(3)], -1)
            .mul(len(x))
            .add(0.5)
            .div(len(x) + 1.5)
            .log()
        },
        variants=(pv.Categorical(3, (0, 1, -1)), pv.Categorical(3, "per_feature")),
        log_prob=_categorical_log_prob,
        values=(0, 1, 2),
    ),
}
