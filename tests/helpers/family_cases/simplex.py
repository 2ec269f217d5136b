"""Cases of families on the simplex."""

from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import ROLES, Array, FamilyCase, Named, Shape, between, spread
from helpers.family_cases.unit import sigmoid_mean


def compositions(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    """Vectors of positive numbers that sum to 1."""
    return torch.softmax(1.5 * torch.randn(rows, *event, generator=generator, dtype=torch.float64), -1)


def _dirichlet_start(x: Tensor) -> Named:
    shares = x.numpy()
    spreads = np.var(shares, axis=0).sum()
    total = np.sum(shares.mean(0) * (1 - shares.mean(0))) / spreads - 1 if spreads > 0 else 1e3
    return {"concentration": torch.as_tensor(shares.mean(0) * np.clip(total, 1, 1e3))}


def _breaks(x: Array) -> Array:
    """The logits of the breaks: each share against the sum of those after it, 0 where all are equal."""
    size = x.shape[-1]
    columns = [np.log(x[..., d] / x[..., d + 1 :].sum(-1) * (size - 1 - d)) for d in range(size - 1)]
    return np.stack(columns, -1)


def _breaks_start(x: Tensor) -> Named:
    breaks = torch.as_tensor(_breaks(x.numpy()))
    return {"loc": breaks.mean(0), "scale": spread(breaks)}


def _logistic_normal(x: Array, loc: Array, scale: Array) -> Any:
    """By the determinant of the numerical Jacobian of the breaks in all shares but the last."""
    step, size = 1e-20, len(x)
    moved = x[:-1] + 1j * step * np.eye(size - 1)  # an imaginary step has no cancellation
    jacobian = _breaks(np.concatenate([moved, 1 - moved.sum(-1, keepdims=True)], -1)).imag / step
    return scipy.stats.norm.logpdf(_breaks(x), loc, scale).sum() + np.linalg.slogdet(jacobian)[1]


def _logistic_normal_mean(x: Tensor) -> Tensor:
    start = _breaks_start(x)
    offset = torch.arange(len(start["loc"]), 0, -1).log()
    taken = sigmoid_mean(start["loc"] - offset, start["scale"])
    left, shares = torch.ones(()), []
    for share in taken:
        shares.append(left * share)
        left = left * (1 - share)
    return torch.stack([*shares, left])


CASES = {
    "Dirichlet": FamilyCase(
        family=pv.Dirichlet(),
        roles=ROLES,
        data=compositions,
        parameters=lambda event, generator: {"concentration": between(0.6, 5, event, generator)},
        start=_dirichlet_start,
        variants=(pv.Dirichlet(0.5), pv.Dirichlet([1, 2, 3]), pv.Dirichlet("learned"), pv.Dirichlet("per_feature")),
        log_prob=lambda x, concentration: scipy.stats.dirichlet.logpdf(x, concentration),
        small=((2,), (3,)),
    ),
    "LogisticNormal": FamilyCase(
        family=pv.LogisticNormal(),
        roles=ROLES,
        data=compositions,
        parameters=lambda event, generator: {
            "loc": between(-2, 2, (event[-1] - 1,), generator),
            "scale": between(0.3, 2, (event[-1] - 1,), generator),
        },
        start=_breaks_start,
        variants=(pv.LogisticNormal(0, 1), pv.LogisticNormal(scale="learned"), pv.LogisticNormal(loc="per_feature")),
        log_prob=_logistic_normal,
        small=((2,), (3,)),
        start_mean=_logistic_normal_mean,
    ),
}
