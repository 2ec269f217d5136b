"""Annealed importance sampling: chains that move from the prior or the guide to the posterior."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.criticism.methods.base import (
    MAX_ELEMENTS,
    MIN_WIDTH,
    Batch,
    LogWeights,
    Method,
    as_float64,
    check_programs_by_row,
)
from pyro_vae.criticism.methods.hmc import Density, transition
from pyro_vae.criticism.methods.joint import Joint, Program, check_model, log_prob
from pyro_vae.data.rows import chunk_ranges
from pyro_vae.distributions.constraints import supports_equal
from pyro_vae.model.programs import Programs
from pyro_vae.objectives.structure import sample_sites

SHARPNESS = 4.0
"""Limit of the arguments of the sigmoid that defines the temperatures (Wu et al. 2017)."""

PILOT = 10
"""Ratio of the temperatures to those of the pilot run, which tunes step sizes."""

MIN_PILOT = 30
"""Minimum number of temperatures of the pilot run."""

WARM_UP = 20
"""Number of transitions at the first temperature of the pilot run."""

GAIN = 0.4
"""Growth of the log step size per unit of excess acceptance."""

MAX_MCSE = 0.5
"""Error, in nats, above which few chains have most of the weight: 3 of 16, if theirs are equal."""


def temperatures(count: int) -> list[float]:
    r"""Inverse temperatures $0 = \beta_0 < \dots < \beta_T = 1$, dense at both ends.

    $$ \beta_t \propto \sigma\big(4(2t/T - 1)\big) - \sigma(-4) $$

    Args:
        count: the number T of temperatures after the first.

    >>> [round(beta, 3) for beta in temperatures(4)]
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    levels = torch.linspace(-SHARPNESS, SHARPNESS, count + 1, dtype=torch.float64).sigmoid()
    return ((levels - levels[0]) / (levels[-1] - levels[0])).tolist()


@dataclass(frozen=True)
class AIS(Method):
    r"""Annealed importance sampling with Hamiltonian transitions, from the prior or from the guide to the posterior.

    $$ f_t(z) = \pi(z)^{1 - \beta_t}\, \big(p(z)\, p(x|z)\big)^{\beta_t}, \qquad
       w = \prod_{t=1}^{T} \frac{f_t(z_{t-1})}{f_{t-1}(z_{t-1})}, \qquad E\, w = p(x), $$

    with $z_0 \sim \pi$, each next one by a transition that leaves $f_t$ invariant, and temperatures that are dense
    at both ends. It needs no accurate guide, and finds mass of the posterior that a guide misses; it takes about
    12,000 gradients of the decoder per chain, where importance sampling takes one evaluation per draw. The log of the
    mean weight is below log p(x), the more the faster the annealing: `pv.criticism.bdmc` measures by how much.

    A tenth of the temperatures come first as a pilot run, in which the step size of each row follows the acceptance of
    its chains. It is fixed afterwards: a transition that adapted to the chain it moves would not leave the density
    invariant, and weights would be biased. Latents move in unconstrained coordinates; a guide of several latents that
    depend on each other is run at every step, any other guide once.

    References:
        Neal, Annealed Importance Sampling, 2001 [neal2001], https://arxiv.org/abs/physics/9803008. Wu, Burda,
            Salakhutdinov and Grosse, On the Quantitative Analysis of Decoder-Based Generative Models, 2017 [wu2017],
            https://arxiv.org/abs/1611.04273.

    Args:
        chains: the number K of chains per row.
        temperatures: the number T of intermediate distributions.
        leapfrog: leapfrog steps in a transition.
        acceptance: the target share of accepted transitions.
        start: the first distribution, the "prior" p(z) or the "guide" q(z|x).

    >>> AIS(temperatures=500)
    AIS(chains=16, temperatures=500, leapfrog=10, acceptance=0.65, start='prior')
    """

    chains: int = field(16, low=2)
    temperatures: int = field(1000, low=1)
    leapfrog: int = field(10, low=1)
    acceptance: float = field(0.65, low=0.05, high=0.99)
    start: Literal["prior", "guide"] = "prior"

    @property
    def draws(self) -> int:
        """Number K of weights per row."""
        return self.chains

    def describe(self) -> str:
        """Description of the draws."""
        return f"{self.chains} chains for each, annealed from the {self.start} over {self.temperatures} temperatures"

    @property
    def recommendation(self) -> str:
        """Recommendation for rows whose weights are unreliable."""
        return (
            f"{self.temperatures} temperatures are too few. Take more, as in AIS(temperatures="
            f"{10 * self.temperatures}); pv.criticism.bdmc(vae, method=...) says how far off they are"
        )

    def few_draws_warning(self, mcse: Tensor) -> str:
        """Warning of rows where few chains have most of the weight; too few chains for k-hat are expected."""
        if not (unreliable := int((~(mcse <= MAX_MCSE)).sum())):
            return ""
        return f"in {unreliable} of {len(mcse)} rows few chains have most of the weight: {self.recommendation}."

    def build_sampler(self, programs: Programs) -> "AnnealedSampler":
        """Sampler of the log-weights of batches."""
        return AnnealedSampler(programs, self)


class AnnealedSampler:
    """Sampler of log-weights (K, B) of batches, by chains that move along a path of densities."""

    def __init__(self, programs: Programs, method: AIS) -> None:
        self.programs, self.method = programs, method
        self.nesting = 0  # plate dimensions of the pair; 0 before the dry run

    def __call__(self, batch: Batch) -> LogWeights:
        """Log-weights of the rows of a batch."""
        self.check(batch)
        with pyro.validation_enabled(False):  # its checks sync with the host, and refuse values that are to be rejected
            return self.log_weights(self.programs.model, batch, self.tune_step_sizes(self.programs.model, batch))

    def check(self, batch: Batch) -> None:
        """Check by a dry run on two rows, at the first call, that the programs can be annealed.

        Raises:
            InputError: see `check_model`; for a start from the guide, also if its sites differ from the model's.
        """
        if self.nesting:
            return
        self.nesting = check_model(self.programs.model, batch)
        if self.method.start == "guide":
            particles, nesting = check_programs_by_row(self.programs, batch)
            self.nesting = max(self.nesting, nesting)
            for name, latent in particles.latents.items():
                if latent.prior is None:
                    raise InputError(
                        f"site {name!r} of the guide is auxiliary, so the guide's density is not known: take "
                        "start='prior'."
                    )
                if not supports_equal(latent.prior.support, latent.posterior.support):
                    raise InputError(
                        f"guide and prior have different supports at site {name!r}, so that there is no path from one "
                        "to the other: take start='prior'."
                    )

    def tune_step_sizes(self, model: Program, batch: Batch) -> Tensor:
        """Step sizes of each row at each temperature but the first, (T, B), from a pilot run with draws of its own."""
        method = self.method
        density, u = self._path(model, batch, self._chain_counts(batch)[0])
        betas = temperatures(max(method.temperatures // PILOT, MIN_PILOT))[1:]
        step, found = u.new_full((u.shape[1],), 0.5), []
        for turn, beta in enumerate([betas[0]] * WARM_UP + betas):
            u, _, chance = transition(density, u, beta, step, method.leapfrog)
            step = step * (GAIN * (chance.mean(0) - method.acceptance)).exp()
            if turn >= WARM_UP:
                found.append(step.log())
        by_row = torch.stack(found, -1).unsqueeze(0)
        size = method.temperatures
        return torch.nn.functional.interpolate(by_row, size, mode="linear", align_corners=True)[0].T.exp()

    def log_weights(
        self, model: Program, batch: Batch, steps: Tensor, exact: Mapping[str, Tensor] | None = None
    ) -> LogWeights:
        """Log-weights of a run with given step sizes.

        Args:
            model: the model, or the model conditioned on simulated data.
            batch: its arguments.
            steps: the step sizes, (T, B).
            exact: exact draws from the posterior, (1, ...) by name, for a reverse run that starts from them: its mean
                weight estimates 1 / p(x).
        """
        betas = temperatures(self.method.temperatures)
        order = list(range(len(betas)))[:: 1 if exact is None else -1]
        logs, chances = [], []
        for chains in self._chain_counts(batch):
            density, u = self._path(model, batch, chains, exact)
            slope = density(u)[1]
            log = torch.zeros_like(as_float64(slope))
            for here, there in pairwise(order):
                log = log + (betas[there] - betas[here]) * as_float64(slope)
                if there != order[-1]:
                    u, slope, chance = transition(density, u, betas[there], steps[there - 1], self.method.leapfrog)
                    chances.append(chance.mean(0))
            logs.append(log)
        log = torch.cat(logs).cpu()
        accepted = torch.stack(chances).mean(0).cpu().double() if chances else log.new_ones(log.shape[1])
        return LogWeights(log, (len(log),), torch.finfo(u.dtype).eps, accepted)

    def _chain_counts(self, batch: Batch) -> list[int]:
        """Numbers of chains in each chunk, which bound memory."""
        x = batch["x"]
        at_once = max(1, MAX_ELEMENTS // (len(x) * max(MIN_WIDTH, x[0].numel())))
        return [len(chains) for chains in chunk_ranges(self.method.chains, at_once)]

    def _path(
        self, model: Program, batch: Batch, chains: int, exact: Mapping[str, Tensor] | None = None
    ) -> tuple[Density, Tensor]:
        """Density log f_beta = b + beta s in unconstrained coordinates, and initial positions of chains, (K, B, D)."""
        joint = Joint(model, batch, chains, self.nesting)
        from_guide = self.method.start == "guide"
        sites = joint.run(self.programs.guide) if from_guide else joint.latents

        def density(u: Tensor) -> tuple[Tensor, Tensor]:
            values, jacobian = joint.unflatten(u)
            log_prior, log_likelihood = joint.log_probs(values)
            if not from_guide:
                return log_prior + jacobian, log_likelihood
            at = {name: {**site, "value": values[name]} for name, site in sites.items()}
            if len(sites) > 1:  # distributions of latents that depend on each other need a run of the guide
                at = joint.run(self.programs.guide, values)
            log_guide = torch.stack([_guide_log_prob(name, site) for name, site in at.items()]).sum(0)
            return log_guide + jacobian, log_prior + log_likelihood - log_guide

        if exact is None:
            exact = {name: site["value"] for name, site in sites.items()}
        u = joint.flatten({name: value.expand(chains, *value.shape[1:]) for name, value in exact.items()})
        return density, u


def _guide_log_prob(name: str, site: dict[str, Any]) -> Tensor:
    try:
        return log_prob(site)
    except (KeyError, NotImplementedError):
        raise InputError(
            f"the guide can score its own draws only at site {name!r}, and annealing needs its density elsewhere: "
            "take start='prior'."
        ) from None


@dataclass(frozen=True, eq=False)
class SimulatedRows:
    """Rows simulated by a model, with their latents.

    Args:
        model: the model conditioned on these rows.
        batch: its arguments; x are the simulated rows, where the model returns them.
        latents: the latents of the rows, (1, *plates, B, *event) by name: exact draws from the posterior.
    """

    model: Program
    batch: Batch
    latents: dict[str, Tensor]

    @classmethod
    def of(cls, sampler: AnnealedSampler, batch: Batch) -> "SimulatedRows":
        """Rows with all observed sites of the model simulated."""
        model = sampler.programs.model
        with pyro.plate("chains", 1, dim=-sampler.nesting - 1):
            trace = poutine.trace(poutine.uncondition(model)).get_trace(**batch)
        sites, returned = sample_sites(trace), trace.nodes["_RETURN"]["value"]
        observed = {name: site["value"] for name, site in sites.items() if site["infer"].get("was_observed")}
        latents = {name: site["value"] for name, site in sites.items() if name not in observed}
        if isinstance(returned, Tensor) and returned.shape == (1, *batch["x"].shape):
            batch = {**batch, "x": returned[0]}
        elif sampler.method.start == "guide":
            raise InputError(
                "a start from the guide needs the simulated data, which this model does not return: end it with "
                "`return x`, or take start='prior'."
            )
        return cls(poutine.condition(model, data=observed), batch, latents)
