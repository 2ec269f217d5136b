"""Evidence: log p(x) of rows by importance sampling, with all that can be said about its error.

Every draw weighs w = p(x, z) / r(z|x), and the mean of K weights estimates p(x). It is as good as its proposal r
reaches wherever the posterior has mass: k-hat says when it does not.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pyro_vae.data.rows import Rows
from pyro_vae.distributions import innermost
from pyro_vae.errors import InputError, unknown
from pyro_vae.networks.base import evaluating
from pyro_vae.objectives.particles import Particles, draw
from pyro_vae.training.programs import Programs, as_module

Proposal = Literal["guide", "defensive"]

PRIOR_SHARE = 0.1
"""What a defensive proposal holds of the prior."""

FEWEST = {"guide": 2, "defensive": 4}
"""Draws below which a proposal tells no error: two from each of its components."""

TAIL = 25
"""Draws below which no tail can be fitted: five are needed in the last fifth."""

NUMBERS_AT_ONCE = 2**22
"""Numbers in the largest tensor, by which `draws_at_once` is chosen: 16 MB in float32."""

WIDTH = 512
"""Numbers that a network is taken to hold per draw and row, where an event has fewer."""


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    r"""Log p(x) of N rows, estimated with K draws for each.

    $$ \log \hat p(x_n) = \log \frac1K \sum_k w_{kn}, \qquad
       \mathrm{se}_n^2 = \frac{1}{K} \frac{\widehat{\mathrm{Var}}(w_{\cdot n})}{\hat p(x_n)^2} $$

    The logarithm of a mean lies below, by $\mathrm{se}_n^2 / 2$ to first order: unlike the error over draws, this
    `bias` of `mean` does not fall with the number of rows. And k-hat sees only what draws have reached: a guide that
    misses a whole part of the posterior gives too small a number under a small k-hat. The defensive proposal tells.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519.
        Vehtari et al., Pareto Smoothed Importance Sampling, 2024, https://arxiv.org/abs/1507.02646.

    Args:
        pointwise: log p(x) of each row, (N,), in nats.
        error: its Monte Carlo standard error, (N,), in nats, by the delta method.
        khat: the Pareto shape k of the weights' tail, (N,): above 0.5 they have no variance, and `error` is too small;
            0 where all weights are equal, infinite where a few draws have all the weight, NaN with fewer than 25 draws.
        draws: the number K of draws per row.
        proposal: what they were drawn from, "guide" or "defensive".
        pixels: for levels of pixels, those observed in a row, on average; 0 for other data.
        caveat: why the numbers are no log density, where they are none.
    """

    pointwise: Tensor
    error: Tensor
    khat: Tensor
    draws: int
    proposal: Proposal = "guide"
    pixels: float = 0.0
    caveat: str = ""

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.pointwise)

    @property
    def mean(self) -> float:
        """The mean of log p(x) over rows, in nats."""
        return float(self.pointwise.mean())

    @property
    def error_over_rows(self) -> float:
        """The standard error of `mean` as that of all data such rows are drawn from; NaN for one row."""
        return float(self.pointwise.std()) / math.sqrt(len(self)) if len(self) > 1 else math.nan

    @property
    def error_over_draws(self) -> float:
        """The Monte Carlo standard error of `mean`, for these rows."""
        return float(self.error.square().sum().sqrt()) / len(self)

    @property
    def bias(self) -> float:
        """How far `mean` is expected to lie from the truth for these rows, to first order; never positive."""
        return -float(self.error.square().mean()) / 2

    @property
    def bits_per_dim(self) -> float | None:
        """Bits per pixel, -mean / (pixels log 2); None where the likelihood is none of pixels."""
        return -self.mean / (self.pixels * math.log(2)) if self.pixels else None

    @property
    def threshold(self) -> float:
        """The largest k-hat with which K draws can be trusted, min(1 - 1 / log10 K, 0.7)."""
        return min(1 - 1 / math.log10(self.draws), 0.7) if self.draws >= TAIL else math.nan

    @property
    def doubtful(self) -> Tensor:
        """The rows whose k-hat is above the threshold, (N,) bool; none where k-hat cannot be told."""
        return self.khat > self.threshold

    @property
    def warning(self) -> str:
        """Why the numbers cannot be trusted; empty where nothing speaks against them."""
        if self.draws < TAIL:
            return f"{self.draws} draws are too few for k-hat, so nothing is known of the tails: take 1000."
        if not bool(self.doubtful.any()):
            return ""
        wider = " or proposal='defensive'" if self.proposal == "guide" else ""
        return (
            f"k-hat is above {self.threshold:.2f} in {int(self.doubtful.sum())} of {len(self)} rows, so the numbers "
            f"and their errors cannot be trusted: the {self.proposal} proposal is too narrow for the posterior there, "
            f"or {self.draws} draws are too few to tell. Take more draws{wider}, or fit a guide with heavier tails, "
            "such as pv.StudentT()."
        )

    def to_csv(self) -> str:
        """The pointwise values as text, one line per row, with every digit."""
        columns = zip(self.pointwise.tolist(), self.error.tolist(), self.khat.tolist(), strict=True)
        return "row,log_p,error,khat\n" + "".join(f"{n},{p!r},{e!r},{k!r}\n" for n, (p, e, k) in enumerate(columns))

    def __repr__(self) -> str:
        """Summarise in some lines."""
        name = "log of the mean weight" if self.caveat else "log p(x)"
        rows = f"{self.error_over_rows:.2g} over rows, " if len(self) > 1 else ""
        bits = "" if self.bits_per_dim is None else f" = {self.bits_per_dim:.4f} bits per dimension"
        lines = [
            f"{name} = {self.mean:.3f} nats per row{bits}",
            f"standard error {rows}{self.error_over_draws:.2g} over draws; bias about {self.bias:.1g}",
            f"{len(self)} rows, {self.draws} draws for each from the {self.proposal} proposal, largest k-hat "
            f"{float(self.khat.max()):.2f}",
        ]
        notes = (("Warning", self.warning), ("Note", self.caveat and f"{self.caveat}."))
        return "\n".join(lines + [f"{word}: {note}" for word, note in notes if note])


@torch.no_grad()
def evidence(
    vae: Programs,
    x: Any,
    *,
    draws: int = 1000,
    proposal: Proposal = "guide",
    batch_size: int = 100,
    draws_at_once: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    r"""Estimate log p(x) of rows by importance sampling.

    $$ p(x) = E_{r(z|x)} \frac{p(x, z)}{r(z|x)}, \qquad r = q(z|x) \quad\text{or}\quad r = 0.9\, q(z|x) + 0.1\, p(z) $$

    The defensive proposal bounds every weight by 10 p(x|z); its draws are stratified, a tenth from the prior (two at
    least, the mixture's weights being what was drawn). Memory holds the log-weights of one batch, and beside them
    what `batch_size` x `draws_at_once` draws need, however many rows and draws there are.

    References:
        Hesterberg, Weighted Average Importance Sampling and Defensive Mixture Distributions, 1995.
        Owen and Zhou, Safe and Effective Importance Sampling, 2000.

    Args:
        vae: a `VAE`, or any pair of Pyro programs whose latents and data all lie in one plate over rows.
        x: rows (N, *event_shape), as for `fit`, with `mask` and `size_factor` where the model takes them. Rows
            under dynamic binarisation are drawn once, by the seed.
        draws: the number K of draws per row.
        proposal: what they are drawn from.
        batch_size: rows at once.
        draws_at_once: draws at once; by default, so many that the largest tensor has about 4 million numbers.
        seed: of draws and binarisation; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        The estimates, with their errors.

    Raises:
        InputError: an argument or the data cannot be used, or the programs have no rows to weigh one by one.
        FloatingPointError: a weight is not a number; the message names the row.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> found = evidence(vae, torch.zeros(5, 3), draws=500, proposal="defensive")
    >>> found.pointwise.shape, bool(found.doubtful.any())
    (torch.Size([5]), False)
    """
    _check_arguments(vae, draws, proposal, batch_size, draws_at_once, seed)
    rows, module = Rows.of(x), as_module(vae)
    reference = next((t for t in chain(module.parameters(), module.buffers()) if t.is_floating_point()), None)
    device, dtype = (None, torch.get_default_dtype()) if reference is None else (reference.device, reference.dtype)
    at_once = draws_at_once or max(1, NUMBERS_AT_ONCE // (min(batch_size, len(rows)) * max(WIDTH, rows.x[0].numel())))
    from_prior = max(2, round(PRIOR_SHARE * draws)) if proposal == "defensive" else 0

    outside = getattr(vae, "outside_store", contextlib.nullcontext)
    cuda = [device] if device is not None and device.type == "cuda" else []
    results: list[tuple[Tensor, ...]] = []
    with torch.random.fork_rng(cuda), outside(), evaluating(module):
        torch.manual_seed(seed)
        rows = replace(rows, tensors=rows.batch(), dynamic=False)  # drawn here, where any model gets the same pixels
        if hasattr(vae, "check"):
            vae.check(dict(rows.tensors))
        batches = [rows.batch(slice(start, start + batch_size)) for start in range(0, len(rows), batch_size)]
        weigher = _Weigher(vae, draws, from_prior, at_once)
        console = Console(stderr=True)
        for batch in track(batches, "evidence", console=console, disable=not (progress and console.is_terminal)):
            log_weights = weigher(Rows(batch).to(device, dtype).batch())
            log_p, error = _estimate(log_weights, from_prior)
            if not bool((log_p < math.inf).all()):
                row = len(results) * batch_size + int((~(log_p < math.inf)).to(torch.uint8).argmax())
                raise FloatingPointError(
                    f"the weights of row {row} are not finite: the model's or the guide's density fails there; look at "
                    "vae.decode(vae.encode(x).sample()).log_prob(x) for that row."
                )
            results.append((log_p, error, _khats(log_weights, torch.finfo(dtype).eps)))
    pointwise, errors, khat = (torch.cat(parts) for parts in zip(*results, strict=True))
    pixels = rows.observed if getattr(vae, "pixels", False) else 0.0
    return Evidence(pointwise, errors, khat, draws, proposal, pixels, getattr(vae, "caveat", ""))


class _Weigher:
    """Log-weights (K, B) of a batch in float64, where only chunks of draws are held whole.

    Args:
        programs: model and guide.
        draws: the number K.
        from_prior: how many of them, the last ones, are drawn from the prior; the others are from the guide.
        at_once: draws per chunk.
    """

    def __init__(self, programs: Programs, draws: int, from_prior: int, at_once: int) -> None:
        self.programs, self.draws, self.from_prior, self.at_once = programs, draws, from_prior, at_once
        self.checked = False
        self.nesting = 1  # plate dimensions of the pair, as the dry run shows
        self.prior_draws: Any = None

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        if not self.checked:
            self._check(batch)
        model, guide = self.programs.model, self.programs.guide
        chunks = [self._weights(draw(model, guide, k, **batch)) for k in self._sizes(self.draws - self.from_prior)]
        for k in self._sizes(self.from_prior):
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

    def replayed(self, **batch: Tensor) -> Any:
        """The guide at draws from the prior; one method, so that its plates are looked for once."""
        return poutine.replay(self.programs.guide, trace=self.prior_draws)(**batch)

    def _sizes(self, draws: int) -> Iterator[int]:
        return (min(self.at_once, draws - start) for start in range(0, draws, self.at_once))

    def _weights(self, particles: Particles) -> Tensor:
        latents = particles.latents.values()
        nothing = torch.zeros((), dtype=torch.float64)
        log_prior = sum((_wide(latent.log_prior) for latent in latents), nothing)
        log_proposal = sum((_wide(latent.log_posterior) for latent in latents), nothing)
        if self.from_prior:
            share = self.from_prior / self.draws
            log_proposal = torch.logaddexp(log_proposal + math.log1p(-share), log_prior + math.log(share))
        return _wide(particles.log_likelihood) + log_prior - log_proposal

    def _check(self, batch: Mapping[str, Tensor]) -> None:
        """Refuse, by a dry run on two rows, programs whose record is no weight of each row."""
        model, guide = self.programs.model, self.programs.guide
        batch = {name: tensor[:2] for name, tensor in batch.items()}
        particles = draw(model, guide, 1, **batch)
        rows, found = len(batch["x"]), particles.log_likelihood.shape[1]
        if found != rows:
            raise InputError(
                f"these programs weigh {rows} rows as {found}, so there is no log p(x) of each: put latents and data "
                'in one plate, with pyro.plate("data", x.shape[0], dim=-1).'
            )
        by_guide = poutine.trace(guide).get_trace(**batch)
        by_model = poutine.trace(poutine.replay(model, trace=by_guide)).get_trace(**batch)
        sites = [site for trace in (by_guide, by_model) for site in trace.nodes.values() if site["type"] == "sample"]
        if scaled := [site["name"] for site in sites if not bool((torch.as_tensor(site["scale"]) == 1).all())]:
            raise InputError(
                f"site {scaled[0]!r} is scaled, by poutine.scale or a plate that takes a batch for a part of the data, "
                "so its weights are no p(x): evaluate the programs unscaled, with a plate of x.shape[0] rows."
            )
        plates = [plate for site in sites for plate in site["cond_indep_stack"] if plate.vectorized]
        self.nesting = max((-(plate.dim or 0) for plate in plates), default=0)
        self._check_auxiliary(particles)
        self.checked = True

    def _check_auxiliary(self, particles: Particles) -> None:
        """An auxiliary site leaves the guide's density known only where all others are functions of it."""
        latents = particles.latents
        moved = all(isinstance(innermost(at.posterior), Delta) for at in latents.values() if at.prior is not None)
        extra = [name for name, at in latents.items() if at.prior is None]
        if extra and (self.from_prior or not moved):
            raise InputError(
                f"site {extra[0]!r} of the guide is auxiliary, so the guide's density is not known "
                + (
                    "at draws from the prior: take proposal='guide'."
                    if moved
                    else "at its draws: do without that site."
                )
            )


def _estimate(log_weights: Tensor, from_prior: int) -> tuple[Tensor, Tensor]:
    """Log p(x), and its standard error by the delta method, each (B,), from log-weights (K, B) in two strata."""
    draws = len(log_weights)
    log_p = log_weights.logsumexp(0) - math.log(draws)
    relative = (log_weights - log_p).exp()
    strata = [stratum for stratum in relative.split([draws - from_prior, from_prior]) if len(stratum)]
    variance = torch.stack([len(stratum) * stratum.var(0) for stratum in strata]).sum(0) / draws**2
    return log_p, variance.sqrt()


def _khats(log_weights: Tensor, eps: float) -> Tensor:
    """The k-hat of each column of log-weights (K, B), which carry rounding errors of a float type."""
    return torch.tensor([_khat(row, eps) for row in log_weights.T.numpy()], dtype=torch.float64)


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
    with np.errstate(all="ignore"):
        try:
            _, khat = array_stats.psislw(-log_weights)  # minus: it was made for leave-one-out, w = 1 / p(x|z)
        except ValueError:  # the whole tail is one value, so the weights are bounded
            return 0.0
    return float(khat) if math.isfinite(khat) else math.inf


def _wide(log_prob: Tensor) -> Tensor:
    return log_prob.cpu().double() if log_prob.device.type == "mps" else log_prob.double()


def _check_arguments(vae: Any, draws: Any, proposal: Any, batch_size: Any, draws_at_once: Any, seed: Any) -> None:
    if not isinstance(vae, Programs):
        raise InputError(
            f"evidence takes an object with .model and .guide, two Pyro programs; {type(vae).__name__} has not."
        )
    if proposal not in get_args(Proposal):
        raise unknown("proposal", proposal, get_args(Proposal))
    numbers = [("draws", draws, FEWEST[proposal]), ("batch_size", batch_size, 1), ("seed", seed, 0)]
    if draws_at_once is not None:
        numbers.append(("draws_at_once", draws_at_once, 1))
    for name, value, low in numbers:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise InputError(f"{name} = {value!r} has to be a whole number of at least {low}.")
