"""Particles, the record that every objective is a function of: draws of the latents and their log-probabilities.

K draws for N rows come from one trace of the guide and one of the model replayed against it. There is no host sync
(`.item()`), so a training step of any objective can be recorded as a graph.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError
from pyro_vae.distributions.wrappers import distribution_name
from pyro_vae.objectives.structure import (
    Program,
    Structure,
    check_guide,
    check_rsample,
    check_sites,
    sample_sites,
    structure_of,
    vectorizes,
)

Alias: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Latent:
    """One latent site: its draws from the guide, and both log-densities.

    Args:
        value: the draws, (K, N, *event), in the batch layout of the programs.
        prior: the model's distribution there; None for an auxiliary site of the guide.
        posterior: the guide's distribution there.
        log_prior: log p(z), (K, N).
        log_posterior: log q(z), (K, N).
        to_rows: sums a log-density in that layout to (K, N), scaled and masked like the site.
        gather: sums any other tensor in that layout to (K, N).
        stacked: whether the draws are of runs of their own, so that the distributions are those of the first.
    """

    value: Tensor
    prior: Distribution | None
    posterior: Distribution
    log_prior: Tensor
    log_posterior: Tensor
    to_rows: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor]
    stacked: bool = False

    def kl(self, site: str) -> Tensor:
        """KL(q || p) in closed form, (K, N).

        Raises:
            InputError: torch and Pyro have no closed form for this pair, or the site is auxiliary.
        """
        if self.stacked:
            raise InputError(
                "these programs run one draw at a time, so there is no closed form of the KL of several draws at site "
                f"{site!r}: take kl='sampled', or particles=1."
            )
        if self.prior is None:
            raise InputError(
                f"site {site!r} of the guide is auxiliary, so it has no prior, and no KL in closed form: take "
                "kl='sampled', as in pv.objectives.ELBO()."
            )
        try:
            return self.to_rows(kl_divergence(self.posterior, self.prior))
        except NotImplementedError:
            raise InputError(
                f"there is no closed form of the KL from {distribution_name(self.posterior)} to "
                f"{distribution_name(self.prior)} at site {site!r}: take kl='sampled', as in pv.objectives.ELBO()."
            ) from None

    def scale_kl(self, beta: float | Tensor) -> "Latent":
        """Site with its log-densities, and the KL that `to_rows` sums, multiplied by beta."""
        return replace(
            self,
            log_prior=beta * self.log_prior,
            log_posterior=beta * self.log_posterior,
            to_rows=lambda log_prob: beta * self.to_rows(log_prob),
        )

    def kl_per_dimension(self, *, analytic: bool) -> Tensor | None:
        """KL of each element of the latent, mean over particles and rows, (*event); None if it does not factorise."""
        p, q = self.prior, self.posterior
        if self.stacked or not (isinstance(p, Independent) and isinstance(q, Independent)):
            return None
        if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims or p.base_dist.event_shape:
            return None
        if analytic:
            terms = kl_divergence(q.base_dist, p.base_dist)
        else:
            terms = q.base_dist.log_prob(self.value) - p.base_dist.log_prob(self.value)
        by_element = torch.vmap(self.to_rows, in_dims=-1)(terms.reshape(*q.batch_shape, -1))
        return by_element.mean((1, 2)).reshape(q.event_shape)


@dataclass(frozen=True)
class Particles:
    """K draws of the latents for N rows, with every log-probability by site.

    Rows are those of one plate at dimension -1 that all latents and data share; programs without one are a single
    row, N = 1.

    Args:
        latents: the latent sites by name.
        log_likelihoods: log p(x|z) of each observed site, (K, N).
        by_rows: whether the programs have such a plate.
        in_order: whether the guide draws the latents in the order of the model.
        subsampling: rows of the data for each row of the batch, by which a plate over a part of the data scales.
    """

    latents: dict[str, Latent]
    log_likelihoods: dict[str, Tensor]
    by_rows: bool = True
    in_order: bool = True
    subsampling: float = 1.0

    @cached_property
    def log_likelihood(self) -> Tensor:
        """Log p(x|z) over all observed sites, (K, N)."""
        terms = list(self.log_likelihoods.values())
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]

    @cached_property
    def log_weights(self) -> Tensor:
        """Log w = log p(x, z) - log q(z|x), (K, N), in nats: the log importance weights."""
        return self.log_likelihood - self.kl if self.latents else self.log_likelihood

    @cached_property
    def kl(self) -> Tensor:
        """Log q(z|x) - log p(z) over all latent sites, (K, N), in nats: its mean over draws estimates the KL.

        It is summed from its own terms: as a difference of weights and log-likelihood it would have their rounding.
        """
        terms = [latent.log_posterior - latent.log_prior for latent in self.latents.values()]
        return sum(terms[1:], terms[0]) if terms else torch.zeros_like(self.log_likelihood)

    @property
    def log_joint(self) -> Tensor:
        """Log p(x, z), (K, N)."""
        return sum((latent.log_prior for latent in self.latents.values()), self.log_likelihood)

    @property
    def log_posterior(self) -> Tensor:
        """Log q(z|x) over all latent sites, (K, N)."""
        return sum((latent.log_posterior for latent in self.latents.values()), torch.zeros_like(self.log_likelihood))

    def scale_kl(self, beta: float | Tensor) -> "Particles":
        """Particles with log p(z), log q(z|x), and their KL in closed form, multiplied by beta."""
        return replace(self, latents={name: latent.scale_kl(beta) for name, latent in self.latents.items()})

    def path_gradient(self, through: Tensor) -> Tensor:
        """Surrogate whose gradient is the path derivative of a function of the draws, (N,).

        Args:
            through: the function, (N,), of particles from `draw_detached_score`.

        Returns:
            The draws of each row times the fixed gradient of `through` with respect to them, (N,): it leads to the
            guide's parameters through the draws, and to no other parameters.
        """
        rows = torch.zeros_like(through)
        latents = [latent for latent in self.latents.values() if latent.value.requires_grad]
        if not (latents and through.requires_grad):
            return rows
        values = [latent.value for latent in latents]
        for latent, slope in zip(
            latents, torch.autograd.grad(through.sum(), values, retain_graph=True, materialize_grads=True), strict=True
        ):
            products = sum_rightmost(slope * latent.value, len(latent.posterior.event_shape))
            rows = rows + latent.gather(products).sum(0)
        return rows


@explained
def draw(model: Program, guide: Program, k: int, *args: Any, **kwargs: Any) -> Particles:
    """Particles of K vectorised runs of the guide and of the model replayed against them.

    Args:
        model: a Pyro program.
        guide: a Pyro program for its latent sites.
        k: the number of particles K.
        *args: arguments of both programs.
        **kwargs: the same by keyword.

    Raises:
        InputError: the sites of model and guide do not match, nothing is observed, or a guide site cannot be
            reparameterised.
    """
    return _draw(model, guide, k, args, kwargs)


@explained
def draw_detached_score(model: Program, guide: Program, k: int, *args: Any, **kwargs: Any) -> Particles:
    """Particles as from `draw`, with every density taken at draws that are separate from the guide's own graph.

    The gradient of a log-density with respect to `Latent.value` is then the partial one: neither through the noise, nor
    through later latents of the guide. A guide of several latent sites is run a second time for this, given its draws;
    other randomness in it (dropout) is then drawn again.

    Raises:
        InputError: as for `draw`, or the guide's distribution can only score its own draws.
    """
    return _draw(model, guide, k, args, kwargs, alias=lambda value: value.view_as(value))


def draw_no_path(model: Program, guide: Program, k: int, *args: Any, **kwargs: Any) -> Particles:
    """Particles as from `draw_detached_score`, with no gradient through the draws: a guide may be discrete.

    Raises:
        InputError: as for `draw_detached_score`, except for reparameterisation.
    """
    return _draw(model, guide, k, args, kwargs, alias=Tensor.detach)


def draw_without_gradient(model: Program, guide: Program, k: int, *args: Any, **kwargs: Any) -> Particles:
    """Particles as from `draw`, for criticism: a guide may be discrete.

    Raises:
        InputError: as for `draw`, except for reparameterisation.
    """
    with torch.no_grad():
        return _draw(model, guide, k, args, kwargs, through=False)


def _draw(
    model: Program,
    guide: Program,
    k: int,
    args: Any,
    kwargs: Any,
    alias: Alias | None = None,
    *,
    through: bool = True,
) -> Particles:
    through = through and alias is not Tensor.detach
    structure, nesting = structure_of(model, guide, args, kwargs, through=through), 0
    if k > 1 and not vectorizes(model, guide, k, args, kwargs):
        if alias not in (None, Tensor.detach):
            raise InputError("these programs run one draw at a time: take estimator='plain', or particles=1.")
        singles = [_draw(model, guide, 1, args, kwargs, alias, through=through) for _ in range(k)]
        return _stack(singles, _Layout(k, structure.nesting, singles[0].by_rows))
    if k > 1:
        nesting = structure.nesting
        plate = pyro.plate("particles", k, dim=-nesting - 1)
        model, guide = plate(model), plate(guide)
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    if through:
        check_rsample(check_guide(sample_sites(guide_trace)))
    if alias:
        guide_trace = _detach_score(guide, guide_trace, alias, args, kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    guide_sites, model_sites = check_guide(sample_sites(guide_trace)), sample_sites(model_trace)
    check_sites(model_sites, guide_sites)
    layout = _Layout(k, nesting, structure.has_rows([*guide_sites.values(), *model_sites.values()]))

    latents = {}
    for name, at_guide in guide_sites.items():
        at_model = model_sites.get(name)
        log_posterior = _guide_log_prob(layout, name, at_guide) if alias else layout.log_prob(at_guide)
        latents[name] = Latent(
            value=at_guide["value"],
            prior=at_model["fn"] if at_model else None,
            posterior=at_guide["fn"],
            log_prior=layout.log_prob(at_model) if at_model else torch.zeros_like(log_posterior),
            log_posterior=log_posterior,
            to_rows=layout.rows_of(at_guide),
            gather=layout.gather,
        )
    observed = {name: layout.log_prob(site) for name, site in model_sites.items() if site["is_observed"]}
    order = [name for name in model_sites if name in guide_sites]
    in_order = order == [name for name in guide_sites if name in model_sites]
    return Particles(latents, observed, layout.rows, in_order, _subsampling(model_sites, structure))


def _stack(singles: list[Particles], layout: "_Layout") -> Particles:
    """Particles of several runs of one draw each."""
    latents = {
        name: replace(
            first,
            value=torch.stack([each.latents[name].value for each in singles]),
            log_prior=torch.cat([each.latents[name].log_prior for each in singles]),
            log_posterior=torch.cat([each.latents[name].log_posterior for each in singles]),
            gather=layout.gather,
            stacked=True,
        )
        for name, first in singles[0].latents.items()
    }
    observed = {n: torch.cat([each.log_likelihoods[n] for each in singles]) for n in singles[0].log_likelihoods}
    return replace(singles[0], latents=latents, log_likelihoods=observed)


def _subsampling(sites: dict[str, Any], structure: Structure) -> float:
    """Rows of the data for each row of the batch, from the plates of rows."""
    frames = [frame for site in sites.values() for frame in site["cond_indep_stack"]] if structure.scales else []
    return max((frame.full_size / frame.size for frame in frames if frame.name in structure.row_plates), default=1.0)


def row_log_prob(trace: Any, structure: Structure) -> Tensor:
    """Log-density of each row under all sites of a trace of programs of this structure, (N,), in nats."""
    sites = [*sample_sites(trace).values()]
    layout = _Layout(1, 0, structure.has_rows(sites))
    return torch.stack([layout.log_prob(site)[0] for site in sites]).sum(0)


@dataclass(frozen=True)
class _Layout:
    """Map of the programs' batch dimensions to (K, N): the particle plate is left of `nesting` others."""

    k: int
    nesting: int
    rows: bool

    def log_prob(self, site: dict[str, Any]) -> Tensor:
        return self.rows_of(site)(site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]))

    def rows_of(self, site: dict[str, Any]) -> Callable[[Tensor], Tensor]:
        def to_rows(log_prob: Tensor) -> Tensor:
            return self.gather(scale_and_mask(log_prob, scale=site["scale"], mask=site["mask"]))

        return to_rows

    def gather(self, terms: Tensor) -> Tensor:
        if self.k == 1:
            terms = terms.unsqueeze(0)
        elif terms.ndim <= self.nesting:  # a site outside the particle plate is shared by all particles
            terms = terms.expand(self.k, *terms.shape)
        if not self.rows:
            return terms.reshape(self.k, -1).sum(1, keepdim=True)
        return terms if terms.ndim == 2 else terms.reshape(self.k, -1, terms.shape[-1]).sum(1)


def _detach_score(guide: Program, trace: Any, alias: Alias, args: Any, kwargs: Any) -> Any:
    """Trace of a guide whose distributions are functions of aliases of its draws."""
    sites = check_guide(sample_sites(trace))
    for site in sites.values():
        site["value"] = alias(site["value"])
    if len(sites) == 1:  # no distribution depends on a draw
        return trace
    return poutine.trace(poutine.replay(guide, trace=trace)).get_trace(*args, **kwargs)


def _guide_log_prob(layout: _Layout, name: str, site: dict[str, Any]) -> Tensor:
    """Log-density of a guide's site at aliases of its draws, for which a transform's cache is empty."""
    try:
        return layout.log_prob(site)
    except (KeyError, NotImplementedError):  # raised by transforms of Pyro and torch without an inverse
        raise InputError(
            f"the guide's distribution at {name!r}, {distribution_name(site['fn'])}, has a density at its own draws "
            "only, since a transform in it has no inverse: take estimator='plain', or a flow with one, such as "
            "pv.Flow()."
        ) from None
