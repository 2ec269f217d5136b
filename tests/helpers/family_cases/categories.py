"""Cases of the families of labels, levels and indicators."""

import functools
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import Array, FamilyCase, Named, Shape, between, labels

LEVELS = 4


def _ordered(event: Shape, generator: torch.Generator) -> Named:
    gaps = between(0.3, 1.5, (*event, LEVELS - 1), generator)
    return {"predictor": between(-2, 2, event, generator), "cutpoints": gaps.cumsum(-1) - 2}


def _ordered_log_prob(x: Array, predictor: Array, cutpoints: Array) -> Any:
    ends = np.full((*predictor.shape, 1), np.inf)
    below = scipy.stats.logistic.cdf(np.concatenate([-ends, cutpoints, ends], -1), loc=predictor[..., None])
    return np.log(np.take_along_axis(np.diff(below), x.astype(int)[..., None], -1))


def _ordered_start(x: Tensor) -> Named:
    counts = torch.stack([(x == level).double().sum(0) + 0.5 for level in range(LEVELS)], -1)
    below = counts.cumsum(-1)[..., :-1] / counts.sum(-1, keepdim=True)
    return {"predictor": torch.zeros_like(x[0]), "cutpoints": torch.log(below / (1 - below))}


def _indicators(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    return torch.eye(event[-1], dtype=torch.float64)[torch.randint(event[-1], (rows, *event[:-1]), generator=generator)]


def _shares(x: Tensor) -> Tensor:
    return (x.sum(0) + 0.5) / (len(x) + x.shape[-1] / 2)


def _indicator_log_prob(x: Array, logits: Array) -> Any:
    return scipy.stats.multinomial.logpmf(x, 1, scipy.special.softmax(logits, -1))


CASES = {
    "OrderedLogistic": FamilyCase(
        family=pv.OrderedLogistic(levels=LEVELS),
        roles=("prior", "likelihood"),
        data=functools.partial(labels, LEVELS),
        parameters=_ordered,
        start=_ordered_start,
        variants=(
            pv.OrderedLogistic(LEVELS, cutpoints="per_feature"),
            pv.OrderedLogistic(LEVELS, "learned", (-1, 0, 2)),
            pv.OrderedLogistic(LEVELS, 0),
        ),
        log_prob=_ordered_log_prob,
        values=tuple(range(LEVELS)),
    ),
    "OneHot": FamilyCase(
        family=pv.OneHot(),
        roles=("prior", "likelihood"),
        data=_indicators,
        parameters=lambda event, generator: {"logits": between(-2, 2, event, generator)},
        start=lambda x: {"logits": torch.log(_shares(x))},
        variants=(pv.OneHot("per_feature"),),
        log_prob=_indicator_log_prob,
        values=(0, 1),
        small=((2,), (3,)),
        start_mean=_shares,
    ),
}
