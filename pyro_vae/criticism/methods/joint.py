"""The log joint of a model at given latents, as a function of one unconstrained vector for each chain and row."""

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
from pyro_vae.criticism.methods.base import Batch, not_weighed, unscaled
from pyro_vae.distributions.constraints import supports_equal
from pyro_vae.distributions.wrappers import distribution_name, unwrap
from pyro_vae.objectives.particles import sample_sites

Program = Callable[..., Any]
Site = dict[str, Any]

DRAWS = 200
"""Draws from the prior by which a point mass is found."""

TIES = 0.05
"""The share of equal draws that is no coincidence of rounding."""


@dataclass(frozen=True)
class Place:
    """A latent site as a slice of the vector.

    Args:
        name: the site.
        to_support: maps unconstrained numbers to the site's support, one to one.
        plates: the sizes of its plates between those of chains and rows.
        event: the shape of an unconstrained event.
    """

    name: str
    to_support: Transform
    plates: tuple[int, ...]
    event: tuple[int, ...]

    @classmethod
    def of(cls, site: Site) -> "Place":
        """Read it off a site drawn by K chains."""
        to_support = bijection(site["fn"].support)
        value, rank = site["value"], len(site["fn"].event_shape)
        raw = to_support.inv(value)
        batch = value.shape[: value.ndim - rank]
        return cls(site["name"], to_support, tuple(batch[1:-1]), tuple(raw.shape[len(batch) :]))

    def flat(self, value: Tensor) -> Tensor:
        """The site's slice, (K, B, D'), of a value (K, *plates, B, *event)."""
        raw = self.to_support.inv(value).movedim(1 + len(self.plates), 1)
        return raw.reshape(*raw.shape[:2], -1)

    def unflat(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """The value of a slice, and the log-Jacobian, (K, B)."""
        raw = part.reshape(*part.shape[:2], *self.plates, *self.event).movedim(1, 1 + len(self.plates))
        value = self.to_support(raw)
        jacobian = self.to_support.log_abs_det_jacobian(raw, value)
        jacobian = sum_rightmost(jacobian, jacobian.ndim - 2 - len(self.plates))
        return value, by_row(jacobian)


def bijection(support: Any) -> Transform:
    """The map from unconstrained numbers onto a support; a mixture has that of its components."""
    while isinstance(support, constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    return biject_to(support)


def by_row(terms: Tensor) -> Tensor:
    """Sum over the plates between chains and rows: (K, *plates, B) to (K, B)."""
    return terms.reshape(len(terms), -1, terms.shape[-1]).sum(1)


def log_prob(site: Site) -> Tensor:
    """A site's log-density, (K, B)."""
    terms = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return by_row(scale_and_mask(terms, mask=site["mask"]))


class Joint:
    """A model's two log-densities for K chains of B rows, by running the model alone.

    Args:
        model: the model, a Pyro program.
        batch: what it is conditioned on, by name.
        chains: the number K of chains.
        nesting: plate dimensions of the model, that of the rows among them.

    `latents` are its latent sites as drawn from the prior.
    """

    def __init__(self, model: Program, batch: Batch, chains: int, nesting: int) -> None:
        self.model, self.batch, self.chains, self.nesting = model, batch, chains, nesting
        self.latents = {name: site for name, site in self.run(model).items() if not site["is_observed"]}
        self.places = [Place.of(site) for site in self.latents.values()]

    def run(self, program: Program, values: Mapping[str, Tensor] | None = None) -> dict[str, Site]:
        """The random sites of a program, every chain at once; those with values are conditioned on them."""
        if values is not None:
            program = poutine.condition(program, data=dict(values))
        with pyro.plate("chains", self.chains, dim=-self.nesting - 1):
            return sample_sites(poutine.trace(program).get_trace(**self.batch))

    def flat(self, values: Mapping[str, Tensor]) -> Tensor:
        """Latents by name as the vectors u, (K, B, D)."""
        return torch.cat([place.flat(values[place.name]) for place in self.places], -1)

    def unflat(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Latents by name from the vectors u (K, B, D), and log |dz / du|, (K, B)."""
        sizes = [torch.Size((*place.plates, *place.event)).numel() for place in self.places]
        pairs = [place.unflat(part) for place, part in zip(self.places, u.split(sizes, -1), strict=True)]
        values = {place.name: value for place, (value, _) in zip(self.places, pairs, strict=True)}
        return values, torch.stack([jacobian for _, jacobian in pairs]).sum(0)

    def log_probs(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log p(z) and log p(x|z) at latents, each (K, B)."""
        sites = self.run(self.model, values)
        prior = torch.stack([log_prob(site) for name, site in sites.items() if name in values]).sum(0)
        likelihood = torch.stack([log_prob(site) for name, site in sites.items() if name not in values]).sum(0)
        return prior, likelihood


def check_model(model: Program, batch: Batch) -> int:
    """Refuse, by a dry run on two rows, a model whose latents cannot be moved row by row.

    Returns:
        The number of its plate dimensions.

    Raises:
        InputError: no latent, nothing observed, no plate over rows, a site is scaled, or a latent is discrete, has
            point masses, no unconstrained coordinates, or a support that depends on other latents.
    """
    batch = {name: tensor[:2] for name, tensor in batch.items()}
    sites = sample_sites(poutine.trace(model).get_trace(**batch))
    latents = [name for name, site in sites.items() if not site["is_observed"]]
    if not latents or len(latents) == len(sites):
        what = "no latent, so log p(x) is what it says itself" if not latents else "nothing that is observed"
        raise InputError(f"the model has {what}: give it a latent, and its data to pyro.sample(..., obs=x).")
    rows = len(batch["x"])
    for site in sites.values():
        if not any(frame.dim == -1 and frame.size == rows for frame in site["cond_indep_stack"]):
            raise not_weighed(rows, 1)
    nesting = unscaled(list(sites.values()))
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
        bijection(fn.support)
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
