"""Roles, kind and support of a family as they come out of building it in every role and place.

The catalogue prints what families declare as class data; this is the independent computation that proves it.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints as sets

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import seeded
from pyro_vae.distributions.constraints import describe, element_of, real, supports_equal
from pyro_vae.families import FAMILIES, Family
from pyro_vae.families.base import Composite
from pyro_vae.families.catalogue import KINDS
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.normal import Normal
from pyro_vae.families.site import Shape, SiteSpec
from pyro_vae.networks import MLP

LATENT: Shape = (3,)
EVENTS: tuple[Shape, ...] = ((), (3,), (2, 3), (1, 4, 4))
"""Events that likelihoods are built for: a number, a vector, a sequence of vectors, an image."""


@dataclass(frozen=True)
class BuiltFamily:
    """Distributions of a family in every place where it could be built, by role."""

    prior: TorchDistribution | None
    guide: TorchDistribution | None
    likelihoods: dict[Shape, TorchDistribution]


@functools.cache
def build(family: type[Family]) -> BuiltFamily:
    """Distributions of a family with its defaults in every role and place."""
    with seeded(None):
        network = MLP(hidden=())
        posterior = Conditional(Normal(), SiteSpec("guide", LATENT, (4,), network))
        prior = _built(family, SiteSpec("prior", LATENT, guide=posterior, data_shape=(4,)))
        guide = _built(family, SiteSpec("guide", LATENT, (4,), network))
        places = {event: _built(family, SiteSpec("likelihood", event, (2,), network)) for event in EVENTS}
        return BuiltFamily(prior, guide, {event: made for event, made in places.items() if made is not None})


def _built(family: type[Family], site: SiteSpec) -> TorchDistribution | None:
    """Distribution of a family in a place; None where it cannot be built, or cannot score its own draws."""
    try:
        distribution = Conditional(family(), site).dummy_distribution()
        scores: Tensor = distribution.log_prob(distribution.sample())
    except (InputError, NotImplementedError):
        return None
    return distribution if bool(torch.isfinite(scores).all()) else None


def computed_roles(family: type[Family]) -> tuple[str, ...]:
    """Roles that a family can have: a prior needs a guide over its support, and a guide a prior."""
    own, others = build(family), [build(other) for other in {*FAMILIES.values(), family}]
    guides = [other.guide for other in others if other.guide is not None and other.guide.has_rsample]
    priors = [other.prior for other in others if other.prior is not None]
    found = {
        "prior": own.prior is not None
        and not family().has_point_masses
        and any(supports_equal(own.prior.support, guide.support) for guide in guides),
        "likelihood": bool(own.likelihoods),
        "guide": own.guide in guides and any(supports_equal(own.guide.support, prior.support) for prior in priors),
    }
    return tuple(role for role, possible in found.items() if possible)


def _element(distribution: TorchDistribution, family: Family) -> Any:
    """Constraint of one element of its data, or of one vector where elements depend on each other."""
    support = element_of(distribution.support)
    return support if family.data_support is None or support.event_dim else family.data_support


def _of(family: type[Family], example: Family) -> Any:
    built = build(family) if example == family() else None
    if built is None:
        site = SiteSpec("likelihood", next(iter(build(family).likelihoods)), (2,), MLP(hidden=()))
        return _element(Conditional(example, site).dummy_distribution(), example)
    known = [*built.likelihoods.values(), built.prior, built.guide]
    return _element(next(one for one in known if one is not None), example)


def _bounds(constraint: Any) -> tuple[float, float]:
    if constraint is sets.boolean:
        return 0.0, 1.0
    low, high = getattr(constraint, "lower_bound", -math.inf), getattr(constraint, "upper_bound", math.inf)
    return float(torch.as_tensor(low).min()), float(torch.as_tensor(high).max())


def _followed(family: type[Family]) -> list[str]:
    """Bounds of the support in words: a number, or the option that it follows, as in classes - 1."""
    example = family()
    bounds = _bounds(_of(family, example))
    words = [f"{bound:g}" for bound in bounds]
    for field in dataclasses.fields(family):
        value = getattr(example, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not build(family).likelihoods:
            continue
        try:
            moved = _bounds(_of(family, family(**{field.name: value + 1})))
        except InputError:
            continue
        for i in range(2):
            if moved[i] - bounds[i] == 1:
                apart = bounds[i] - value
                words[i] = field.name + (f" {'-' if apart < 0 else '+'} {abs(apart):g}" if apart else "")
    return words


def computed_support(family: type[Family]) -> str:
    """Values that a family describes, in words, from the distributions that it makes."""
    return _values(family) + (" by default" if issubclass(family, Composite) else "")


def _values(family: type[Family]) -> str:
    constraint = _of(family, family())
    low, high = _bounds(constraint)
    if isinstance(constraint, type(sets.simplex)):
        return "vectors of shares, positive, that sum to one"
    if isinstance(constraint, type(sets.one_hot)):
        return "one-hot vectors"
    vectors = "vectors of " if all(build(family).likelihoods) and computed_kind(family) == "Vectors" else ""
    if constraint.is_discrete:
        first, last = _followed(family)
        if last in ("1", "inf"):
            return vectors + ("0 and 1" if last == "1" else f"integers {first}, {int(low) + 1}, ...")
        return vectors + f"integers {first} to {last}"
    if (low, high) == (-math.inf, math.inf):
        return vectors + ("real numbers" if constraint in (real, sets.real_vector) else describe(constraint))
    first, last = _followed(family)
    if (first, last) == ("0", "inf"):
        return vectors + ("0 and " if bool(constraint.check(torch.zeros(()))) else "") + "positive numbers"
    if abs(high - math.pi) < 1e-3 and abs(low + math.pi) < 1e-3:
        return vectors + "angles in [-pi, pi]"
    closed = [math.isfinite(end) and bool(constraint.check(torch.tensor(end))) for end in (low, high)]
    return vectors + f"numbers in {'(['[closed[0]]}{first}, {last}{')]'[closed[1]]}"


def computed_kind(family: type[Family]) -> str:
    """Kind of data of a family, from the distributions that it makes."""
    if computed_roles(family) == ("prior",):
        return KINDS[-1]
    if issubclass(family, Composite):
        return "Made of another family"
    example = family()
    constraint = _of(family, example)
    low, high = _bounds(constraint)
    if example.is_pixel:
        return "Pixel levels"
    if isinstance(constraint, type(sets.simplex)):
        return "Shares that sum to one"
    if constraint.is_discrete:
        counted = example.is_count or any(parameter.scales_with_size_factor for parameter in family.parameters.values())
        return "Counts" if counted else "Categories"
    if example.event_ranks == (1,):
        return "Vectors"
    if (low, high) == (0, 1):
        return "Unit interval"
    if (low, high) == (0, math.inf):
        return "Positive numbers"
    return "Angles" if math.isfinite(low) and math.isfinite(high) else "Real numbers"
