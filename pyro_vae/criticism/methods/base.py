"""A method of measuring evidence: log weights of draws whose mean weight estimates p(x), and what they tell."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError
from pyro_vae.model.programs import Programs
from pyro_vae.objectives.particles import Particles, draw, sample_sites

Batch = Mapping[str, Tensor]

TAIL = 25
"""Draws below which no tail can be fitted: five are needed in the last fifth."""

NUMBERS_AT_ONCE = 2**22
"""Numbers in the largest tensor, by which draws and rows at once are chosen: 16 MB in float32."""

WIDTH = 512
"""Numbers that a network is taken to hold per draw and row, where an event has fewer."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Log weights of K draws for each of B rows.

    Args:
        log: log w, (K, B), in float64 on the CPU; the mean of w estimates p(x).
        strata: how many of the draws, one after the other, were drawn from each of several proposals; their sum is K.
        eps: the rounding error of the type in which they were computed.
        acceptance: for draws that moved, the share of their moves that was accepted, (B,).
    """

    log: Tensor
    strata: tuple[int, ...]
    eps: float
    acceptance: Tensor | None = None

    def estimate(self) -> tuple[Tensor, Tensor]:
        """Log p(x), and its standard error by the delta method, each (B,)."""
        draws = len(self.log)
        log_p = self.log.logsumexp(0) - math.log(draws)
        relative = (self.log - log_p).exp()
        parts = [part for part in relative.split(list(self.strata)) if len(part)]
        variance = torch.stack([len(part) * part.var(0) for part in parts]).sum(0) / draws**2
        return log_p, variance.sqrt()

    def khats(self) -> Tensor:
        """The Pareto shape k of each row's weights, (B,)."""
        return torch.tensor([_khat(row, self.eps) for row in self.log.T.numpy()], dtype=torch.float64)


class Method(Config, ABC):
    """Base of every method: declare its options as dataclass fields and write `weigher`."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """The number K of weights per row."""

    @property
    @abstractmethod
    def told(self) -> str:
        """What the draws are, for a report: "draws for each from the guide proposal"."""

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do where the weights cannot be trusted."""

    def untold(self, error: Tensor) -> str:
        """What to say, with this error of each row (N,), where there are too few draws for k-hat; empty if nothing."""
        return f"{self.draws} draws are too few for k-hat, so nothing is known of the tails: take 1000."

    @abstractmethod
    def weigher(self, programs: Programs) -> Callable[[Batch], Weights]:
        """Prepare to weigh batches of rows; the first one is checked by a dry run.

        Raises:
            InputError: by the first call: programs whose record is no weight of each row.
        """


def check_rows(programs: Programs, batch: Batch) -> tuple[Particles, int]:
    """Refuse, by a dry run on two rows, programs that have no log p(x) of each row.

    Returns:
        The record of the two rows, and the number of plate dimensions.

    Raises:
        InputError: latents and data are not in one plate, or a site is scaled.
    """
    model, guide = programs.model, programs.guide
    batch = {name: tensor[:2] for name, tensor in batch.items()}
    particles = draw(model, guide, 1, **batch)
    rows, found = len(batch["x"]), particles.log_likelihood.shape[1]
    if found != rows:
        raise not_weighed(rows, found)
    by_guide = poutine.trace(guide).get_trace(**batch)
    by_model = poutine.trace(poutine.replay(model, trace=by_guide)).get_trace(**batch)
    sites = [site for trace in (by_guide, by_model) for site in sample_sites(trace).values()]
    return particles, unscaled(sites)


def not_weighed(rows: int, found: int) -> InputError:
    """What to say of programs whose rows are not weighed one by one."""
    return InputError(
        f"these programs weigh {rows} rows as {found}, so there is no log p(x) of each: put latents and data "
        'in one plate, with pyro.plate("data", x.shape[0], dim=-1).'
    )


def unscaled(sites: Iterable[Any]) -> int:
    """The number of plate dimensions of some sites, none of which may be scaled.

    Raises:
        InputError: a site is.
    """
    sites = list(sites)
    if scaled := [site["name"] for site in sites if not bool((torch.as_tensor(site["scale"]) == 1).all())]:
        raise InputError(
            f"site {scaled[0]!r} is scaled, by poutine.scale or a plate that takes a batch for a part of the data, "
            "so its weights are no p(x): evaluate the programs unscaled, with a plate of x.shape[0] rows."
        )
    plates = [plate for site in sites for plate in site["cond_indep_stack"] if plate.vectorized]
    return max((-(plate.dim or 0) for plate in plates), default=0)


def wide(log_prob: Tensor) -> Tensor:
    """A log-density in float64, or on the CPU where a device has none."""
    return log_prob.cpu().double() if log_prob.device.type == "mps" else log_prob.double()


def _khat(log_weights: np.ndarray, eps: float) -> float:
    from arviz_stats.base import array_stats  # here, for importing it takes seconds

    draws, ordered = len(log_weights), np.sort(log_weights)
    largest = ordered[-1]
    if draws < TAIL:
        return math.nan
    if largest == -math.inf:
        return math.inf
    if largest - ordered[0] <= 64 * eps * max(1.0, abs(largest)):  # only rounding tells them apart
        return 0.0
    tail = ordered[-int(min(draws / 5, 3 * math.sqrt(draws))) :]
    if np.exp(tail[len(tail) // 4] - largest) == 0:  # nothing is left of the tail beside a few draws: no fit
        return math.inf
    upper = ordered[-math.ceil(16 * math.sqrt(draws)) :]  # the tail, and enough below it
    with np.errstate(all="ignore"):
        try:  # with minus, for it was made for leave-one-out, w = 1 / p(x|z); the share says how long the tail is
            _, khat = array_stats.psislw(-upper, r_eff=len(upper) / draws)
        except ValueError:  # the whole tail is one value, so the weights are bounded
            return 0.0
    return float(khat) if math.isfinite(khat) else math.inf
