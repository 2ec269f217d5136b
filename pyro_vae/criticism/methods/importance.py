"""Importance sampling: draws from a proposal that reaches wherever the posterior has mass."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor

from pyro_vae.criticism.methods.base import Batch, Method, Weights, check_rows, wide
from pyro_vae.declared import option
from pyro_vae.distributions import innermost
from pyro_vae.errors import InputError
from pyro_vae.objectives.particles import Particles, draw
from pyro_vae.training.programs import Programs

PRIOR_SHARE = 0.1
"""What a defensive proposal holds of the prior."""

NUMBERS_AT_ONCE = 2**22
"""Numbers in the largest tensor, by which `draws_at_once` is chosen: 16 MB in float32."""

WIDTH = 512
"""Numbers that a network is taken to hold per draw and row, where an event has fewer."""


@dataclass(frozen=True)
class Importance(Method):
    r"""Importance sampling from the guide, or from a proposal that is made of it.

    $$ p(x) = E_{r(z|x)} \frac{p(x, z)}{r(z|x)}, \qquad r = q(z|x) \quad\text{or}\quad r = 0.9\, q(z|x) + 0.1\, p(z) $$

    The defensive proposal bounds every weight by 10 p(x|z); its draws are stratified, a tenth from the prior (two at
    least, the mixture's weights being what was drawn). Memory holds the log-weights of one batch, and beside them
    what a batch of `draws_at_once` draws needs, however many draws there are.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519.
        Hesterberg, Weighted Average Importance Sampling and Defensive Mixture Distributions, 1995.
        Owen and Zhou, Safe and Effective Importance Sampling, 2000.

    Args:
        draws: the number K of draws per row.
        proposal: what they are drawn from, "guide" or "defensive".
        draws_at_once: draws at once; by default, so many that the largest tensor has about 4 million numbers.

    Raises:
        InputError: fewer draws than tell an error: two from each component of the proposal.

    >>> Importance(draws=5000)
    Importance(draws=5000, proposal='guide', draws_at_once=None)
    """

    draws: int = option(1000, low=2)
    proposal: Literal["guide", "defensive"] = "guide"
    draws_at_once: int | None = option(None, low=1)

    def __post_init__(self) -> None:
        """Check that each component of the proposal has two draws."""
        super().__post_init__()
        if self.draws < 4 and self.from_prior:
            raise InputError(
                f"Importance.draws = {self.draws} has to be at least 4 for a defensive proposal: two from each of its "
                "components."
            )

    @property
    def from_prior(self) -> int:
        """How many of the draws, the last ones, are drawn from the prior."""
        return max(2, round(PRIOR_SHARE * self.draws)) if self.proposal == "defensive" else 0

    @property
    def told(self) -> str:
        """What the draws are."""
        return f"{self.draws} draws for each from the {self.proposal} proposal"

    @property
    def remedy(self) -> str:
        """What to do where k-hat is large."""
        wider = " or proposal='defensive'" if self.proposal == "guide" else ""
        return (
            f"the {self.proposal} proposal is too narrow for the posterior there, or {self.draws} draws are too few to "
            f"tell. Take more draws{wider}, or fit a guide with heavier tails, such as pv.StudentT()"
        )

    def start(self, programs: Programs) -> "_Weigher":
        """Prepare to weigh batches."""
        return _Weigher(programs, self)


class _Weigher:
    """Log-weights (K, B) of a batch, where only chunks of draws are held whole."""

    def __init__(self, programs: Programs, method: Importance) -> None:
        self.programs, self.method = programs, method
        self.checked = False
        self.nesting = 1  # plate dimensions of the pair, as the dry run shows
        self.prior_draws: Any = None

    def __call__(self, batch: Batch) -> Weights:
        if not self.checked:
            self._check(batch)
        model, guide = self.programs.model, self.programs.guide
        draws, from_prior, x = self.method.draws, self.method.from_prior, batch["x"]
        at_once = self.method.draws_at_once or max(1, NUMBERS_AT_ONCE // (len(x) * max(WIDTH, x[0].numel())))
        chunks = [self._weights(draw(model, guide, k, **batch)) for k in _sizes(draws - from_prior, at_once)]
        for k in _sizes(from_prior, at_once):
            with pyro.plate("particles", k, dim=-self.nesting - 1) if k > 1 else contextlib.nullcontext():
                self.prior_draws = poutine.trace(model).get_trace(**batch)
            try:
                chunks.append(self._weights(draw(model, self.replayed, k, **batch)))
            except NotImplementedError:
                raise InputError(
                    "this guide can score its own draws only, and a defensive proposal needs its density at draws from "
                    "the prior: take proposal='guide'."
                ) from None
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return Weights(torch.cat(chunks).cpu(), (draws - from_prior, from_prior), torch.finfo(dtype).eps)

    def replayed(self, **batch: Tensor) -> Any:
        """The guide at draws from the prior; one method, so that its plates are looked for once."""
        return poutine.replay(self.programs.guide, trace=self.prior_draws)(**batch)

    def _weights(self, particles: Particles) -> Tensor:
        latents = particles.latents.values()
        nothing = torch.zeros((), dtype=torch.float64)
        log_prior = sum((wide(latent.log_prior) for latent in latents), nothing)
        log_proposal = sum((wide(latent.log_posterior) for latent in latents), nothing)
        if self.method.from_prior:
            share = self.method.from_prior / self.method.draws
            log_proposal = torch.logaddexp(log_proposal + math.log1p(-share), log_prior + math.log(share))
        return wide(particles.log_likelihood) + log_prior - log_proposal

    def _check(self, batch: Batch) -> None:
        """Refuse, by a dry run on two rows, programs whose record is no weight of each row."""
        particles, self.nesting = check_rows(self.programs, batch)
        self._check_auxiliary(particles)
        self.checked = True

    def _check_auxiliary(self, particles: Particles) -> None:
        """An auxiliary site leaves the guide's density known only where all others are functions of it."""
        latents = particles.latents
        moved = all(isinstance(innermost(at.posterior), Delta) for at in latents.values() if at.prior is not None)
        extra = [name for name, at in latents.items() if at.prior is None]
        if extra and (self.method.from_prior or not moved):
            raise InputError(
                f"site {extra[0]!r} of the guide is auxiliary, so the guide's density is not known "
                + (
                    "at draws from the prior: take proposal='guide'."
                    if moved
                    else "at its draws: do without that site."
                )
            )


def _sizes(draws: int, at_once: int) -> Iterator[int]:
    return (min(at_once, draws - start) for start in range(0, draws, at_once))
