"""Ranks of simulated truths among a guide's draws, for simulation-based calibration."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.criticism.methods.base import MAX_ELEMENTS, MIN_WIDTH, as_float64
from pyro_vae.criticism.model_structure import Batch, ObservationPlan, is_observed
from pyro_vae.data.rows import chunk_ranges
from pyro_vae.model.programs import Programs
from pyro_vae.objectives.particles import Particles, draw_without_gradient
from pyro_vae.objectives.structure import sample_sites

JOINT = "log joint"
"""Name of log p(x, z) among the quantities."""


class RankStatistics:
    """Ranks of the latents of data simulated by a model among L draws of its guide.

    Raises:
        InputError: a site is scaled, or observes something other than a tensor of the batch.
    """

    def __init__(self, programs: Programs, batch: Batch, draws: int) -> None:
        self.model, self.guide, self.draws = programs.model, programs.guide, draws
        self.plan = ObservationPlan.of(programs, batch)
        self.by_rows = self.plan.by_rows
        self.quantities: tuple[str, ...] = ()

    def __call__(self, batch: Batch) -> NDArray[np.int64]:
        """Ranks (B, Q) of a simulation for every row, or (1, Q) of one for the complete batch."""
        simulated = poutine.trace(poutine.uncondition(self.model)).get_trace(**batch)
        data = self.plan.simulated_batch(simulated, batch)
        truth = {name: site["value"] for name, site in sample_sites(simulated).items() if not is_observed(site)}

        def exact_guide(**batch: Tensor) -> None:  # a guide with the model's plates that returns the truth
            with poutine.block(hide=list(self.plan.sources)), _PointMasses(truth):
                self.model(**batch)

        exact = self._quantities(draw_without_gradient(self.model, exact_guide, 1, **data), 1)
        below, equal = (torch.zeros_like(exact[0], dtype=torch.int64) for _ in range(2))
        width = max(MIN_WIDTH, *(tensor[0].numel() for tensor in data.values()))
        at_once = max(1, MAX_ELEMENTS // (len(next(iter(data.values()))) * width))
        for k in map(len, chunk_ranges(self.draws, at_once)):
            values = self._quantities(draw_without_gradient(self.model, self.guide, k, **data), k)
            below += (values < exact).sum(0)
            equal += (values == exact).sum(0)
        ties = (torch.rand(equal.shape, device=equal.device) * (equal + 1)).long()
        ranks: NDArray[np.int64] = (below + torch.minimum(ties, equal)).cpu().numpy()
        return ranks

    def _quantities(self, particles: Particles, k: int) -> Tensor:
        """Quantities of k draws, (k, B, Q) in float64: the log joint, then the elements of each site."""
        joint = sum(
            (as_float64(latent.log_prior) for latent in particles.latents.values()),
            as_float64(particles.log_likelihood),
        )
        names, columns = [JOINT], [joint.unsqueeze(-1)]
        for site, latent in particles.latents.items():
            if latent.prior is None:  # an auxiliary site of the guide, without a truth
                continue
            value = as_float64(latent.value) if k > 1 else as_float64(latent.value).unsqueeze(0)
            value = value.movedim(-1 - len(latent.posterior.event_shape), 1) if self.by_rows else value.unsqueeze(1)
            shape = [size for size in value.shape[2:] if size > 1]
            names += [f"{site}[{', '.join(map(str, at))}]" if at else site for at in np.ndindex(*shape)]
            columns.append(value.reshape(k, value.shape[1], -1))
        if not self.quantities:
            self.quantities = tuple(names)
        order = sorted(range(len(names)), key=lambda at: self.quantities.index(names[at]))
        values = torch.cat(columns, -1)
        unknown = values.isnan().any(0).any(0)
        if bool(unknown.any()):
            raise FloatingPointError(
                f"{names[int(unknown.to(torch.uint8).argmax())]} is NaN in a simulation: the model's density "
                "or the guide fails on the model's own data; inspect vae.encode(vae.sample(100))."
            )
        return values[..., order]


class _PointMasses(Messenger):
    """Replaces the distributions of sites by point masses at given values."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg["fn"] = Delta(self.values[msg["name"]], event_dim=msg["fn"].event_dim)
