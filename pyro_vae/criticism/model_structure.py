"""Structure of a pair of Pyro programs: where data enter the model, and whether its rows are independent."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.methods.base import Batch, check_unscaled, dry_run
from pyro_vae.model.programs import Programs
from pyro_vae.objectives.structure import sample_sites, structure_of


@dataclass(frozen=True)
class ObservationPlan:
    """Where data enter a model, found by a dry run.

    Args:
        by_rows: whether rows are independent, so that any number of them can be drawn at once.
        shared: latents that all rows share, so that rows depend on each other.
        sources: by observed site, the tensor of the batch that it observes and the order of its dimensions there.
    """

    by_rows: bool
    shared: tuple[str, ...]
    sources: Mapping[str, tuple[str, tuple[int, ...]]]

    @classmethod
    def of(cls, programs: Programs, batch: Batch) -> "ObservationPlan":
        """Plan of a pair of programs, from a dry run on a batch.

        Raises:
            InputError: a site is scaled, or observes something other than a tensor of the batch.
        """
        model, guide = programs.model, programs.guide
        structure = structure_of(model, guide, (), batch)
        by_rows = dry_run(programs, batch)[0].by_rows and structure.any_rows
        trace = poutine.trace(poutine.uncondition(model)).get_trace(**batch)
        guided = poutine.trace(guide).get_trace(**batch)
        simulated = sample_sites(trace)
        sites = [*simulated.values(), *sample_sites(guided).values()]
        check_unscaled(sites, "data cannot be drawn from its model")
        sources = {name: _source(name, site, batch) for name, site in simulated.items() if is_observed(site)}
        return cls(by_rows, structure.shared, sources)

    def simulated_batch(self, trace: Any, batch: Batch) -> dict[str, Tensor]:
        """Batch whose observed tensors are replaced by the values that a trace of the unconditioned model drew."""
        drawn = dict(batch)
        for name, (source, order) in self.sources.items():
            value = torch.as_tensor(trace.nodes[name]["value"])
            drawn[source] = value.permute([order.index(dim) for dim in range(value.ndim)]).to(batch[source].dtype)
        return drawn


def is_observed(site: Mapping[str, Any]) -> bool:
    """Whether a site of the unconditioned model is observed in the model itself."""
    return bool(site["infer"].get("was_observed", False))


def _source(name: str, site: Mapping[str, Any], batch: Batch) -> tuple[str, tuple[int, ...]]:
    """Name of the tensor of the batch that a site observes, and the order of its dimensions there.

    Raises:
        InputError: it observes no tensor of the batch, so that simulated values could not be passed to the guide.
    """
    data = torch.as_tensor(site["infer"]["obs"])
    for source in sorted(batch, key=lambda key: (key != name, key != "x")):
        tensor = batch[source]
        for order in itertools.permutations(range(tensor.ndim)) if tensor.ndim == data.ndim else ():
            permuted = tensor.permute(order)
            if permuted.shape == data.shape and torch.equal(permuted.nan_to_num(), data.to(permuted).nan_to_num()):
                if site["value"].shape != data.shape:
                    break
                return source, order
    raise InputError(
        f"the model observes at site {name!r} something other than a tensor of the batch ({', '.join(batch)}), so data "
        "simulated there cannot be passed to the guide: observe the tensor itself, as in pyro.sample('x', ..., obs=x)."
    )
