"""Cases of the families around one family: cut off, or pushed through a map."""

from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import ROLES, Array, FamilyCase, Shape, between, location_scale, mean_and_spread, normals

LOW, HIGH = -1.0, 4.0


def _bounded(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    return between(LOW, HIGH, (rows, *event), generator)


def _told(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    """Some of it at either bound."""
    return between(LOW - 1, HIGH + 1, (rows, *event), generator).clamp(LOW, HIGH)


def _truncated(loc: Any, scale: Any) -> Any:
    return scipy.stats.truncnorm((LOW - loc) / scale, (HIGH - loc) / scale, loc, scale)


def _tobit(x: Array, loc: Array, scale: Array) -> Any:
    normal = scipy.stats.norm(loc, scale)
    return np.where(x == LOW, normal.logcdf(LOW), np.where(x == HIGH, normal.logsf(HIGH), normal.logpdf(x)))


def _tobit_mean(x: Tensor) -> Tensor:
    """The integral of the survival function from the low bound to the high one."""
    start = {name: value.numpy() for name, value in mean_and_spread(x).items()}
    grid, weight = np.polynomial.legendre.leggauss(200)
    y = (LOW + (HIGH - LOW) * (grid + 1) / 2).reshape(-1, *[1] * (x.ndim - 1))
    survival = scipy.stats.norm.sf(y, start["loc"], start["scale"])
    return torch.as_tensor(LOW + (HIGH - LOW) / 2 * np.tensordot(weight, survival, 1))


def _truncated_mean(x: Tensor) -> Tensor:
    return torch.as_tensor(_truncated(**{name: value.numpy() for name, value in mean_and_spread(x).items()}).mean())


CASES = {
    "Truncated": FamilyCase(
        family=pv.Truncated(pv.Normal(), LOW, HIGH),
        roles=ROLES,
        data=_bounded,
        parameters=location_scale,
        start=mean_and_spread,
        start_mean=_truncated_mean,
        variants=(
            pv.Truncated(pv.Normal(1, 2), LOW),
            pv.Truncated(pv.Logistic(scale="learned"), None, HIGH),
        ),
        log_prob=lambda x, loc, scale: _truncated(loc, scale).logpdf(x),
        write=lambda values: pv.Truncated(pv.Normal(**values), LOW, HIGH),  # type: ignore[arg-type]
    ),
    "Censored": FamilyCase(
        family=pv.Censored(pv.Normal(), LOW, HIGH),
        roles=("likelihood",),
        data=_told,
        parameters=location_scale,
        start=mean_and_spread,
        start_mean=_tobit_mean,
        variants=(
            pv.Censored(pv.Normal(1, 2), LOW),
            pv.Censored(pv.Logistic(scale="learned"), None, HIGH),
        ),
        log_prob=_tobit,
        write=lambda values: pv.Censored(pv.Normal(**values), LOW, HIGH),  # type: ignore[arg-type]
        masses=(LOW, HIGH),
    ),
    "Transformed": FamilyCase(
        family=pv.Transformed(pv.Normal(), "sigmoid"),
        roles=ROLES,
        data=lambda rows, event, generator: between(0.01, 0.99, (rows, *event), generator),
        parameters=location_scale,
        start=lambda x: mean_and_spread(torch.logit(x)),
        closed_mean=False,
        variants=(
            pv.Transformed(pv.StudentT(scale="learned"), "exp"),
            pv.Transformed(pv.Normal(loc="per_feature"), "softplus"),
            pv.Transformed(pv.Laplace(), "tanh"),
        ),
        log_prob=lambda x, loc, scale: (
            scipy.stats.norm.logpdf(scipy.special.logit(x), loc, scale) - np.log(x) - np.log1p(-x)
        ),
        write=lambda values: pv.Transformed(pv.Normal(**values), "sigmoid"),  # type: ignore[arg-type]
    ),
    "Scaled": FamilyCase(
        family=pv.Scaled(pv.Normal(), 2, 3),
        roles=ROLES,
        data=normals,
        parameters=location_scale,
        start=lambda x: mean_and_spread((x - 2) / 3),
        canonical=mean_and_spread,
        variants=(
            pv.Scaled(pv.Normal(0, 1), -1, 0.5),
            pv.Scaled(pv.StudentT(5, scale="learned"), scale=10),
        ),
        log_prob=lambda x, loc, scale: scipy.stats.norm.logpdf(x, 2 + 3 * loc, 3 * scale),
        write=lambda values: pv.Scaled(pv.Normal(**values), 2, 3),  # type: ignore[arg-type]
    ),
}
