"""Cases of the families of counts."""

import dataclasses
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.family_case import Array, FamilyCase, Named, Shape, between

TRIALS = 5
LONG = tuple(float(value) for value in range(800))  # no mass worth 1e-9 beyond, at the parameters below


def _counts(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    """Counts from 0 to 12, more spread than a Poisson's, and a zero in a quarter of the places."""
    drawn = torch.poisson(between(0, 8, (rows, *event), generator), generator=generator).clamp(max=12)
    return drawn * (torch.rand(drawn.shape, generator=generator) > 0.25)


def _successes(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    return torch.randint(TRIALS + 1, (rows, *event), generator=generator).double()


def _mean_and_dispersion(event: Shape, generator: torch.Generator) -> Named:
    return {"mean": between(0.5, 8, event, generator), "dispersion": between(0.1, 2, event, generator)}


def _trials(event: Shape) -> Tensor:
    return torch.full(event, float(TRIALS), dtype=torch.float64)


def _mean(x: Tensor) -> Tensor:
    """Where a rate starts: the mean, half a count over all rows where there is none."""
    counts = x.numpy()
    return torch.as_tensor(np.where(counts.any(0), counts.mean(0), 0.5 / len(counts)))


def _moments(x: Tensor) -> Named:
    mean = _mean(x).numpy()
    dispersion = np.clip((np.var(x.numpy(), axis=0) - mean) / mean**2, 0.01, 10)
    return {"mean": torch.as_tensor(mean), "dispersion": torch.as_tensor(dispersion)}


def _share(x: Tensor) -> Array:
    """Jeffreys's share of successes."""
    return (x.numpy().sum(0) + 0.5) / (TRIALS * len(x) + 1)


def _pseudo_counts(x: Tensor) -> Named:
    share, variance = _share(x), np.var(x.numpy() / TRIALS, axis=0)
    with np.errstate(divide="ignore"):
        total = np.clip(share * (1 - share) / variance - 1, 1, 100)
    both = {"concentration1": share * total, "concentration0": (1 - share) * total}
    return {name: torch.as_tensor(np.maximum(value, 0.02)) for name, value in both.items()}


def _nbinom(mean: Array, dispersion: Array) -> Any:
    return scipy.stats.nbinom(1 / dispersion, 1 / (1 + mean * dispersion))


def _inflated_start(x: Tensor) -> Named:
    base = _moments(x)
    expected = _nbinom(*(value.numpy() for value in base.values())).pmf(0)
    gate = np.clip(((x.numpy() == 0).mean(0) - expected) / (1 - expected), 0.01, 0.5)
    return {"gate_logits": torch.as_tensor(scipy.special.logit(gate)), **base}


def _inflated_log_prob(x: Array, gate_logits: Array, mean: Array, dispersion: Array) -> Any:
    gate = scipy.special.expit(gate_logits)
    return np.log(gate * (x == 0) + (1 - gate) * _nbinom(mean, dispersion).pmf(x))


def _write_inflated(values: dict[str, Array]) -> pv.ZeroInflated:
    inner = {name: value for name, value in values.items() if name != "gate_logits"}
    return pv.ZeroInflated(dataclasses.replace(pv.NegativeBinomial(), **inner), values["gate_logits"])


CASES = {
    "Poisson": FamilyCase(
        family=pv.Poisson(),
        roles=("prior", "likelihood"),
        data=_counts,
        parameters=lambda event, generator: {"rate": between(0.5, 8, event, generator)},
        start=lambda x: {"rate": _mean(x)},
        start_mean=lambda x: x.mean(0),
        variants=(pv.Poisson(3), pv.Poisson("learned"), pv.Poisson("per_feature")),
        log_prob=lambda x, rate: scipy.stats.poisson.logpmf(x, rate),
        values=LONG,
    ),
    "NegativeBinomial": FamilyCase(
        family=pv.NegativeBinomial(),
        roles=("prior", "likelihood"),
        data=_counts,
        parameters=_mean_and_dispersion,
        start=_moments,
        start_mean=lambda x: x.mean(0),
        variants=(
            pv.NegativeBinomial(dispersion="learned"),
            pv.NegativeBinomial(dispersion="per_feature"),
            pv.NegativeBinomial("learned", 0.5),
        ),
        log_prob=lambda x, mean, dispersion: _nbinom(mean, dispersion).logpmf(x),
        values=LONG,
    ),
    "Binomial": FamilyCase(
        family=pv.Binomial(TRIALS),
        roles=("prior", "likelihood"),
        data=_successes,
        parameters=lambda event, generator: {"total_count": _trials(event), "logits": between(-2, 2, event, generator)},
        start=lambda x: {"logits": torch.as_tensor(scipy.special.logit(_share(x)))},
        start_mean=lambda x: torch.as_tensor(TRIALS * _share(x)),
        variants=(pv.Binomial(TRIALS, 0.3), pv.Binomial(6, "learned"), pv.Binomial(6, "per_feature")),
        log_prob=lambda x, total_count, logits: scipy.stats.binom.logpmf(x, total_count, scipy.special.expit(logits)),
        values=tuple(range(TRIALS + 1)),
    ),
    "BetaBinomial": FamilyCase(
        family=pv.BetaBinomial(TRIALS),
        roles=("prior", "likelihood"),
        data=_successes,
        parameters=lambda event, generator: {
            "total_count": _trials(event),
            "concentration1": between(0.5, 5, event, generator),
            "concentration0": between(0.5, 5, event, generator),
        },
        start=_pseudo_counts,
        start_mean=lambda x: torch.as_tensor(TRIALS * _share(x)),
        variants=(
            pv.BetaBinomial(TRIALS, 2, 3),
            pv.BetaBinomial(6, "learned", "per_feature"),
            pv.BetaBinomial(6, concentration0="learned"),
        ),
        log_prob=lambda x, total_count, concentration1, concentration0: scipy.stats.betabinom.logpmf(
            x, total_count, concentration1, concentration0
        ),
        values=tuple(range(TRIALS + 1)),
    ),
    "ZeroInflated": FamilyCase(
        family=pv.ZeroInflated(pv.NegativeBinomial()),
        roles=("prior", "likelihood"),
        data=_counts,
        parameters=lambda event, generator: {
            "gate_logits": between(-2, 1, event, generator),
            **_mean_and_dispersion(event, generator),
        },
        start=_inflated_start,
        start_mean=lambda x: torch.sigmoid(-_inflated_start(x)["gate_logits"]) * x.mean(0),
        variants=(
            pv.ZeroInflated(pv.Poisson(), "learned"),
            pv.ZeroInflated(pv.NegativeBinomial(dispersion="learned"), "per_feature"),
            pv.ZeroInflated(pv.Binomial(12), -1),
            pv.ZeroInflated(pv.BetaBinomial(12, 2, "per_feature")),
        ),
        log_prob=_inflated_log_prob,
        write=_write_inflated,
        values=LONG,
    ),
}
