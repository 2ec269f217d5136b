"""Cases of families that are made of others: mixtures, flows, priors that depend on the model."""

from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import torch
from sklearn.cluster import KMeans
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import ROLES, Array, FamilyCase, Named, Shape, between, normals, spread


def _components(event: Shape, generator: torch.Generator) -> Named:
    return {
        "weights": between(-1, 1, (3,), generator),
        "loc": between(-2, 2, (3, *event), generator),
        "scale": between(0.3, 3, (3, *event), generator),
    }


def _mixture(values: dict[str, Array]) -> pv.Mixture:
    return pv.Mixture(pv.Normal(values["loc"], values["scale"]), components=3, weights=values["weights"])


def _log_mixture(x: Array, weights: Array, loc: Array, scale: Array) -> Any:
    parts = scipy.stats.norm.logpdf(x, loc, scale).reshape(3, -1).sum(1)
    return scipy.special.logsumexp(scipy.special.log_softmax(weights) + parts)


def _flow(event: Shape, generator: torch.Generator) -> Named:
    return {"loc": between(-2, 2, event, generator), "scale": between(0.3, 3, event, generator)}


def _clustered(x: Tensor) -> Named:
    rows = x.reshape(len(x), -1).numpy()
    label = KMeans(min(3, len(np.unique(rows, axis=0))), n_init=1, random_state=0).fit_predict(rows)
    groups = [x[label == k] if (label == k).any() else x for k in range(3)]
    return {
        "weights": torch.tensor([len(group) for group in groups]).double().div(sum(map(len, groups))).log(),
        "loc": torch.stack([group.mean(0) for group in groups]),
        "scale": torch.stack([spread(group) for group in groups]),
    }


def _no_start(x: Tensor) -> Named:
    return {}


CASES = {
    "Mixture": FamilyCase(
        family=pv.Mixture(pv.Normal(), components=3),
        roles=ROLES,
        data=normals,
        parameters=_components,
        start=_clustered,
        write=_mixture,
        variants=(
            pv.Mixture(pv.Laplace(scale="learned"), components=2, weights="per_feature"),
            pv.Mixture(pv.Normal(), components=2, of="elements"),
        ),
        log_prob=_log_mixture,
    ),
    "Flow": FamilyCase(
        family=pv.Flow("realnvp", 2, (8,), 4, loc=None, scale=None),
        roles=ROLES,
        data=normals,
        parameters=_flow,
        start=lambda x: {"loc": x.mean(0), "scale": spread(x)},
        variants=(pv.Flow("nsf", 1, (8,), 4), pv.Flow("maf", 1, (8,), 4, scale="learned")),
        closed=False,
        small=((2,),),
        closed_mean=False,
    ),
    "VampPrior": FamilyCase(
        family=pv.VampPrior(components=4),
        roles=("prior",),
        data=normals,
        parameters=lambda event, generator: {"weights": between(-1, 1, (4,), generator)},
        start=_no_start,
        variants=(pv.VampPrior(components=3, weights="per_feature"),),
        closed=False,
    ),
    "Aggregate": FamilyCase(
        family=pv.Aggregate(pv.Mixture(pv.Normal(), components=2)),
        roles=("prior",),
        data=normals,
        parameters=lambda event, generator: {},
        start=_no_start,
        variants=(pv.Aggregate(pv.Flow("realnvp", 1, (8,)), base=pv.Laplace(0, 1)),),
        closed=False,
    ),
}
