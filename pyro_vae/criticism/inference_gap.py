"""The inference gap: what the bound lacks of log p(x), and whose fault it is, the family's or the encoder's."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.base_measure import measure_of
from pyro_vae.criticism.evidence import Evidence
from pyro_vae.criticism.methods import Importance, Method
from pyro_vae.criticism.methods.base import Weights
from pyro_vae.criticism.refine import (
    LR,
    PARTICLES,
    refine_batch,
    require_finite,
    require_step_size,
    require_vae,
)
from pyro_vae.criticism.session import EvaluationSession
from pyro_vae.data.fingerprint import fingerprint_of
from pyro_vae.families import Family, Flow, LowRankNormal, MultivariateNormal
from pyro_vae.model.vae import VAE

NOTHING = 0.01
"""Nats per row that a gap may have and still be none."""


@dataclass(frozen=True, eq=False, repr=False)
class InferenceGap:
    r"""What the ELBO of N rows lacks of log p(x), in two parts.

    $$ \underbrace{\log p(x) - L[q]}_{\text{inference gap}}
       = \underbrace{\log p(x) - L[q^*]}_{\text{approximation gap}}
       + \underbrace{L[q^*] - L[q]}_{\text{amortisation gap}} $$

    with $q$ what the encoder says of a row and $q^*$ the best of the same family, as refining finds it; each term is a
    KL to the exact posterior or a difference of two. What the guide shares over rows (a constant, the weights of a
    flow) counts as its family. Refining that stops too early moves some of the second part to the first: the steps
    were enough where more of them change nothing.

    References:
        Cremer, Li and Duvenaud, Inference Suboptimality in Variational Autoencoders, 2018,
        https://arxiv.org/abs/1801.03558.

    Args:
        evidence: log p(x), by draws from the refined guide or by another method.
        refined: L*, the ELBO of each row with the refined guide, (N,), in nats.
        amortised: L, that with the guide as it is, by the same random numbers.
        approximation_error: the Monte Carlo standard error of each row's approximation gap, (N,), in nats.
        amortisation_error: that of its amortisation gap.
        total_error: that of their sum.
        steps: of refining.
        guide: the guide's family.
        shared: the guide's parameters that are one for all rows.
    """

    evidence: Evidence
    refined: Tensor
    amortised: Tensor
    approximation_error: Tensor
    amortisation_error: Tensor
    total_error: Tensor
    steps: int
    guide: Family
    shared: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.refined)

    @property
    def approximation(self) -> Tensor:
        """What the family costs each row, log p(x) - L*, (N,), in nats."""
        return self.evidence.pointwise - self.refined

    @property
    def amortisation(self) -> Tensor:
        """What the encoder costs each row, L* - L, (N,), in nats."""
        return self.refined - self.amortised

    @property
    def total(self) -> Tensor:
        """Both, log p(x) - L, (N,), in nats."""
        return self.evidence.pointwise - self.amortised

    @property
    def parts(self) -> dict[str, tuple[float, float, float]]:
        """By name, "inference", "approximation", "amortisation": mean gap, standard error over rows, over draws."""
        named = {
            "inference": (self.total, self.total_error),
            "approximation": (self.approximation, self.approximation_error),
            "amortisation": (self.amortisation, self.amortisation_error),
        }
        return {name: _mean_and_errors(*pair) for name, pair in named.items()}

    @property
    def negligible(self) -> bool:
        """Whether the whole gap is within 3 of its errors over draws, or within 0.01 nats per row, of nothing."""
        mean, _, over_draws = self.parts["inference"]
        return mean <= max(NOTHING, 3 * over_draws)

    @property
    def advice(self) -> str:
        """What to change, in a sentence."""
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
        other = (
            "more transforms" if isinstance(self.guide, Flow) else f"such as {richer.get(type(self.guide), _RICHER)}"
        )
        own = f", or let the network compute {' and '.join(self.shared)}" if self.shared else ""
        return f"the family of the guide costs most ({share:.0%}): take a richer one, {other}{own}"

    @property
    def warning(self) -> str:
        """Why the parts cannot be trusted; empty where nothing speaks against them."""
        said = self.evidence.warning.rstrip(".")
        return said and f"{said}. The approximation gap is then too small"

    def __repr__(self) -> str:
        """Summarise in some lines."""
        means = {"approximation": "log p(x) - L*, of the family", "amortisation": "L* - L, of the encoder"}
        lines = []
        for name, (mean, over_rows, over_draws) in self.parts.items():
            rows = f"{over_rows:.2g} over rows, " if len(self) > 1 else ""
            what = f": {means[name]}" if name in means else " per row"
            lines.append(f"{name} gap = {mean:.3f} nats{what} (standard error {rows}{over_draws:.2g} over draws)")
        evidence = self.evidence
        lines += [
            f"log p(x) = {evidence.mean:.3f}, "
            f"L* = {float(self.refined.mean()):.3f} after {self.steps} steps, L = {float(self.amortised.mean()):.3f}; "
            f"{len(self)} rows, {evidence.method.told}",
            f"So {self.advice}.",
        ]
        notes = (("Warning", self.warning), ("Note", evidence.caveat))
        return "\n".join(lines + [f"{word}: {note}." for word, note in notes if note])


_RICHER = "pv.MultivariateNormal() or pv.Flow()"


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
    """Split what the bound lacks of log p(x) into the fault of the guide's family and that of its encoder.

    Args:
        vae: the VAE.
        x: rows (N, *event_shape), as for `fit`.
        draws: draws per row behind each bound, and behind log p(x).
        steps: steps of refining, see `pv.refine`.
        lr: their first size.
        particles: draws per row and step.
        method: another way to measure log p(x), such as `pv.criticism.AIS()` where k-hat is large; by default, by the
            draws from the refined guide.
        batch_size: rows at once.
        seed: of draws and binarisation; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        The two parts for each row, with their errors.

    Raises:
        InputError: programs that are no `pv.VAE`, an argument or data that cannot be used.
        FloatingPointError: a bound is not finite; the message names the row.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> gap = inference_gap(vae, torch.zeros(5, 3), draws=200, steps=20)
    >>> torch.allclose(gap.total, gap.approximation + gap.amortisation)
    True
    """
    require_vae(vae, "inference_gap")
    check_integers(
        draws=(draws, 2), steps=(steps, 1), particles=(particles, 1), batch_size=(batch_size, 1), seed=(seed, 0)
    )
    require_step_size(lr)
    if not (method is None or isinstance(method, Method)):
        raise InputError(f"method = {method!r} is no method of this package: write method=pv.criticism.AIS().")
    subject, weigher = EvaluationSession.of(vae, x), Importance(draws).weigher(vae)
    other = None if method is None else method.weigher(vae)
    results: list[list[Tensor]] = []
    with subject.activate(seed):
        for start, batch in subject.batches(batch_size, "inference gap", progress):
            refined = refine_batch(vae, batch, steps=steps, lr=lr, particles=particles)
            own, weights = int(torch.randint(2**62, ())), list[Weights]()
            for programs, given in ((refined, refined.rows.batch()), (vae, batch)):
                with seeded(own, subject.device):  # paired: both guides are drawn from by the same numbers
                    weights.append(weigher.weigh(programs, given))
            results.append(_split(weights[0], weights[1], None if other is None else other(batch)))
            for bounds in results[-1][3:5]:
                require_finite(bounds, start)
        measure, known_by = measure_of(vae, batch), fingerprint_of(subject.rows.tensors)
    log_p, error, khat, star, plain, of_family, of_encoder, of_both = (
        torch.cat(parts) for parts in zip(*results, strict=True)
    )
    found = Evidence(
        log_p,
        error,
        khat,
        method or Importance(draws, "refined", steps=steps),
        subject.rows.n_observed if vae.is_pixel else 0.0,
        vae.caveat,
        measure,
        known_by,
        subject.rows.source,
    )
    shared = () if isinstance(vae.posterior.distribution, torch.nn.Module) else tuple(vae.posterior.constants)
    return InferenceGap(found, star, plain, of_family, of_encoder, of_both, steps, vae.declaration.guide, shared)


def _split(star: Weights, plain: Weights, other: Weights | None) -> list[Tensor]:
    """Log p(x), its error and k-hat, both bounds, and the errors of approximation, amortisation and total, (B,) each.

    Args:
        star: weights of draws from the refined guide.
        plain: those from the guide, by the same random numbers.
        other: those that estimate log p(x); None for `star`.
    """
    measured = other or star
    log_p, error = measured.estimate()
    if other is None:  # the errors of both terms of a difference are of the same draws: what each draw adds to it
        relative = (measured.log - log_p).exp()
        approximation, total = _error(relative - star.log), _error(relative - plain.log)
    else:
        approximation, total = error.hypot(_error(star.log)), error.hypot(_error(plain.log))
    amortisation = _error(star.log - plain.log)
    return [log_p, error, measured.khats(), star.log.mean(0), plain.log.mean(0), approximation, amortisation, total]


def _error(terms: Tensor) -> Tensor:
    """The standard error of the mean over draws (K, B)."""
    return terms.std(0) / math.sqrt(len(terms))


def _mean_and_errors(values: Tensor, errors: Tensor) -> tuple[float, float, float]:
    over_rows = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), over_rows, float(errors.square().sum().sqrt()) / len(errors)
