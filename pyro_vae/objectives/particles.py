"""The one record that every objective is a function of.

K draws of the latents for N rows and every log-probability they carry, made once from the traces of a guide
and of the model replayed against it. Nothing here waits for the device (`.item()`), so a training step of any
objective is free of synchronisation, and can be recorded as a graph.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence
from torch.utils.weak import WeakIdKeyDictionary

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import seeded
from pyro_vae.distributions.wrappers import name_of


@dataclass(frozen=True)
class Latent:
    """One latent site: its draws from the guide, and both log-densities.

    Args:
        value: the draws, (K, N, *event) in the programs' own batch layout.
        prior: the model's distribution there; None for an auxiliary site of the guide.
        posterior: the guide's distribution there.
        log_prior: log p(z), (K, N).
        log_posterior: log q(z), (K, N).
        to_rows: sums a log-density in the programs' batch layout to (K, N), scaled and masked like them.
        gather: sums anything else in that layout to (K, N), as it is.
    """

    value: Tensor
    prior: Distribution | None
    posterior: Distribution
    log_prior: Tensor
    log_posterior: Tensor
    to_rows: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor]

    def kl(self, site: str) -> Tensor:
        """KL(q || p) in closed form, (K, N).

        Raises:
            InputError: torch and Pyro have no closed form for this pair, or the site is auxiliary.
        """
        if self.prior is None:
            raise InputError(
                f"site {site!r} of the guide is auxiliary, so there is no prior to take a KL to in closed form: take "
                "kl='sampled', as in pv.objectives.ELBO()."
            )
        try:
            return self.to_rows(kl_divergence(self.posterior, self.prior))
        except NotImplementedError:
            raise InputError(
                f"there is no closed form of the KL from {name_of(self.posterior)} to {name_of(self.prior)} at site "
                f"{site!r}: take kl='sampled', as in pv.objectives.ELBO()."
            ) from None

    def scale_kl(self, beta: float | Tensor) -> "Latent":
        """The site with its log-densities, and what is summed of them, weighed by beta."""
        return replace(
            self,
            log_prior=beta * self.log_prior,
            log_posterior=beta * self.log_posterior,
            to_rows=lambda log_prob: beta * self.to_rows(log_prob),
        )

    def kl_per_dimension(self, *, analytic: bool) -> Tensor | None:
        """The KL split over the latent's elements, mean over particles and rows, (*event); None if it is no sum."""
        p, q = self.prior, self.posterior
        if not (isinstance(p, Independent) and isinstance(q, Independent)):
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

    A program whose latents or data lie outside of a common plate at dimension -1 has no rows that could be
    weighed one by one: it is one row, N = 1.

    Args:
        latents: the latent sites by name.
        log_likelihoods: log p(x|z) of each observed site, (K, N).
    """

    latents: dict[str, Latent]
    log_likelihoods: dict[str, Tensor]

    @cached_property
    def log_likelihood(self) -> Tensor:
        """Log p(x|z) over all observed sites, (K, N)."""
        return (
            torch.stack(list(self.log_likelihoods.values())).sum(0)
            if len(self.log_likelihoods) > 1
            else next(iter(self.log_likelihoods.values()))
        )

    @cached_property
    def log_weights(self) -> Tensor:
        """Log w = log p(x, z) - log q(z|x), (K, N): each is one draw's estimate of the log evidence."""
        weights = self.log_likelihood
        for latent in self.latents.values():
            weights = weights + (latent.log_prior - latent.log_posterior)
        return weights

    @property
    def log_joint(self) -> Tensor:
        """Log p(x, z), (K, N)."""
        return sum((latent.log_prior for latent in self.latents.values()), self.log_likelihood)

    @property
    def log_posterior(self) -> Tensor:
        """Log q(z|x) over all latent sites, (K, N)."""
        return sum((latent.log_posterior for latent in self.latents.values()), torch.zeros_like(self.log_likelihood))

    def scale_kl(self, beta: float | Tensor) -> "Particles":
        """The record with every KL term weighed by beta: log p(z), log q(z|x), and their KL in closed form."""
        return replace(self, latents={name: latent.scale_kl(beta) for name, latent in self.latents.items()})

    def path_gradient(self, through: Tensor) -> Tensor:
        """What leads the gradient of something through the draws, and past all parameters, to the guide.

        Args:
            through: (N,), a function of the draws; of a record of `draw_detached_score`.

        Returns:
            (N,): each row's draws times the fixed gradient of the sum of `through` to them.
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


def draw(model: Callable[..., Any], guide: Callable[..., Any], k: int, *args: Any, **kwargs: Any) -> Particles:
    """Run the guide K times at once, replay the model against it, and collect the record.

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


def draw_detached_score(
    model: Callable[..., Any], guide: Callable[..., Any], k: int, *args: Any, **kwargs: Any
) -> Particles:
    """Draw as `draw` does, every density taken at draws that stand apart from the guide's own graph.

    The gradient of a log-density to `Latent.value` is then the partial one: that to the draw alone, not to the noise,
    and not to what a later latent of the guide makes of it. A guide of several latent sites is run a second time for
    this, given its draws; what else is random in it (dropout) is then drawn anew.

    Raises:
        InputError: as for `draw`, or the guide's distribution can only score its own draws.
    """
    return _draw(model, guide, k, args, kwargs, alias=lambda value: value.view_as(value))


def draw_no_path(model: Callable[..., Any], guide: Callable[..., Any], k: int, *args: Any, **kwargs: Any) -> Particles:
    """Draw as `draw_detached_score` does, with draws that no gradient goes through: a guide may be discrete.

    Raises:
        InputError: as for `draw_detached_score`, but for reparameterisation.
    """
    return _draw(model, guide, k, args, kwargs, alias=Tensor.detach)


def _draw(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    k: int,
    args: Any,
    kwargs: Any,
    alias: Callable[[Tensor], Tensor] | None = None,
) -> Particles:
    nesting = 0
    if k > 1:
        nesting = _nesting(model, guide, args, kwargs)
        plate = pyro.plate("particles", k, dim=-nesting - 1)
        model, guide = plate(model), plate(guide)
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    if alias:
        guide_trace = _apart(guide, guide_trace, alias, args, kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    guide_sites, model_sites = sample_sites(guide_trace), sample_sites(model_trace)
    _check_sites(model_sites, guide_sites, needs_rsample=alias is not Tensor.detach)
    layout = _Layout.of([*guide_sites.values(), *model_sites.values()], k, nesting)

    latents = {}
    for name, at_guide in guide_sites.items():
        at_model = model_sites.get(name)
        log_posterior = _scored(layout, name, at_guide) if alias else layout.log_prob(at_guide)
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
    return Particles(latents, observed)


def sample_sites(trace: Any) -> dict[str, dict[str, Any]]:
    """Random sites of a trace by name, latent and observed, without the subsampling of plates."""
    nodes: dict[str, Any] = prune_subsample_sites(trace).nodes
    return {name: site for name, site in nodes.items() if site["type"] == "sample"}


def row_log_prob(trace: Any) -> Tensor:
    """Log-density of each row under all sites of a trace, (N,), in nats."""
    sites = [*sample_sites(trace).values()]
    layout = _Layout.of(sites)
    return torch.stack([layout.log_prob(site)[0] for site in sites]).sum(0)


@dataclass(frozen=True)
class _Layout:
    """How the programs' batch dimensions become (K, N): the particle plate lies left of `nesting` others."""

    k: int
    nesting: int
    rows: bool

    @classmethod
    def of(cls, sites: list[dict[str, Any]], k: int = 1, nesting: int = 0) -> "_Layout":
        """That of some sites: their rows can be told apart where all lie in one plate."""
        plates = {_row_plate(site) for site in sites}
        return cls(k, nesting, len(plates) == 1 and None not in plates)

    def log_prob(self, site: dict[str, Any]) -> Tensor:
        return self.rows_of(site)(site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]))

    def rows_of(self, site: dict[str, Any]) -> Callable[[Tensor], Tensor]:
        def to_rows(log_prob: Tensor) -> Tensor:
            return self.gather(scale_and_mask(log_prob, scale=site["scale"], mask=site["mask"]))

        return to_rows

    def gather(self, terms: Tensor) -> Tensor:
        if self.k == 1:
            terms = terms.unsqueeze(0)
        elif terms.ndim <= self.nesting:  # a site outside of the particle plate is shared by all particles
            terms = terms.expand(self.k, *terms.shape)
        if not self.rows:
            return terms.reshape(self.k, -1).sum(1, keepdim=True)
        return terms if terms.ndim == 2 else terms.reshape(self.k, -1, terms.shape[-1]).sum(1)


def _apart(guide: Callable[..., Any], trace: Any, alias: Callable[[Tensor], Tensor], args: Any, kwargs: Any) -> Any:
    """The trace of a guide at aliases of its draws, its distributions functions of these."""
    sites = sample_sites(trace)
    for site in sites.values():
        site["value"] = alias(site["value"])
    if len(sites) == 1:  # no distribution in it depends on a draw
        return trace
    return poutine.trace(poutine.replay(guide, trace=trace)).get_trace(*args, **kwargs)


def _scored(layout: _Layout, name: str, site: dict[str, Any]) -> Tensor:
    """The log-density of a guide at draws that it does not recognise as its own."""
    try:
        return layout.log_prob(site)
    except (KeyError, NotImplementedError):  # what Pyro's and torch's transforms without an inverse raise
        raise InputError(
            f"the guide's distribution at {name!r}, {name_of(site['fn'])}, has the density of its own draws only, for "
            "a transform in it has no inverse: take estimator='plain', or a flow with one, such as pv.Flow()."
        ) from None


def _row_plate(site: dict[str, Any]) -> str | None:
    frames = site["cond_indep_stack"]
    return next((frame.name for frame in frames if frame.dim == -1 and frame.name != "particles"), None)


def _check_sites(model_sites: dict[str, Any], guide_sites: dict[str, Any], *, needs_rsample: bool) -> None:
    hidden = [name for name, site in model_sites.items() if not site["is_observed"]]
    if missing := sorted(set(hidden) - set(guide_sites)):
        raise InputError(
            f"the model has a latent site {missing[0]!r} that the guide does not draw: sample it in the guide, or give "
            "the model its data."
        )
    if len(hidden) == len(model_sites):
        raise InputError("the model observes nothing: pass its data to pyro.sample(..., obs=x).")
    for name, site in guide_sites.items():
        if name not in model_sites and not site["infer"].get("is_auxiliary"):
            raise InputError(
                f"the guide draws a site {name!r} that the model does not have: name it as in the model, or mark it "
                "with infer={'is_auxiliary': True}."
            )
        if name in model_sites and model_sites[name]["is_observed"]:
            raise InputError(f"the guide draws {name!r}, which the model observes: leave it out of the guide.")
        if needs_rsample and not site["fn"].has_rsample:
            raise InputError(
                f"the guide's distribution at {name!r}, {name_of(site['fn'])}, cannot be reparameterised, and this "
                "objective differentiates through the draw: take a continuous guide, or objective=pv.objectives.RWS()."
            )


# By the owner of the model, by that of the guide, by their methods; by identity, for an owner need not hash.
_NESTING: Any = WeakIdKeyDictionary()


def _nesting(model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any) -> int:
    """The number of plate dimensions of a pair, from one dry run per pair."""
    owners = [getattr(program, "__self__", program) for program in (model, guide)]
    methods = tuple(getattr(program, "__func__", None) for program in (model, guide))
    known: dict[Any, int] = _NESTING.setdefault(owners[0], WeakIdKeyDictionary()).setdefault(owners[1], {})
    if methods not in known:
        device = next((one.device for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
        with seeded(None, device), torch.no_grad(), poutine.block():
            guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
            model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        frames = [
            frame
            for trace in (guide_trace, model_trace)
            for site in sample_sites(trace).values()
            for frame in site["cond_indep_stack"]
            if frame.vectorized
        ]
        known[methods] = max((-frame.dim for frame in frames), default=0)
    return known[methods]
