"""Annealed importance sampling: draws moved from where sampling is easy to wherever the posterior has mass."""

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
from pyro_vae.criticism.methods.base import NUMBERS_AT_ONCE, WIDTH, Batch, Method, Weights, check_rows, wide
from pyro_vae.criticism.methods.hmc import Density, transition
from pyro_vae.criticism.methods.joint import Joint, Program, check_model, log_prob
from pyro_vae.data.rows import chunk_ranges
from pyro_vae.distributions.constraints import supports_equal
from pyro_vae.model.programs import Programs
from pyro_vae.objectives.particles import sample_sites

SHARPNESS = 4.0
"""The sigmoid of the temperatures is taken from minus this to this, as Wu et al. do."""

PILOT = 10
"""The run that finds step sizes has this part of the temperatures."""

SHORTEST = 30
"""Temperatures of that run at least."""

WARM_UP = 20
"""Transitions at the first of them, which bring any step size near."""

GAIN = 0.4
"""How much a step size grows, on a log scale, for an acceptance that is too high by 1."""

FEW_DECIDE = 0.5
"""Error, in nats, above which few of the chains have most of the weight: of 16 with equal ones, 3."""


def temperatures(count: int) -> list[float]:
    r"""The inverse temperatures $0 = \beta_0 < \dots < \beta_T = 1$, dense at both ends.

    $$ \beta_t \propto \sigma\big(4(2t/T - 1)\big) - \sigma(-4) $$

    Args:
        count: their number T, without the first.

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
    at both ends. It trusts no guide, and finds mass of the posterior that a guide misses; it costs about 12 thousand
    gradients of the decoder for each chain, where importance sampling costs one evaluation for each draw. The log of
    the mean weight lies below log p(x) by what annealing that is too fast has lost: `pv.criticism.bdmc` measures it.

    A tenth of the temperatures come first as a pilot run, in which the step size of each row follows the acceptance of
    its chains. It then stays as found there: a transition that learned from the chain it moves would leave nothing
    invariant, and weights would be biased. Latents move in unconstrained coordinates; a guide of several latents that
    depend on each other is run at every step, any other guide once.

    References:
        Neal, Annealed Importance Sampling, 2001, https://arxiv.org/abs/physics/9803008. Wu, Burda, Salakhutdinov and
        Grosse, On the Quantitative Analysis of Decoder-Based Generative Models, 2017,
        https://arxiv.org/abs/1611.04273.

    Args:
        chains: the number K of chains per row.
        temperatures: the number T of intermediate distributions.
        leapfrog: leapfrog steps in a transition.
        acceptance: the share of transitions that step sizes aim at.
        start: what the first distribution is, the "prior" p(z) or the "guide" q(z|x).

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
        """The number K of weights per row."""
        return self.chains

    @property
    def told(self) -> str:
        """What the draws are."""
        return f"{self.chains} chains for each, annealed from the {self.start} over {self.temperatures} temperatures"

    @property
    def remedy(self) -> str:
        """What to do where the weights cannot be trusted."""
        return (
            f"{self.temperatures} temperatures are too few. Take more, as in AIS(temperatures="
            f"{10 * self.temperatures}); pv.criticism.bdmc(vae, method=...) says how far off they are"
        )

    def untold(self, error: Tensor) -> str:
        """What is wrong where few chains decide; that they are too few for k-hat is no fault of theirs."""
        if not (unreliable := int((~(error <= FEW_DECIDE)).sum())):
            return ""
        return f"in {unreliable} of {len(error)} rows few chains have most of the weight: {self.remedy}."

    def weigher(self, programs: Programs) -> "Annealer":
        """Prepare to weigh batches."""
        return Annealer(programs, self)


class Annealer:
    """Log-weights (K, B) of a batch, by chains that are moved along a path."""

    def __init__(self, programs: Programs, method: AIS) -> None:
        self.programs, self.method = programs, method
        self.nesting = 0  # plate dimensions of the pair, as the dry run shows; none before

    def __call__(self, batch: Batch) -> Weights:
        """Weigh the rows of a batch."""
        self.check(batch)
        with pyro.validation_enabled(False):  # its checks wait for the device, and refuse what is to be rejected
            return self.weights(self.programs.model, batch, self.tuned(self.programs.model, batch))

    def check(self, batch: Batch) -> None:
        """Refuse, by a dry run on two rows, programs that cannot be annealed; once.

        Raises:
            InputError: see `check_model`; from the guide, also where it does not fit the model.
        """
        if self.nesting:
            return
        self.nesting = check_model(self.programs.model, batch)
        if self.method.start == "guide":
            particles, nesting = check_rows(self.programs, batch)
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

    def tuned(self, model: Program, batch: Batch) -> Tensor:
        """Step sizes for each temperature but the first and each row, (T, B), by a pilot run of its own draws."""
        method = self.method
        density, u = self._path(model, batch, self._sizes(batch)[0])
        betas = temperatures(max(method.temperatures // PILOT, SHORTEST))[1:]
        step, found = u.new_full((u.shape[1],), 0.5), []
        for turn, beta in enumerate([betas[0]] * WARM_UP + betas):
            u, _, chance = transition(density, u, beta, step, method.leapfrog)
            step = step * (GAIN * (chance.mean(0) - method.acceptance)).exp()
            if turn >= WARM_UP:
                found.append(step.log())
        by_row = torch.stack(found, -1).unsqueeze(0)
        size = method.temperatures
        return torch.nn.functional.interpolate(by_row, size, mode="linear", align_corners=True)[0].T.exp()

    def weights(
        self, model: Program, batch: Batch, steps: Tensor, exact: Mapping[str, Tensor] | None = None
    ) -> Weights:
        """Log-weights of a run with these step sizes.

        Args:
            model: the model, or that conditioned on data of its own.
            batch: its arguments.
            steps: the step sizes, (T, B).
            exact: draws from the posterior, (1, ...) by name, to start from and go back: then the mean weight
                estimates 1 / p(x).
        """
        betas = temperatures(self.method.temperatures)
        order = list(range(len(betas)))[:: 1 if exact is None else -1]
        logs, chances = [], []
        for chains in self._sizes(batch):
            density, u = self._path(model, batch, chains, exact)
            slope = density(u)[1]
            log = torch.zeros_like(wide(slope))
            for here, there in pairwise(order):
                log = log + (betas[there] - betas[here]) * wide(slope)
                if there != order[-1]:
                    u, slope, chance = transition(density, u, betas[there], steps[there - 1], self.method.leapfrog)
                    chances.append(chance.mean(0))
            logs.append(log)
        log = torch.cat(logs).cpu()
        accepted = torch.stack(chances).mean(0).cpu().double() if chances else log.new_ones(log.shape[1])
        return Weights(log, (len(log),), torch.finfo(u.dtype).eps, accepted)

    def _sizes(self, batch: Batch) -> list[int]:
        """Numbers of chains at once, by which memory is bounded."""
        x = batch["x"]
        at_once = max(1, NUMBERS_AT_ONCE // (len(x) * max(WIDTH, x[0].numel())))
        return [len(chains) for chains in chunk_ranges(self.method.chains, at_once)]

    def _path(
        self, model: Program, batch: Batch, chains: int, exact: Mapping[str, Tensor] | None = None
    ) -> tuple[Density, Tensor]:
        """Log f_beta = b + beta s in unconstrained coordinates, and where its chains start, (K, B, D)."""
        joint = Joint(model, batch, chains, self.nesting)
        from_guide = self.method.start == "guide"
        sites = joint.run(self.programs.guide) if from_guide else joint.latents

        def density(u: Tensor) -> tuple[Tensor, Tensor]:
            values, jacobian = joint.unflat(u)
            log_prior, log_likelihood = joint.log_probs(values)
            if not from_guide:
                return log_prior + jacobian, log_likelihood
            at = {name: {**site, "value": values[name]} for name, site in sites.items()}
            if len(sites) > 1:  # what one latent's distribution makes of another is known by running the guide
                at = joint.run(self.programs.guide, values)
            log_guide = torch.stack([_scored(name, site) for name, site in at.items()]).sum(0)
            return log_guide + jacobian, log_prior + log_likelihood - log_guide

        if exact is None:
            exact = {name: site["value"] for name, site in sites.items()}
        u = joint.flat({name: value.expand(chains, *value.shape[1:]) for name, value in exact.items()})
        return density, u


def _scored(name: str, site: dict[str, Any]) -> Tensor:
    try:
        return log_prob(site)
    except (KeyError, NotImplementedError):
        raise InputError(
            f"the guide can score its own draws only at site {name!r}, and annealing asks for its density elsewhere: "
            "take start='prior'."
        ) from None


@dataclass(frozen=True, eq=False)
class Simulated:
    """Rows that a model drew with their latents.

    Args:
        model: the model conditioned on them.
        batch: its arguments; x is what was drawn, where the model returns that.
        latents: what they were drawn from, (1, *plates, B, *event) by name: exact draws from the posterior.
    """

    model: Program
    batch: Batch
    latents: dict[str, Tensor]

    @classmethod
    def of(cls, annealer: Annealer, batch: Batch) -> "Simulated":
        """Draw anew whatever the model observes."""
        model = annealer.programs.model
        with pyro.plate("chains", 1, dim=-annealer.nesting - 1):
            trace = poutine.trace(poutine.uncondition(model)).get_trace(**batch)
        sites, returned = sample_sites(trace), trace.nodes["_RETURN"]["value"]
        observed = {name: site["value"] for name, site in sites.items() if site["infer"].get("was_observed")}
        latents = {name: site["value"] for name, site in sites.items() if name not in observed}
        if isinstance(returned, Tensor) and returned.shape == (1, *batch["x"].shape):
            batch = {**batch, "x": returned[0]}
        elif annealer.method.start == "guide":
            raise InputError(
                "the guide is to see the data that was drawn, and this model does not return it: end it with "
                "`return x`, or take start='prior'."
            )
        return cls(poutine.condition(model, data=observed), batch, latents)
