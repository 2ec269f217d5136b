"""Importance sampling: draws from a proposal that reaches wherever the posterior has mass."""

import contextlib
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor

from pyro_vae.compile.tracing import Function, NotCompilable, compile_function
from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.criticism.methods.base import WIDTH, Batch, Method, Weights, check_rows, wide
from pyro_vae.criticism.refine import STEPS, refine_batch, require_vae
from pyro_vae.data.rows import Rows, chunk_ranges
from pyro_vae.distributions.wrappers import unwrap
from pyro_vae.model.programs import Programs, as_module, named_tensors
from pyro_vae.objectives.particles import Particles, draw

PRIOR_SHARE = 0.1
"""What a defensive proposal holds of the prior."""

WEIGHED_AT_ONCE = 2**23 - 2**10
"""`NUMBERS_AT_ONCE` for weights, which gain more from fewer runs of handlers than they lose in memory: just below 32 MB
in float32, for from there on glibc takes memory for every tensor from the system anew."""

COMPILED_AT_ONCE = 2**20
"""The same on a processor where none is run for each chunk: 4 MB, which a cache keeps from kernel to kernel."""


@dataclass(frozen=True)
class Importance(Method):
    r"""Importance sampling from the guide, or from a proposal that is made of it.

    $$ p(x) = E_{r(z|x)} \frac{p(x, z)}{r(z|x)}, \qquad r = q(z|x) \quad\text{or}\quad r = 0.9\, q(z|x) + 0.1\, p(z) $$

    The defensive proposal bounds every weight by 10 p(x|z); its draws are stratified, a tenth from the prior (two at
    least, the mixture's weights being what was drawn). The refined proposal is the guide of a `pv.VAE` with its
    parameters for each row optimised first (`pv.refine`), which costs about 25 draws a step. Memory holds the
    log-weights of one batch, and beside them what a batch of `draws_at_once` draws needs, however many draws there are.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519.
        Hesterberg, Weighted Average Importance Sampling and Defensive Mixture Distributions, 1995.
        Owen and Zhou, Safe and Effective Importance Sampling, 2000.
        Kim et al., Semi-Amortized Variational Autoencoders, 2018, https://arxiv.org/abs/1802.02550.

    Args:
        draws: the number K of draws per row.
        proposal: what they are drawn from, "guide", "defensive" or "refined".
        draws_at_once: draws at once for a row; by default, so many that the largest tensor has about 8 million numbers,
            or 1 million where it is compiled for a CPU. Rows are taken together as far as that leaves room.
        steps: of the refinement; by default 100.
        compiled: whether draws from the guide are weighed by one compiled function, which takes some 20 seconds to
            make and a C++ compiler on a CPU: for many rows and thousands of draws.

    Raises:
        InputError: fewer draws than tell an error: two from each component of the proposal; steps without refinement.

    >>> Importance(draws=5000)
    Importance(draws=5000, proposal='guide', draws_at_once=None, steps=None, compiled=False)
    """

    draws: int = field(1000, low=2)
    proposal: Literal["guide", "defensive", "refined"] = "guide"
    draws_at_once: int | None = field(None, low=1)
    steps: int | None = field(None, low=1)
    compiled: bool = False

    def __post_init__(self) -> None:
        """Check that each component of the proposal has two draws, and that steps are of a refinement."""
        super().__post_init__()
        if self.steps is not None and self.proposal != "refined":
            raise InputError(
                f"Importance.steps = {self.steps} are steps of a refinement, and the {self.proposal} proposal has "
                "none: write proposal='refined', or leave steps out."
            )
        if self.compiled and self.proposal == "refined":
            raise InputError(
                "Importance.compiled is for one guide and many batches, and a refined proposal is another guide for "
                "each: leave one of the two out."
            )
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
        refined = f", refined by {self.steps or STEPS} steps" if self.proposal == "refined" else ""
        return f"{self.draws} draws for each from the {self.proposal} proposal{refined}"

    @property
    def remedy(self) -> str:
        """What to do where k-hat is large."""
        others = {"guide": " or proposal='defensive'", "refined": ", more steps or pv.criticism.AIS()"}
        wider = others.get(self.proposal, "")
        return (
            f"the {self.proposal} proposal is too narrow for the posterior there, or {self.draws} draws are too few to "
            f"tell. Take more draws{wider}, or fit a guide with heavier tails, such as pv.StudentT()"
        )

    def weigher(self, programs: Programs) -> "Weigher":
        """Prepare to weigh batches."""
        if self.proposal == "refined":
            require_vae(programs, "proposal='refined'")
        return Weigher(programs, self)


class Weigher:
    """Log-weights (K, B) of a batch, where only chunks of draws are held whole."""

    def __init__(self, programs: Programs, method: Importance) -> None:
        self.programs, self.method = programs, method
        self.checked = False
        self.nesting = 1  # plate dimensions of the pair, as the dry run shows
        self.prior_draws: Any = None
        self.compiled: dict[tuple[int, int], Function] = {}  # by numbers of draws and of rows

    def __call__(self, batch: Batch) -> Weights:
        """Weigh a batch by the method's proposal."""
        if not self.checked:
            self._check(batch)
        if self.method.proposal != "refined":
            return self.weigh(self.programs, batch)
        vae: Any = self.programs
        refined = refine_batch(vae, batch, steps=self.method.steps or STEPS)
        return self.weigh(refined, refined.rows.batch())

    def weigh(self, programs: Programs, batch: Batch) -> Weights:
        """Weigh draws from the guide of these programs, and of the prior.

        Few rows with many draws go together rather than the reverse, for a guide looks at its rows in every chunk.
        """
        from_prior, x = self.method.from_prior, batch["x"]
        from_guide = self.method.draws - from_prior
        numbers = COMPILED_AT_ONCE if self.method.compiled and x.device.type == "cpu" else WEIGHED_AT_ONCE
        room = max(1, numbers // max(WIDTH, x[0].numel()))
        k = self.method.draws_at_once or _even(from_guide, room)
        n = _even(len(x), max(1, room // k))
        parts = [rows.batch() for rows in Rows(batch).chunks(n)]
        rows = [self._rows(programs, part, k, whole=len(part["x"]) == n) for part in parts]
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return Weights(torch.cat(rows, 1), (from_guide, from_prior), torch.finfo(dtype).eps)

    def _rows(self, programs: Programs, batch: Batch, at_once: int, *, whole: bool) -> Tensor:
        """Log-weights of some rows, on the CPU."""
        model, from_prior = programs.model, self.method.from_prior
        sizes = map(len, chunk_ranges(self.method.draws - from_prior, at_once))
        chunks = [self._chunk(programs, k, whole and k == at_once, batch) for k in sizes]
        for k in map(len, chunk_ranges(from_prior, at_once)):
            with pyro.plate("particles", k, dim=-self.nesting - 1) if k > 1 else contextlib.nullcontext():
                self.prior_draws = poutine.trace(model).get_trace(**batch)
            try:
                chunks.append(self._weights(draw(model, self.replayed, k, **batch)))
            except NotImplementedError:
                raise InputError(
                    "this guide can score its own draws only, and a defensive proposal needs its density at draws from "
                    "the prior: take proposal='guide'."
                ) from None
        return torch.cat(chunks).cpu()

    def _chunk(self, programs: Programs, k: int, whole: bool, batch: Batch) -> Tensor:
        """Log-weights of K draws from the guide; chunks of the whole size may be compiled."""

        def chunk(batch: Batch) -> Tensor:
            return self._weights(draw(programs.model, programs.guide, k, **batch))

        if not (self.method.compiled and whole):
            return chunk(batch)
        shape = (k, len(batch["x"]))
        if shape not in self.compiled:
            try:
                self.compiled[shape] = compile_function(
                    chunk, {"held": named_tensors(as_module(programs))}, dict(batch)
                )
            except NotCompilable as reason:
                warnings.warn(f"evidence runs uncompiled, for compiling failed ({reason}).", stacklevel=2)
                self.compiled[shape] = chunk
        return self.compiled[shape](dict(batch))

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
        moved = all(isinstance(unwrap(at.posterior), Delta) for at in latents.values() if at.prior is not None)
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


def _even(total: int, most: int) -> int:
    """The size of chunks, each at most so large, that leaves the smallest rest: fewer than there are chunks."""
    return total // math.ceil(total / most)
