"""Reweighted wake-sleep: a guide fitted without a gradient through its draws."""

import inspect
from dataclasses import dataclass, fields
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.objectives.estimators import power_mean
from pyro_vae.objectives.importance import ImportanceObjective
from pyro_vae.objectives.particles import Particles, row_log_prob
from pyro_vae.objectives.structure import Program, sample_sites, structure_of
from pyro_vae.schedules import Number


@dataclass(frozen=True)
class WakeSleepParticles(Particles):
    """Particles, and the density of the guide at latents and data simulated by the model.

    Args:
        dreams: log q(z'|x') of z' ~ p(z), x' ~ p(x|z'), one pair for each row, (N,), in nats; None without a sleep
            phase.
    """

    dreams: Tensor | None = None


@dataclass(frozen=True)
class RWS(ImportanceObjective):
    r"""Reweighted wake-sleep.

    The model follows the gradient of `IWAE`; the guide minimises KL(p || q), the other direction, by the gradient

    $$ \nabla_\phi \Big( \eta \sum_k \bar w_k \log q_\phi(z_k \mid x)
       + (1 - \eta) \log q_\phi(z' \mid x') \Big), \qquad \bar w_k = \frac{w_k}{\sum_j w_j}, \quad
       z' \sim p(z),\; x' \sim p(x \mid z') $$

    of the wake phase and the sleep phase, with no gradient through the draws: the guide need not be reparameterised,
    and latents may be discrete. Its value is that of `IWAE`. For one row the value and gradient equal those of Pyro's
    `ReweightedWakeSleep`, which gives a whole batch one weight.

    References:
        Bornschein and Bengio, Reweighted Wake-Sleep, 2015 [bornschein2015], https://arxiv.org/abs/1406.2751.
        Le et al., Revisiting Reweighted Wake-Sleep, 2019 [le2019], https://arxiv.org/abs/1805.10469.

    Args:
        particles: the number K of draws per row, at least 2.
        insomnia: eta, the share of the wake phase in the guide's gradient, in [0, 1], a number or a schedule.

    Raises:
        InputError: a sleep phase for programs whose argument for data has another name than its site.

    >>> RWS(particles=10)
    RWS(particles=10, insomnia=1.0)
    """

    particles: int = field(5, low=2)
    insomnia: Number = field(1.0, low=0, high=1)
    needs_rsample = False

    def combine(self, log_weights: Tensor) -> Any:
        """Log of the mean weight of each row, (N,)."""
        return power_mean(log_weights, 0)

    def draw(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Particles:
        """Particles, with simulated latents and data where there is a sleep phase."""
        particles = super().draw(model, guide, *args, **kwargs)
        if isinstance(self.insomnia, float) and self.insomnia == 1:
            return particles
        known = {field.name: getattr(particles, field.name) for field in fields(Particles)}
        return WakeSleepParticles(**known, dreams=_dreams(model, guide, args, kwargs))

    def bound(self, particles: Particles) -> Tensor:
        """IWAE bound of each row, (N,), in nats, with the gradients of both phases."""
        combined = self.combine(particles.log_weights)
        dreams = particles.dreams if isinstance(particles, WakeSleepParticles) else None
        awake = 1.0 if dreams is None else self.value_of("insomnia")
        surrogate = (combined.first * (particles.log_joint + awake * particles.log_posterior)).sum(0)
        if dreams is not None:
            surrogate = surrogate + (1 - awake) * dreams
        return combined.bound.detach() + (surrogate - surrogate.detach())


def _dreams(model: Program, guide: Program, args: Any, kwargs: Any) -> Tensor:
    """Log q of latents given data, both simulated by the model, (N,)."""
    names = [name for name, p in inspect.signature(model).parameters.items() if p.kind is not p.VAR_KEYWORD]
    batch = dict(zip(names, args, strict=False)) | kwargs
    with torch.no_grad():
        dream = poutine.trace(poutine.uncondition(model)).get_trace(**batch)
    sites = sample_sites(dream)
    observed = {name: site["value"] for name, site in sites.items() if (site["infer"] or {}).get("was_observed")}
    if unexpected := sorted(set(observed) - set(batch)):
        raise InputError(
            f"the sleep phase simulates data for site {unexpected[0]!r}, and the guide takes {', '.join(batch)}: name "
            "the argument like the site, or take RWS(insomnia=1)."
        )
    trace = poutine.trace(poutine.replay(guide, trace=dream)).get_trace(**(batch | observed))
    return row_log_prob(trace, structure_of(model, guide, args, kwargs))
