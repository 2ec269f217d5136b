"""Replicates: data sets of the size of the data, drawn by a model for new rows or for the same ones."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.methods.base import MAX_ELEMENTS, MIN_WIDTH
from pyro_vae.criticism.model_structure import Batch, ObservationPlan
from pyro_vae.criticism.statistics import Statistic
from pyro_vae.data.rows import Rows, chunk_ranges, observed_mask
from pyro_vae.model.programs import Programs
from pyro_vae.objectives.particles import draw_without_gradient

KINDS = {
    "population": "new data: z ~ p(z), x ~ p(x|z)",
    "posterior": "the same rows again: z ~ q(z|x), x' ~ p(x'|z)",
    "prior": "at the present weights: z ~ p(z), x ~ p(x|z)",
}


@dataclass(frozen=True)
class Replicates:
    """Replicates of rows, with discrepancies.

    Args:
        x: k replicates, (k, N, *event_shape).
        realized: discrepancies T(x, z) of the data, (k, N), by name.
        replicated: discrepancies T(x', z), (k, N), by name.
    """

    x: Tensor
    realized: Mapping[str, Tensor] = field(default_factory=dict)
    replicated: Mapping[str, Tensor] = field(default_factory=dict)


class PredictiveSampler:
    r"""Sampler of replicates of rows, by a pair of Pyro programs.

    Of `candidates` C > 1, one is chosen for every replicate with probabilities proportional to the importance weights
    $w_c = p(x, z_c) / q(z_c | x)$, so that z follows p(z|x) as C grows, whatever the guide is.

    References:
        Rubin, Using the SIR Algorithm to Simulate Posterior Distributions, 1988 [rubin1988].

    Raises:
        InputError: these programs cannot draw data, or not in this way.
    """

    def __init__(self, programs: Programs, kind: str, candidates: int, batch: Batch) -> None:
        self.programs, self.kind, self.candidates = programs, kind, candidates
        self.plan = ObservationPlan.of(programs, batch)
        if candidates > 1 and not self.plan.by_rows:
            raise InputError(
                f"candidates={candidates} weighs draws of each row, and rows of these programs depend on each other: "
                'put latents and data in one plate, with pyro.plate("data", x.shape[0], dim=-1), or take candidates=1.'
            )
        sites = [name for name, (source, _) in self.plan.sources.items() if source == "x"]
        if not sites:
            observed = ", ".join(f"{source!r} at {name!r}" for name, (source, _) in self.plan.sources.items())
            raise InputError(
                f"the model is conditioned on x and observes {observed}, so there is nothing that replicates of x "
                "could be compared with: name the tensor that it observes x, and what it is conditioned on otherwise."
            )
        self.site = sites[0]
        self.support = self._support(batch)

    def replicates(self, batch: Batch, draws: int, discrepancies: Mapping[str, Statistic]) -> Iterator[Replicates]:
        """Replicates of all rows, in chunks of a few data sets; each chunk overwrites the one before.

        Discrepancies T(p(x|z), x) are for posterior replicates, where z belongs to the row.
        """
        x = batch["x"]
        width = self.candidates * max(MIN_WIDTH, x[0].numel())
        rows = max(1, MAX_ELEMENTS // width) if self.plan.by_rows else len(x)
        at_once = max(1, MAX_ELEMENTS // (width * len(x))) if self.plan.by_rows else 1
        parts = [part.batch() for part in Rows(batch).chunks(rows)]
        # Allocated once: new memory costs as much as a pass over it.
        buffer = x.new_empty(min(at_once, draws), *x.shape)
        for count in map(len, chunk_ranges(draws, at_once)):
            drawn, filled = [], 0
            for part in parts:
                one = self(part, count, discrepancies)
                buffer[:count, filled : filled + len(part["x"])] = one.x
                filled += len(part["x"])
                drawn.append(replace(one, x=one.x[:0]))
            realized, replicated = (
                {name: torch.cat([getattr(one, side)[name] for one in drawn], 1) for name in discrepancies}
                for side in ("realized", "replicated")
            )
            yield Replicates(buffer[:count], realized, replicated)

    def __call__(self, batch: Batch, times: int, discrepancies: Mapping[str, Statistic]) -> Replicates:
        """Replicates of a batch of rows, `times` at once, by as many copies of it."""
        count, rows = times * self.candidates, len(batch["x"])
        repeated = batch if count == 1 else {n: t.repeat(count, *[1] * (t.ndim - 1)) for n, t in batch.items()}
        model, guide_trace = poutine.uncondition(self.programs.model), None
        if self.kind == "posterior":
            guide_trace = poutine.trace(self.programs.guide).get_trace(**repeated)
            model = poutine.replay(model, trace=guide_trace)
        trace: Any = poutine.trace(model).get_trace(**repeated)
        drawn = self.plan.simulated_batch(trace, repeated)["x"]
        chosen = None if self.candidates == 1 else self._select_candidates(guide_trace, repeated, times)

        def select(values: Tensor) -> Tensor:
            shaped = values.reshape(times, self.candidates, rows, *values.shape[1:])
            if chosen is None:
                return shaped[:, 0]
            index = chosen.reshape(times, 1, rows, *[1] * (values.ndim - 1))
            return shaped.gather(1, index.expand(-1, -1, -1, *values.shape[1:]))[:, 0]

        likelihood = trace.nodes[self.site]["fn"]
        # Missing values are the same on both sides of a discrepancy, so that they cancel.
        mask = observed_mask(repeated)
        data = repeated["x"] if mask is None else torch.where(mask, repeated["x"], drawn)
        return Replicates(
            select(drawn),
            {name: select(each.function(likelihood, data)) for name, each in discrepancies.items()},
            {name: select(each.function(likelihood, drawn)) for name, each in discrepancies.items()},
        )

    def _select_candidates(self, guide_trace: Any, batch: Batch, times: int) -> Tensor:
        """Indices of the candidates chosen for each replicate of each row, (times, N)."""

        def replayed_guide(**batch: Tensor) -> Any:
            return poutine.replay(self.programs.guide, trace=prune_subsample_sites(guide_trace))(**batch)

        weights = draw_without_gradient(self.programs.model, replayed_guide, 1, **batch).log_weights
        logits = weights.reshape(times, self.candidates, -1).movedim(1, -1)
        return torch.distributions.Categorical(logits=logits, validate_args=False).sample()

    def _support(self, batch: Batch) -> Any:
        """Support of the data, or None where the distribution does not declare it."""
        pair = {name: tensor[[0, -1]] for name, tensor in batch.items()} if self.plan.by_rows else batch
        likelihood: Any = poutine.trace(self.programs.model).get_trace(**pair).nodes[self.site]["fn"]
        try:
            return likelihood.support
        except NotImplementedError:
            return None
