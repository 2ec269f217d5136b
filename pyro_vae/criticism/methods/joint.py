"""Log joint of a model as a function of one unconstrained vector for each chain and row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import Transform

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.methods.base import Batch, count_plate_dims, not_by_row_error
from pyro_vae.distributions.constraints import supports_equal
from pyro_vae.distributions.wrappers import distribution_name, unwrap
from pyro_vae.objectives.structure import sample_sites, structure_of

Program = Callable[..., Any]
Site = dict[str, Any]

DRAWS = 200
"""Number of draws from the prior by which point masses are detected."""

TIES = 0.05
"""Share of equal draws above which the prior is taken to have a point mass."""


@dataclass(frozen=True)
class LatentSlice:
    """Slice of the unconstrained vector that holds a latent site.

    Args:
        name: the name of the site.
        to_support: the bijection of unconstrained numbers onto the site's support.
        plates: the sizes of its plates between those of chains and rows.
        event: the shape of an unconstrained event.
    """

    name: str
    to_support: Transform
    plates: tuple[int, ...]
    event: tuple[int, ...]

    @classmethod
    def of(cls, site: Site) -> "LatentSlice":
        """Slice of a site that K chains have drawn."""
        to_support = unconstraining_bijection(site["fn"].support)
        value, rank = site["value"], len(site["fn"].event_shape)
        raw = to_support.inv(value)
        batch = value.shape[: value.ndim - rank]
        return cls(site["name"], to_support, tuple(batch[1:-1]), tuple(raw.shape[len(batch) :]))

    def flatten(self, value: Tensor) -> Tensor:
        """Unconstrained vectors (K, B, D') of a value (K, *plates, B, *event)."""
        raw = self.to_support.inv(value).movedim(1 + len(self.plates), 1)
        return raw.reshape(*raw.shape[:2], -1)

    def unflatten(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Value of unconstrained vectors (K, B, D'), and the log-Jacobian, (K, B)."""
        raw = part.reshape(*part.shape[:2], *self.plates, *self.event).movedim(1, 1 + len(self.plates))
        value = self.to_support(raw)
        jacobian = self.to_support.log_abs_det_jacobian(raw, value)
        jacobian = sum_rightmost(jacobian, jacobian.ndim - 2 - len(self.plates))
        return value, sum_plates(jacobian)


def unconstraining_bijection(support: Any) -> Transform:
    """Bijection of unconstrained numbers onto a support; for a mixture, that of its components."""
    while isinstance(support, constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    return biject_to(support)


def sum_plates(terms: Tensor) -> Tensor:
    """Sums (K, B) of terms (K, *plates, B) over the plates between chains and rows."""
    return terms.reshape(len(terms), -1, terms.shape[-1]).sum(1)


def log_prob(site: Site) -> Tensor:
    """Log-density of a site, (K, B)."""
    terms = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return sum_plates(scale_and_mask(terms, mask=site["mask"]))


class Joint:
    """Log prior and log-likelihood of a model, given a batch of B rows, for K chains.

    `nesting` is the number of plate dimensions of the model, that of the rows among them; `latents` are the latent
    sites by name, drawn from the prior.
    """

    def __init__(self, model: Program, batch: Batch, chains: int, nesting: int) -> None:
        self.model, self.batch, self.chains, self.nesting = model, batch, chains, nesting
        self.latents = {name: site for name, site in self.run(model).items() if not site["is_observed"]}
        self.slices = [LatentSlice.of(site) for site in self.latents.values()]

    def run(self, program: Program, values: Mapping[str, Tensor] | None = None) -> dict[str, Site]:
        """Sample sites of a program for all chains, by name, conditioned on the given values."""
        if values is not None:
            program = poutine.condition(program, data=dict(values))
        with pyro.plate("chains", self.chains, dim=-self.nesting - 1):
            return sample_sites(poutine.trace(program).get_trace(**self.batch))

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """Unconstrained vectors u, (K, B, D), of latents by name."""
        return torch.cat([site.flatten(values[site.name]) for site in self.slices], -1)

    def unflatten(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Latents by name of vectors u (K, B, D), and log |dz / du|, (K, B)."""
        sizes = [torch.Size((*site.plates, *site.event)).numel() for site in self.slices]
        pairs = [site.unflatten(part) for site, part in zip(self.slices, u.split(sizes, -1), strict=True)]
        values = {site.name: value for site, (value, _) in zip(self.slices, pairs, strict=True)}
        return values, torch.stack([jacobian for _, jacobian in pairs]).sum(0)

    def log_probs(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log p(z) and log p(x|z) at latents, (K, B) each."""
        sites = self.run(self.model, values)
        prior = torch.stack([log_prob(site) for name, site in sites.items() if name in values]).sum(0)
        likelihood = torch.stack([log_prob(site) for name, site in sites.items() if name not in values]).sum(0)
        return prior, likelihood


def check_model(model: Program, batch: Batch) -> int:
    """Number of plate dimensions of a model, from a dry run that checks that latents of each row can be moved.

    Raises:
        InputError: no latent, nothing observed, no plate over rows, a site is scaled, or a latent is discrete, has
            point masses, no unconstrained coordinates, or a support that depends on other latents.
    """
    structure = structure_of(model, None, (), batch)
    batch = {name: tensor[:2] for name, tensor in batch.items()}
    sites = sample_sites(poutine.trace(model).get_trace(**batch))
    latents = [name for name, site in sites.items() if not site["is_observed"]]
    if not latents or len(latents) == len(sites):
        what = "no latent, so its log-likelihood is log p(x)" if not latents else "no observed site"
        raise InputError(f"the model has {what}: give it a latent, and pass its data to pyro.sample(..., obs=x).")
    if not structure.has_rows([*sites.values()]):
        raise not_by_row_error(len(batch["x"]), 1)
    nesting = count_plate_dims(list(sites.values()))
    for name in latents:
        _check_coordinates(name, sites[name]["fn"])
    first, second = (Joint(model, batch, DRAWS, nesting).latents for _ in range(2))
    for name in latents:
        _check_draws(name, first[name], second[name])
    return nesting


def _check_coordinates(name: str, fn: Any) -> None:
    if fn.support.is_discrete or isinstance(unwrap(fn), Delta):
        kind = "discrete" if fn.support.is_discrete else "one point"
        raise InputError(
            f"the prior at site {name!r}, {distribution_name(fn)}, is {kind}, and annealing moves latents along "
            "gradients: sum that site out of the model, or take method=pv.criticism.Importance()."
        )
    try:
        unconstraining_bijection(fn.support)
    except NotImplementedError:
        raise InputError(
            f"the support of the prior at site {name!r}, {fn.support}, has no map from unconstrained numbers in "
            "torch.distributions.biject_to: take a prior that has, or method=pv.criticism.Importance()."
        ) from None


def _check_draws(name: str, site: Site, again: Site) -> None:
    draws = site["value"].reshape(DRAWS, -1)
    if float((draws.sort(0).values.diff(dim=0) == 0).double().mean(0).max()) > TIES:
        raise InputError(
            f"the prior at site {name!r}, {distribution_name(site['fn'])}, has a point mass: its draws repeat. "
            "Annealing moves latents along gradients: take a prior with a density, or method=pv.criticism.Importance()."
        )
    if not supports_equal(site["fn"].support, again["fn"].support):
        raise InputError(
            f"the support of site {name!r} depends on other latents, so it has no coordinates of its own: write it as "
            "a fixed one that is moved, such as z2 = z1 * u with u in the unit interval."
        )
