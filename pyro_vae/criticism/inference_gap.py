"""Inference gap: log p(x) minus the ELBO, split into the gaps of the guide's family and of its encoder."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import check_integers
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.evidence import Evidence, describe_data
from pyro_vae.criticism.methods import Importance, Method
from pyro_vae.criticism.methods.base import LogWeights, check_method
from pyro_vae.criticism.refine import ELBO_FAILS, LR, PARTICLES, check_refinement, check_vae, refine_batch
from pyro_vae.criticism.session import EvaluationSession, check_rows
from pyro_vae.families import Family, Flow, LowRankNormal, MultivariateNormal
from pyro_vae.model.vae import VAE

NEGLIGIBLE = 0.01
"""Gap, in nats per row, below which it is negligible."""


@dataclass(frozen=True, eq=False, repr=False)
class InferenceGap:
    r"""Inference gap of N rows, log p(x) minus the ELBO, in two parts.

    $$ \underbrace{\log p(x) - L[q]}_{\text{inference gap}}
       = \underbrace{\log p(x) - L[q^*]}_{\text{approximation gap}}
       + \underbrace{L[q^*] - L[q]}_{\text{amortisation gap}} $$

    with $q$ the encoder's posterior of a row and $q^*$ the best of the same family, found by refining; each term is a
    KL to the exact posterior or a difference of two. Parameters that the guide shares over rows (a constant, weights
    of a flow) count as its family. Refining that stops too early moves some of the second part to the first: the number
    of steps suffices where more of them change nothing.

    References:
        Cremer, Li and Duvenaud, Inference Suboptimality in Variational Autoencoders, 2018 [cremer2018],
            https://arxiv.org/abs/1801.03558.

    Args:
        evidence: log p(x), by draws from the refined guide or by another method.
        refined: L*, the ELBO of each row with the refined guide, (N,), in nats.
        amortised: L, the ELBO with the guide itself, (N,), by the same random numbers.
        approximation_mcse: the Monte Carlo standard error of each row's approximation gap, (N,), in nats.
        amortisation_mcse: that of its amortisation gap.
        total_mcse: that of their sum.
        steps: the number of steps of refining.
        guide: the guide's family.
        shared: names of the guide's parameters that are shared by all rows.
    """

    evidence: Evidence
    refined: Tensor
    amortised: Tensor
    approximation_mcse: Tensor
    amortisation_mcse: Tensor
    total_mcse: Tensor
    steps: int
    guide: Family
    shared: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.refined)

    @property
    def approximation(self) -> Tensor:
        """Approximation gap of each row, log p(x) - L*, (N,), in nats: that of the family."""
        return self.evidence.pointwise - self.refined

    @property
    def amortisation(self) -> Tensor:
        """Amortisation gap of each row, L* - L, (N,), in nats: that of the encoder."""
        return self.refined - self.amortised

    @property
    def total(self) -> Tensor:
        """Inference gap of each row, log p(x) - L, (N,), in nats."""
        return self.evidence.pointwise - self.amortised

    @property
    def parts(self) -> dict[str, tuple[float, float, float]]:
        """By name, "inference", "approximation", "amortisation": mean gap, standard error over rows, over draws."""
        named = {
            "inference": (self.total, self.total_mcse),
            "approximation": (self.approximation, self.approximation_mcse),
            "amortisation": (self.amortisation, self.amortisation_mcse),
        }
        return {name: _mean_and_errors(*pair) for name, pair in named.items()}

    @property
    def negligible(self) -> bool:
        """Whether the inference gap is below 0.01 nats per row, or 3 Monte Carlo standard errors."""
        mean, _, mcse = self.parts["inference"]
        return mean <= max(NEGLIGIBLE, 3 * mcse)

    @property
    def advice(self) -> str:
        """Recommendation in a sentence."""
        if self.negligible:
            return "the guide is as good as the posterior, so there is nothing to change"
        of_family, of_encoder = (self.parts[name][0] for name in ("approximation", "amortisation"))
        share = max(of_family, of_encoder) / (max(of_family, 0.0) + max(of_encoder, 0.0))
        if of_encoder >= of_family:
            return (
                f"the encoder costs most ({share:.0%}): take a larger one, such as encoder=pv.MLP(hidden=(400, 400)), "
                "train longer, or refine at test time, pv.refine(vae, x)"
            )
        richer = {MultivariateNormal: "pv.Flow()", LowRankNormal: "pv.MultivariateNormal()"}
        example = richer.get(type(self.guide), "pv.MultivariateNormal() or pv.Flow()")
        other = "more transforms" if isinstance(self.guide, Flow) else f"such as {example}"
        own = f", or let the network compute {' and '.join(self.shared)}" if self.shared else ""
        return f"the family of the guide costs most ({share:.0%}): take a richer one, {other}{own}"

    @property
    def warning(self) -> str:
        """Why the parts are unreliable; empty if they are not."""
        warning = self.evidence.warning.rstrip(".")
        return warning and f"{warning}. The approximation gap is then too small"

    def __repr__(self) -> str:
        """Summary in a few lines."""
        means = {"approximation": "log p(x) - L*, of the family", "amortisation": "L* - L, of the encoder"}
        lines = []
        for name, (mean, se, mcse) in self.parts.items():
            rows = f"{se:.2g} over rows, " if len(self) > 1 else ""
            what = f": {means[name]}" if name in means else " per row"
            lines.append(f"{name} gap = {mean:.3f} nats{what} (standard error {rows}{mcse:.2g} over draws)")
        evidence = self.evidence
        lines += [
            f"log p(x) = {evidence.mean:.3f}, "
            f"L* = {float(self.refined.mean()):.3f} after {self.steps} steps, L = {float(self.amortised.mean()):.3f}; "
            f"{len(self)} rows, {evidence.method.describe()}",
            f"So {self.advice}.",
        ]
        notes = (("Warning", self.warning), ("Note", evidence.caveat))
        return "\n".join(lines + [f"{word}: {note}." for word, note in notes if note])


@explained
def inference_gap(
    vae: VAE,
    x: Any,
    *,
    draws: int = 1000,
    steps: int = 200,
    lr: float = LR,
    particles: int = PARTICLES,
    method: Method | None = None,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> InferenceGap:
    """Inference gap, log p(x) minus the ELBO, split into the gaps of the guide's family and of its encoder.

    Args:
        vae: the VAE.
        x: rows (N, *event_shape), as for `fit`.
        draws: draws per row behind each bound, and behind log p(x).
        steps: steps of refining, see `pv.refine`.
        lr: the first step size.
        particles: draws per row and step.
        method: the method of estimating log p(x), such as `pv.criticism.AIS()` where k-hat is large; by default,
            importance sampling from the refined guide.
        batch_size: rows at once.
        seed: of draws and binarisation; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        Both parts of each row, with their errors.

    Raises:
        InputError: the programs are not a `pv.VAE`, an argument or data that cannot be used.
        FloatingPointError: a bound is not finite; the message names the row.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> gap = inference_gap(vae, torch.zeros(5, 3), draws=200, steps=20)
    >>> torch.allclose(gap.total, gap.approximation + gap.amortisation)
    True
    """
    check_vae(vae, "inference_gap")
    check_integers(draws=(draws, 2))
    check_refinement(steps, lr, particles, batch_size, seed)
    own_method = Importance(draws, "refined", steps=steps)
    if method is not None:
        check_method(method)
    session, sampler = EvaluationSession.of(vae, x), Importance(draws).build_sampler(vae)
    other = None if method is None else method.build_sampler(vae)
    results: list[list[Tensor]] = []
    with session.activate(seed):
        for start, batch in session.batches(batch_size, "inference gap", progress):
            refined = refine_batch(vae, batch, steps=steps, lr=lr, particles=particles)
            own, weights = int(torch.randint(2**62, ())), list[LogWeights]()
            for programs, given in ((refined, refined.rows.batch()), (vae, batch)):
                with seeded(own, session.device):  # paired: both guides are sampled with the same random numbers
                    weights.append(sampler.log_weights(programs, given))
            results.append(_split(weights[0], weights[1], None if other is None else other(batch)))
            for bounds in results[-1][3:5]:
                check_rows(bounds.isfinite(), start, ELBO_FAILS)
        described = describe_data(session, batch)
    log_p, error, khat, star, plain, *errors = (torch.cat(values) for values in zip(*results, strict=True))
    found = Evidence(log_p, error, khat, method or own_method, **described)
    shared = () if isinstance(vae.posterior.distribution, torch.nn.Module) else tuple(vae.posterior.constants)
    return InferenceGap(found, star, plain, errors[0], errors[1], errors[2], steps, vae.declaration.guide, shared)


def _split(star: LogWeights, plain: LogWeights, other: LogWeights | None) -> list[Tensor]:
    """Log p(x), its error and k-hat, both ELBOs, and the errors of approximation, amortisation and total, (B,) each.

    `star` and `plain` are weights of draws from the refined and the plain guide by the same random numbers; `other`
    estimate log p(x), by default `star`.
    """
    measured = other or star
    log_p, error = measured.estimate()
    if other is None:  # both terms of a difference have the same draws, so their errors are of each draw's contribution
        relative = (measured.values - log_p).exp()
        approximation, total = _se(relative - star.values), _se(relative - plain.values)
    else:
        approximation, total = error.hypot(_se(star.values)), error.hypot(_se(plain.values))
    amortisation = _se(star.values - plain.values)
    elbos = star.values.mean(0), plain.values.mean(0)
    return [log_p, error, measured.pareto_k(), *elbos, approximation, amortisation, total]


def _se(terms: Tensor) -> Tensor:
    """Standard errors (B,) of means over draws (K, B)."""
    return terms.std(0) / math.sqrt(len(terms))


def _mean_and_errors(values: Tensor, errors: Tensor) -> tuple[float, float, float]:
    """Mean over rows (N,), with its standard errors over rows and over draws."""
    se = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), se, float(errors.square().sum().sqrt()) / len(errors)
