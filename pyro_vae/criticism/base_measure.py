"""Base measure of a likelihood, under which p(x) is a density: of probabilities, or of densities.

Log probabilities and log densities have no common unit, so models are compared under one base measure only.
"""

from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Unit

from pyro_vae.criticism.methods.base import Batch
from pyro_vae.distributions.bounded import CensoredDistribution
from pyro_vae.distributions.constraints import describe, element_of
from pyro_vae.model.programs import Programs


def base_measure(programs: Programs, batch: Batch) -> str:
    """Base measure of p(x), from a dry run on two rows.

    Returns:
        "probabilities" for discrete data, "densities" for continuous data, or a longer description for densities on the
        simplex or with point masses; that of each site where sites differ; "" where a support is unknown.

    >>> import pyro_vae as pv
    >>> base_measure(pv.VAE((3,), 2, likelihood=pv.Poisson()), {"x": torch.ones(2, 3)})
    'probabilities'
    """
    batch = {name: tensor[:2] for name, tensor in batch.items()}
    by_guide = poutine.trace(programs.guide).get_trace(**batch)
    trace = poutine.trace(poutine.replay(programs.model, trace=by_guide)).get_trace(**batch)
    sites = {name: trace.nodes[name]["fn"] for name in trace.observation_nodes}
    # A Unit is a factor, not data.
    kinds = {name: distribution_measure(fn) for name, fn in sites.items() if not isinstance(fn, Unit)}
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    return ", ".join(f"{kind or 'unknown numbers'} of {name}" for name, kind in sorted(kinds.items()))


def distribution_measure(distribution: Any) -> str:
    """Base measure of a distribution; see `base_measure`."""
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
