"""Semi-amortised posteriors: the encoder's posterior of each row, optimised further for that row.

An amortised guide is one network for all rows, so its posterior of a row is not the best of its family. Some steps of
stochastic variational inference per row, at test time, improve it, and measure by how much.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers, is_real
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.session import DENSITY_FAILS, EvaluationSession, check_rows
from pyro_vae.data.rows import Rows
from pyro_vae.distributions.wrappers import expand_right
from pyro_vae.model.vae import VAE
from pyro_vae.objectives.elbo import ELBO
from pyro_vae.objectives.particles import draw_without_gradient

STEPS, LR, PARTICLES = 100, 0.2, 8
"""Defaults: steps, the first step size on the unconstrained scale, and draws per step."""

BETAS, EPS = (0.9, 0.95), 0.1
"""Of Adam: gradients, which shrink by orders of magnitude, are averaged over about 20 steps, and not scaled up."""

COMPARISON_DRAWS = 64
"""Draws with the same random numbers by which the end of a refinement is compared with its start."""

EQUAL_WEIGHTS = 1e-3
"""Standard deviation of log-weights, in nats, below which a posterior is exact but for rounding: a gap of 5e-7 nats."""

ELBO_FAILS = f"the bound of row {{row}} is not finite: {DENSITY_FAILS}"


@dataclass(frozen=True, eq=False, repr=False)
class Refined:
    r"""Posteriors of N rows, each optimised within the guide's family: a pair of programs for these rows.

    $$ q_n(z) = q(z; \lambda_n), \qquad
       \lambda_n \approx \arg\max_\lambda E_{q(z; \lambda)} \log p(x_n, z) - \log q(z; \lambda) $$

    The guide takes the numbers of its rows from the batch: `row`, (B,), beside x and further tensors.

    `pv.evidence(refined, refined.rows)`, objectives and Pyro's tools run on `refined.rows.batch()`, or on some of
    these rows. A row's posterior is never worse than the encoder's, by the bound on the same draws.

    Args:
        vae: the VAE, unchanged, with the guide's family and the parameters that all rows share.
        raw: the guide's parameters that depend on x, by name, (N, *raw shape), unconstrained.
        rows: the given rows, with "row", the number of each, (N,).
        start: the ELBO of each row with the encoder's values, (N,), in nats, in float64 on the CPU, by 64 draws.
        bound: the ELBO with the refined values, (N,), by the same draws.
        steps: the number of steps.
    """

    vae: VAE
    raw: Mapping[str, Tensor]
    rows: Rows
    start: Tensor
    bound: Tensor
    steps: int

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(next(iter(self.raw.values())))

    def model(
        self, x: Tensor | None = None, *, rows: int | None = None, row: Tensor | None = None, **given: Tensor
    ) -> Tensor:
        """Generative program, `VAE.model`, the same for all rows."""
        return self.vae.model(x, rows=rows if row is None else len(row), **given)

    def guide(self, x: Tensor, row: Tensor | None = None, **given: Tensor) -> Tensor:
        """Posterior program: z ~ q_n(z).

        Args:
            x: data (B, *event_shape).
            row: the number n of each row, (B,).
            given: further named tensors of the batch, which are not used.

        Raises:
            InputError: `row` is missing.
        """
        if row is None:
            raise self._missing_row_error()
        with pyro.plate("data", x.shape[0], dim=-1):
            drawn: Tensor = pyro.sample("z", self.posterior(row))
        return drawn

    def posterior(self, row: Tensor | None = None) -> TorchDistribution:
        """Distributions q_n(z), batch shape (B,).

        Args:
            row: the numbers n of some rows, (B,); by default all, in their order.
        """
        reference = self.vae.posterior.device_tensor
        raw = {name: values.to(reference) for name, values in self.raw.items()}
        if row is not None:
            raw = {name: values[row] for name, values in raw.items()}
        return self.vae.posterior.from_raw(raw, (len(self if row is None else row),))

    def check(self, batch: dict[str, Any]) -> None:
        """Check named tensors as `VAE.check` does, and the numbers of rows.

        Raises:
            InputError: as there, or the numbers of rows are missing or not in 0 to N - 1.
        """
        self.vae.check({name: tensor for name, tensor in batch.items() if name != "row"})
        row = batch.get("row")
        if row is None:
            raise self._missing_row_error()
        if row.dtype != torch.int64 or row.ndim != 1 or not 0 <= int(row.min()) <= int(row.max()) < len(self):
            raise InputError(
                f"'row' has to hold the numbers of rows, int64 from 0 to {len(self) - 1} of shape (N,): take both x "
                "and 'row' from refined.rows, as in refined.rows.batch(slice(0, 10))."
            )

    def no_param_store(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the programs register no weights in Pyro's store."""
        return self.vae.no_param_store()

    @property
    def caveat(self) -> str:
        """Caveat to be reported with the log-likelihood; empty for a density."""
        return self.vae.caveat

    @property
    def is_pixel(self) -> bool:
        """Whether log-likelihoods are those of pixel levels."""
        return self.vae.is_pixel

    def _missing_row_error(self) -> InputError:
        return InputError(
            f"these are posteriors of {len(self)} rows, and without 'row', their numbers, the rows of x are not "
            "identified: give refined.rows, as in pv.evidence(refined, refined.rows)."
        )

    @property
    def gain(self) -> Tensor:
        """Gain in the ELBO of each row, (N,), in nats; never negative."""
        return self.bound - self.start

    def __repr__(self) -> str:
        """Summary in a few lines."""
        gain, kept = self.gain, int((self.gain <= 0).sum())
        error = f" (standard error {float(gain.std()) / math.sqrt(len(self)):.2g} over rows)" if len(self) > 1 else ""
        lines = [
            f"posteriors of {len(self)} rows, refined by {self.steps} steps",
            f"ELBO {float(self.start.mean()):.3f} -> {float(self.bound.mean()):.3f} nats per row, a gain of "
            f"{float(gain.mean()):.3g}{error}: the amortisation gap of the encoder",
            f"{kept} rows keep the encoder's values, since no better ones were found",
        ]
        return "\n".join(lines + [f"Note: {self.caveat}."] * bool(self.caveat))


@explained
def refine(
    vae: VAE,
    x: Any,
    *,
    steps: int = STEPS,
    lr: float = LR,
    particles: int = PARTICLES,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Refined:
    """Posteriors of rows, refined by optimising the guide's parameters of each row from the encoder's values.

    The outputs of the encoder's network for a row are optimised by Adam to maximise the ELBO, with a cosine decay of
    the step size and the "stl" gradient, whose noise vanishes at the exact posterior. The decoder, the prior and
    parameters that rows share (a constant, the weights of a flow) are fixed. The better of start and end is kept for
    each row, by the ELBO of the same draws. The number of steps suffices where more of them do not change `gain`.

    References:
        Kim et al., Semi-Amortized Variational Autoencoders, 2018 [kim2018b], https://arxiv.org/abs/1802.02550.
        Cremer, Li and Duvenaud, Inference Suboptimality in Variational Autoencoders, 2018 [cremer2018],
            https://arxiv.org/abs/1801.03558.
        Hjelm et al., Iterative Refinement of the Approximate Posterior for Directed Belief Networks, 2016 [hjelm2016],
            https://arxiv.org/abs/1511.06382.

    Args:
        vae: the VAE; its weights do not change.
        x: rows (N, *event_shape), as for `fit`, with `mask` and `size_factor` where the model takes them.
        steps: the number of steps.
        lr: the first step size, on the unconstrained scale (a log scale for positive parameters).
        particles: draws per row and step.
        batch_size: rows at once.
        seed: of draws and binarisation; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        The refined posteriors, a pair of programs for `Refined.rows`.

    Raises:
        InputError: the programs are not a `pv.VAE`, or an argument or data that cannot be used.
        FloatingPointError: the ELBO of a row is not finite.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> refined = pv.refine(vae, torch.zeros(5, 3), steps=20)
    >>> refined.posterior().batch_shape, bool((refined.gain >= 0).all())
    (torch.Size([5]), True)
    >>> pv.evidence(refined, refined.rows).pointwise.shape
    torch.Size([5])
    """
    check_vae(vae, "refine")
    check_refinement(steps, lr, particles, batch_size, seed)
    session = EvaluationSession.of(vae, x)
    parts: list[Refined] = []
    with session.activate(seed):
        for start, batch in session.batches(batch_size, "refining", progress):
            parts.append(refine_batch(vae, batch, steps=steps, lr=lr, particles=particles))
            check_rows(parts[-1].bound.isfinite(), start, ELBO_FAILS)
    return Refined(
        vae,
        {name: torch.cat([part.raw[name] for part in parts]) for name in parts[0].raw},
        _with_row_numbers(session.rows),
        torch.cat([part.start for part in parts]),
        torch.cat([part.bound for part in parts]),
        steps,
    )


def refine_batch(
    vae: VAE, batch: Mapping[str, Tensor], *, steps: int = STEPS, lr: float = LR, particles: int = PARTICLES
) -> Refined:
    """Refined posteriors of one batch on the VAE's device, with torch's global random numbers; see `refine`.

    The VAE has to be in evaluation mode and outside of Pyro's store.
    """
    rows = _with_row_numbers(Rows(batch))
    with torch.no_grad():
        first = vae.posterior.raw_parameters(
            vae.normalize_size(batch["x"], batch.get("size_factor")), seen=batch.get("mask")
        )
    free = {name: raw.clone().requires_grad_() for name, raw in first.items()}
    unknown = torch.full((len(rows),), math.nan, dtype=torch.float64)
    pair = Refined(vae, free, rows, unknown, unknown, steps)
    leaves, objective = list(free.values()), ELBO(particles=particles, estimator="stl")
    optimizer = torch.optim.Adam(leaves, lr, betas=BETAS, eps=EPS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        with torch.enable_grad():
            loss = objective.differentiable_loss(pair.model, pair.guide, **rows.tensors)
            # of the leaves alone: weights of the model get no gradient
            for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves, materialize_grads=True), strict=True):
                leaf.grad = gradient
        optimizer.step()
        schedule.step()
    last = {name: raw.detach() for name, raw in free.items()}
    seed = int(torch.randint(2**62, ()))
    before, after = (_log_weights(replace(pair, raw=raw), particles, seed) for raw in (first, last))
    start, end = before.mean(0), after.mean(0)
    better = (end > start) & (before.std(0) > EQUAL_WEIGHTS)  # false where the end is NaN
    chosen = {
        name: torch.where(expand_right(better.to(at.device), at.ndim - 1), last[name], at) for name, at in first.items()
    }
    return replace(pair, raw=chosen, start=start, bound=torch.where(better, end, start))


def check_vae(vae: Any, what: str) -> None:
    """Check that programs are a VAE whose guide is the encoder's distribution.

    Raises:
        InputError: they are not.
    """
    if not isinstance(vae, VAE) or (type(vae).guide, type(vae).encode) != (VAE.guide, VAE.encode):
        raise InputError(
            f"{what} optimises the outputs of a pv.VAE's encoder for each row, and {type(vae).__name__} has a guide of "
            "its own, whose outputs cannot be distinguished from weights: declare a pv.VAE(...), or write a guide with "
            "pyro.param of shape (N, ...) in its plate and train it by SVI."
        )


def check_refinement(steps: Any, lr: Any, particles: Any, batch_size: Any, seed: Any) -> None:
    """Check the arguments of `refine`.

    Raises:
        InputError: the step size is not a finite number above 0, or another one not an integer in its range.
    """
    check_integers(steps=(steps, 1), particles=(particles, 1), batch_size=(batch_size, 1), seed=(seed, 0))
    if not is_real(lr) or not 0 < lr < math.inf:
        raise InputError(
            f"lr = {lr!r} has to be a number above 0, the first step on the unconstrained scale: take lr={LR}."
        )


def _with_row_numbers(rows: Rows) -> Rows:
    """Rows with their numbers as the tensor "row"."""
    return replace(rows, tensors={**rows.tensors, "row": torch.arange(len(rows), device=rows.x.device)})


@torch.no_grad()
def _log_weights(pair: Refined, at_once: int, seed: int) -> Tensor:
    """Log-weights of each row by draws of a seed, (K, N), in float64 on the CPU."""
    with seeded(seed, pair.rows.x.device):
        chunks = [
            draw_without_gradient(pair.model, pair.guide, at_once, **pair.rows.tensors).log_weights
            for _ in range(-(-COMPARISON_DRAWS // at_once))
        ]
    return torch.cat(chunks).cpu().double()
