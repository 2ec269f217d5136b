"""Base of the methods that estimate evidence: log-weights of draws whose mean weight estimates p(x)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.core.calls import check_kind
from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError
from pyro_vae.model.programs import Programs
from pyro_vae.objectives.particles import Particles, draw_without_gradient
from pyro_vae.objectives.structure import sample_sites, structure_of

Batch = Mapping[str, Tensor]

MIN_TAIL_DRAWS = 25
"""Minimum number of draws for k-hat: the tail, the last fifth, needs five."""

MAX_ELEMENTS = 2**22
"""Maximum number of elements of a tensor, which bounds draws and rows at once: 16 MB in float32."""

MIN_WIDTH = 512
"""Number of elements per draw and row that a network is assumed to hold, where an event has fewer."""


@dataclass(frozen=True, eq=False)
class LogWeights:
    """Log-weights of K draws for each of B rows.

    Args:
        values: log w, (K, B), in float64 on the CPU; the mean of w estimates p(x).
        strata: the numbers of consecutive draws from each of several proposals; their sum is K.
        eps: the machine epsilon of the type in which they were computed.
        acceptance: the share of accepted transitions of each row, (B,), for draws of Markov chains.
    """

    values: Tensor
    strata: tuple[int, ...]
    eps: float
    acceptance: Tensor | None = None

    def estimate(self) -> tuple[Tensor, Tensor]:
        """Log p(x) and its Monte Carlo standard error by the delta method, (B,) each."""
        draws = len(self.values)
        log_p = self.values.logsumexp(0) - math.log(draws)
        relative = (self.values - log_p).exp()
        parts = [part for part in relative.split(list(self.strata)) if len(part)]
        variance = torch.stack([len(part) * part.var(0) for part in parts]).sum(0) / draws**2
        return log_p, variance.sqrt()

    def pareto_k(self) -> Tensor:
        """Pareto shape k of each row's weights, (B,)."""
        return torch.tensor([_pareto_k(row, self.eps) for row in self.values.T.numpy()], dtype=torch.float64)


class Method(Config, ABC):
    """Method of estimating evidence; subclasses declare their options as fields and define `build_sampler`."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """Number K of weights per row."""

    @abstractmethod
    def describe(self) -> str:
        """Description of the draws for a report: "1000 draws for each from the guide proposal"."""

    @property
    @abstractmethod
    def recommendation(self) -> str:
        """Recommendation for rows whose weights are unreliable."""

    def few_draws_warning(self, mcse: Tensor) -> str:
        """Warning where draws are too few for k-hat, given the error of each row (N,); empty if there is none."""
        return f"{self.draws} draws are too few for k-hat, so the tails are unknown: take 1000."

    @abstractmethod
    def build_sampler(self, programs: Programs) -> Callable[[Batch], LogWeights]:
        """Function of a batch to its log-weights; its first call checks the programs by a dry run.

        Raises:
            InputError: raised by the first call: the programs have no weight of each row.
        """


def check_method(method: Any) -> None:
    """Check that an argument is a method of estimating evidence.

    Raises:
        InputError: it is not.
    """
    check_kind("method", method, Method, "pv.criticism.Importance(draws=1000)")


def check_programs_by_row(programs: Programs, batch: Batch) -> tuple[Particles, int]:
    """Particles of a batch and the number of plate dimensions, from a dry run that checks for a log p(x) of each row.

    Raises:
        InputError: latents and data are not in one plate, or a site is scaled.
    """
    model, guide = programs.model, programs.guide
    if not structure_of(model, guide, (), batch).any_rows:
        raise InputError(
            f"these programs run on {len(batch['x'])} rows only, as with a plate of a fixed size or a parameter of "
            "each row, so they do not weigh one row: take sizes from x, as in pyro.plate('data', x.shape[0], dim=-1)."
        )
    particles, batch = dry_run(programs, batch)
    if not particles.by_rows:
        raise not_by_row_error(len(batch["x"]), particles.log_likelihood.shape[1])
    by_guide = poutine.trace(guide).get_trace(**batch)
    by_model = poutine.trace(poutine.replay(model, trace=by_guide)).get_trace(**batch)
    sites = [site for trace in (by_guide, by_model) for site in sample_sites(trace).values()]
    return particles, count_plate_dims(sites)


def dry_run(programs: Programs, batch: Batch) -> tuple[Particles, Batch]:
    """Particles of one draw for two rows, and these rows; for all, where programs take no other number of rows.

    Raises:
        InputError: model and guide do not match.
    """
    model, guide = programs.model, programs.guide
    structure_of(model, guide, (), batch)  # from all rows, which two could be taken for features
    pair = {name: tensor[[0, -1]] if len(tensor) > 1 else tensor for name, tensor in batch.items()}
    try:
        return draw_without_gradient(model, guide, 1, **pair), pair
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        return draw_without_gradient(model, guide, 1, **batch), batch


def not_by_row_error(rows: int, found: int) -> InputError:
    """Error of programs that have no weight of each row."""
    return InputError(
        f"these programs weigh {rows} rows as {found}, so there is no log p(x) of each: put latents and data "
        'in one plate, with pyro.plate("data", x.shape[0], dim=-1).'
    )


def count_plate_dims(sites: Iterable[Any]) -> int:
    """Number of plate dimensions of unscaled sites.

    Raises:
        InputError: a site is scaled.
    """
    sites = list(sites)
    check_unscaled(sites, "its weights do not estimate p(x)")
    plates = [plate for site in sites for plate in site["cond_indep_stack"] if plate.vectorized]
    return max((-(plate.dim or 0) for plate in plates), default=0)


def check_unscaled(sites: Iterable[Any], consequence: str) -> None:
    """Check that no site is scaled.

    Raises:
        InputError: a site is scaled; the message says the consequence.
    """
    if scaled := [site["name"] for site in sites if not bool((torch.as_tensor(site["scale"]) == 1).all())]:
        raise InputError(
            f"site {scaled[0]!r} is scaled, by poutine.scale or a plate that takes a batch for a part of the data, so "
            f"{consequence}: use unscaled programs, with a plate of x.shape[0] rows."
        )


def as_float64(log_prob: Tensor) -> Tensor:
    """Log-density in float64, on the CPU where the device has no float64."""
    return log_prob.cpu().double() if log_prob.device.type == "mps" else log_prob.double()


def _pareto_k(log_weights: np.ndarray, eps: float) -> float:
    from arviz_stats.base import array_stats  # here, for importing it takes seconds

    draws, ordered = len(log_weights), np.sort(log_weights)
    largest = ordered[-1]
    if draws < MIN_TAIL_DRAWS:
        return math.nan
    if largest == -math.inf:
        return math.inf
    if largest - ordered[0] <= 64 * eps * max(1.0, abs(largest)):  # equal but for rounding
        return 0.0
    tail = ordered[-int(min(draws / 5, 3 * math.sqrt(draws))) :]
    if np.exp(tail[len(tail) // 4] - largest) == 0:  # a few draws have all the weight, so no tail can be fitted
        return math.inf
    upper = ordered[-math.ceil(16 * math.sqrt(draws)) :]  # the tail, and enough below it
    with np.errstate(all="ignore"):
        try:  # negated, since it expects log p(x|z) = -log w; r_eff sets the length of the tail
            _, khat = array_stats.psislw(-upper, r_eff=len(upper) / draws)
        except ValueError:  # all of the tail is one value, so the weights are bounded
            return 0.0
    return float(khat) if math.isfinite(khat) else math.inf
