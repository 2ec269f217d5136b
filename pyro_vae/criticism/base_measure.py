"""What kind of number log p(x) is: the measure that a likelihood is a density of.

The logarithms of a probability and of a density have no common unit, so models are compared under one measure only.
"""

from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Unit

from pyro_vae.criticism.methods.base import Batch
from pyro_vae.distributions.bounded import CensoredDistribution
from pyro_vae.distributions.constraints import describe, element_of
from pyro_vae.model.programs import Programs


def measure_of(programs: Programs, batch: Batch) -> str:
    """Say what log p(x) is the logarithm of, by a dry run on two rows.

    Args:
        programs: the pair.
        batch: named tensors of some rows.

    Returns:
        "probabilities" of discrete data, "densities" of continuous ones, or more words where a density is no plain
        one; each site's where sites differ; nothing where a distribution does not tell its support.

    >>> import pyro_vae as pv
    >>> measure_of(pv.VAE((3,), 2, likelihood=pv.Poisson()), {"x": torch.ones(2, 3)})
    'probabilities'
    """
    batch = {name: tensor[:2] for name, tensor in batch.items()}
    by_guide = poutine.trace(programs.guide).get_trace(**batch)
    trace = poutine.trace(poutine.replay(programs.model, trace=by_guide)).get_trace(**batch)
    sites = {name: trace.nodes[name]["fn"] for name in trace.observation_nodes}
    kinds = {name: kind_of(fn) for name, fn in sites.items() if not isinstance(fn, Unit)}  # a factor is no data
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    return ", ".join(f"{kind or 'unknown numbers'} of {name}" for name, kind in sorted(kinds.items()))


def kind_of(distribution: Any) -> str:
    """Say what the log-probability of a distribution is the logarithm of: see `measure_of`."""
    try:
        support = element_of(distribution.support)
    except NotImplementedError:
        return ""
    if support.is_discrete:
        return "probabilities"
    if isinstance(support, type(torch.distributions.constraints.simplex)):
        return "densities on the simplex"
    part = distribution
    while part is not None:
        if isinstance(part, CensoredDistribution):
            return f"densities with probabilities at the ends of {describe(support)}"
        part = getattr(part, "component_distribution", None) or getattr(part, "base_dist", None)
    return "densities"
