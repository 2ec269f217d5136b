"""Importance sampling from the guide, or from a proposal built on it."""

import contextlib
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.compile.tracing import Function, NotCompilable, compile_function
from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.criticism.methods.base import MIN_WIDTH, Batch, LogWeights, Method, as_float64, check_programs_by_row
from pyro_vae.criticism.refine import STEPS, check_vae, refine_batch
from pyro_vae.data.rows import Rows, chunk_ranges
from pyro_vae.distributions.wrappers import unwrap
from pyro_vae.model.programs import Programs, as_module, named_tensors
from pyro_vae.objectives.particles import Particles, draw_without_gradient

PRIOR_SHARE = 0.1
"""Weight of the prior in a defensive proposal."""

MAX_ELEMENTS_WEIGHED = 2**23 - 2**10
"""`MAX_ELEMENTS` of weights: larger, since fewer runs of Pyro's handlers save more than the memory costs, and just
below 32 MB in float32, from where glibc takes the memory of every tensor from the system anew."""

MAX_ELEMENTS_COMPILED = 2**20
"""The same for compiled chunks on a CPU, without handlers: 4 MB, which stay in the cache from kernel to kernel."""


@dataclass(frozen=True)
class Importance(Method):
    r"""Importance sampling from the guide, or from a proposal built on it.

    $$ p(x) = E_{r(z|x)} \frac{p(x, z)}{r(z|x)}, \qquad r = q(z|x) \quad\text{or}\quad r = 0.9\, q(z|x) + 0.1\, p(z) $$

    The defensive proposal bounds every weight by 10 p(x|z); its draws are stratified, a tenth from the prior (at least
    two; the weights of the mixture are the shares of draws). The refined proposal is the guide of a `pv.VAE` with its
    parameters for each row optimised first (`pv.refine`), which costs about 25 draws a step. Memory holds the
    log-weights of one batch and the tensors of `draws_at_once` draws, for any number of draws.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016 [burda2016],
            https://arxiv.org/abs/1509.00519.
        Hesterberg, Weighted Average Importance Sampling and Defensive Mixture Distributions, 1995 [hesterberg1995].
        Owen and Zhou, Safe and Effective Importance Sampling, 2000 [owen2000].
        Kim et al., Semi-Amortized Variational Autoencoders, 2018 [kim2018b], https://arxiv.org/abs/1802.02550.

    Args:
        draws: the number K of draws per row.
        proposal: the proposal, "guide", "defensive" or "refined".
        draws_at_once: draws of a row at once; by default, as many as give the largest tensor about 8 million elements,
            or 1 million where it is compiled for a CPU. As many rows are taken at once as still fit.
        steps: of the refinement; by default 100.
        compiled: whether draws from the guide are weighed by one compiled function, which takes about 20 seconds to
            compile, and a C++ compiler on a CPU: for many rows and thousands of draws.

    Raises:
        InputError: fewer than two draws from a component of the proposal; steps without refinement.

    >>> Importance(draws=5000)
    Importance(draws=5000, proposal='guide', draws_at_once=None, steps=None, compiled=False)
    """

    draws: int = field(1000, low=2)
    proposal: Literal["guide", "defensive", "refined"] = "guide"
    draws_at_once: int | None = field(None, low=1)
    steps: int | None = field(None, low=1)
    compiled: bool = False

    def __post_init__(self) -> None:
        """Check that each component of the proposal has two draws, and that steps belong to a refinement."""
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
        """Number of draws from the prior, the last ones."""
        return max(2, round(PRIOR_SHARE * self.draws)) if self.proposal == "defensive" else 0

    def describe(self) -> str:
        """Description of the draws."""
        refined = f", refined by {self.steps or STEPS} steps" if self.proposal == "refined" else ""
        return f"{self.draws} draws for each from the {self.proposal} proposal{refined}"

    @property
    def recommendation(self) -> str:
        """Recommendation for rows whose k-hat is large."""
        others = {"guide": " or proposal='defensive'", "refined": ", more steps or pv.criticism.AIS()"}
        wider = others.get(self.proposal, "")
        return (
            f"the {self.proposal} proposal is too narrow for the posterior there, or {self.draws} draws are too "
            f"few. Take more draws{wider}, or fit a guide with heavier tails, such as pv.StudentT()"
        )

    def build_sampler(self, programs: Programs) -> "ImportanceSampler":
        """Sampler of the log-weights of batches."""
        if self.proposal == "refined":
            check_vae(programs, "proposal='refined'")
        return ImportanceSampler(programs, self)


class ImportanceSampler:
    """Sampler of log-weights (K, B) of batches, in chunks of draws that bound memory."""

    def __init__(self, programs: Programs, method: Importance) -> None:
        self.programs, self.method = programs, method
        self.checked = False
        self.nesting = 1  # plate dimensions of the pair, from the dry run
        self.prior_draws: Any = None
        self.compiled: dict[tuple[int, int], Function] = {}  # by numbers of draws and of rows

    def __call__(self, batch: Batch) -> LogWeights:
        """Log-weights of a batch, by the method's proposal."""
        if not self.checked:
            self._check(batch)
        if self.method.proposal != "refined":
            return self.log_weights(self.programs, batch)
        vae: Any = self.programs
        refined = refine_batch(vae, batch, steps=self.method.steps or STEPS)
        return self.log_weights(refined, refined.rows.batch())

    def log_weights(self, programs: Programs, batch: Batch) -> LogWeights:
        """Log-weights of draws from the guide of some programs, and from the prior.

        A chunk has few rows with many draws rather than the reverse, since each chunk evaluates the guide at its rows.
        """
        from_prior, x = self.method.from_prior, batch["x"]
        from_guide = self.method.draws - from_prior
        numbers = MAX_ELEMENTS_COMPILED if self.method.compiled and x.device.type == "cpu" else MAX_ELEMENTS_WEIGHED
        budget = max(1, numbers // max(MIN_WIDTH, x[0].numel()))
        k = self.method.draws_at_once or _even_chunk_size(from_guide, budget)
        n = _even_chunk_size(len(x), max(1, budget // k))
        parts = [rows.batch() for rows in Rows(batch).chunks(n)]
        rows = [self._row_weights(programs, part, k, complete=len(part["x"]) == n) for part in parts]
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return LogWeights(torch.cat(rows, 1), (from_guide, from_prior), torch.finfo(dtype).eps)

    def _row_weights(self, programs: Programs, batch: Batch, at_once: int, *, complete: bool) -> Tensor:
        """Log-weights of some rows, on the CPU."""
        model, from_prior = programs.model, self.method.from_prior
        sizes = map(len, chunk_ranges(self.method.draws - from_prior, at_once))
        chunks = [self._chunk(programs, k, complete and k == at_once, batch) for k in sizes]
        for k in map(len, chunk_ranges(from_prior, at_once)):
            with pyro.plate("particles", k, dim=-self.nesting - 1) if k > 1 else contextlib.nullcontext():
                self.prior_draws = prune_subsample_sites(poutine.trace(model).get_trace(**batch))
            try:
                chunks.append(self._weights(draw_without_gradient(model, self.replayed, k, **batch)))
            except NotImplementedError:
                raise InputError(
                    "this guide can score its own draws only, and a defensive proposal needs its density at draws from "
                    "the prior: take proposal='guide'."
                ) from None
        return torch.cat(chunks).cpu()

    def _chunk(self, programs: Programs, k: int, complete: bool, batch: Batch) -> Tensor:
        """Log-weights of K draws from the guide; chunks of the full size may be compiled."""

        def chunk(batch: Batch) -> Tensor:
            return self._weights(draw_without_gradient(programs.model, programs.guide, k, **batch))

        if not (self.method.compiled and complete):
            return chunk(batch)
        shape = (k, len(batch["x"]))
        if shape not in self.compiled:
            try:
                weights = {"held": named_tensors(as_module(programs))}
                self.compiled[shape] = compile_function(chunk, weights, dict(batch))
            except NotCompilable as reason:
                warnings.warn(f"evidence runs uncompiled, for compiling failed ({reason}).", stacklevel=2)
                self.compiled[shape] = chunk
        return self.compiled[shape](dict(batch))

    def replayed(self, **batch: Tensor) -> Any:
        """Guide at draws from the prior; a method, so that its plates are found once."""
        return poutine.replay(self.programs.guide, trace=self.prior_draws)(**batch)

    def _weights(self, particles: Particles) -> Tensor:
        latents = particles.latents.values()
        nothing = torch.zeros((), dtype=torch.float64)
        log_prior = sum((as_float64(latent.log_prior) for latent in latents), nothing)
        log_proposal = sum((as_float64(latent.log_posterior) for latent in latents), nothing)
        if self.method.from_prior:
            share = self.method.from_prior / self.method.draws
            log_proposal = torch.logaddexp(log_proposal + math.log1p(-share), log_prior + math.log(share))
        return as_float64(particles.log_likelihood) + log_prior - log_proposal

    def _check(self, batch: Batch) -> None:
        """Check by a dry run on two rows that the programs have a weight of each row.

        With auxiliary sites the guide's density is known only if all other sites are functions of them.
        """
        particles, self.nesting = check_programs_by_row(self.programs, batch)
        self.checked, latents = True, particles.latents
        moved = all(isinstance(unwrap(at.posterior), Delta) for at in latents.values() if at.prior is not None)
        extra = [name for name, at in latents.items() if at.prior is None]
        if extra and (self.method.from_prior or not moved):
            where = (
                "at draws from the prior: take proposal='guide'." if moved else "at its draws: do without that site."
            )
            raise InputError(
                f"site {extra[0]!r} of the guide is auxiliary, so the guide's density is not known {where}"
            )


def _even_chunk_size(total: int, most: int) -> int:
    """Size of chunks, at most `most`, with the smallest remainder: less than the number of chunks."""
    return total // math.ceil(total / most)
