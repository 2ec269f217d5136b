"""Log-densities of all families, and their gradients, against mpmath at extreme but legal parameters."""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import mpmath
import pytest
import torch
from helpers import densities
from torch import Tensor

import pyro_vae as pv
from pyro_vae.distributions.tails import STANDARDS
from pyro_vae.families import FAMILIES, Family
from pyro_vae.families.site import SiteSpec

mpmath.mp.dps = 60
FAR = (0.0, 1e-3, 1.0, 30.0, 1e4)
"""Distances to a location, in scales."""

SCALES = (1e-4, 1.0, 1e6)


def about(scales: tuple[float, ...] = SCALES, locs: tuple[float, ...] = (0.0, -3.0)) -> Iterator[tuple[float, ...]]:
    """Values of x, a location and a scale."""
    for loc, scale, far, sign in product(locs, scales, FAR, (-1, 1)):
        yield loc + sign * far * scale, loc, scale


def positive(*parameters: tuple[float, ...]) -> Iterator[tuple[float, ...]]:
    """Values of x and of parameters."""
    return product((1e-6, 0.3, 1.0, 7.0, 1e4), *parameters)


UNIT = (1e-6, 0.01, 0.5, 0.999)
BOUNDS = (-1.0, 2.0)

EXACT: dict[str, tuple[Family, Callable[..., Any], list[tuple[float, ...]]]] = {
    "Normal": (pv.Normal(), densities.normal, list(about())),
    "Laplace": (pv.Laplace(), densities.laplace, list(about())),
    "StudentT": (
        pv.StudentT(),
        lambda x, df, loc, scale: densities.student(x, df, loc, scale),
        [(x, df, loc, scale) for df in (0.5, 3.0, 1000.0) for x, loc, scale in about()],
    ),
    "Logistic": (pv.Logistic(), densities.logistic, list(about())),
    "Cauchy": (pv.Cauchy(), densities.cauchy, list(about())),
    "AsymmetricLaplace": (
        pv.AsymmetricLaplace(),
        densities.asymmetric_laplace,
        [(*each, k) for k in (0.01, 1.0, 100.0) for each in about() if abs(each[0] - each[1]) > 1e-3 * each[2] + 1e-6],
    ),
    "Gamma": (pv.Gamma(), densities.gamma, list(positive((0.01, 1.0, 30.0, 1e4), (1e-6, 1.0, 1e4)))),
    "LogNormal": (
        pv.LogNormal(),
        lambda x, loc, scale: densities.normal(mpmath.log(x), loc, scale) - mpmath.log(x),
        list(positive((-10.0, 0.0, 8.0), (1e-4, 1.0, 10.0))),
    ),
    "Exponential": (
        pv.Exponential(),
        lambda x, rate: mpmath.log(rate) - rate * x,
        list(positive((1e-6, 1.0, 1e4))),
    ),
    "Weibull": (  # whose density is continued by a tangent from where the logarithm of its hazard is 40
        pv.Weibull(),
        densities.weibull,
        [each for each in positive((0.01, 1.0, 1e4), (0.1, 1.0, 30.0)) if each[2] * math.log(each[0] / each[1]) < 40],
    ),
    "Beta": (pv.Beta(), densities.beta, list(product(UNIT, (0.01, 1.0, 30.0, 1e3), (0.01, 1.0, 30.0, 1e3)))),
    "LogitNormal": (
        pv.LogitNormal(),
        densities.logit_normal,
        list(product(UNIT, (-9.0, 0.0, 5.0), (1e-4, 1.0, 100.0))),
    ),
    "ContinuousBernoulli": (
        pv.ContinuousBernoulli(),
        densities.continuous_bernoulli,
        list(product((0.0, *UNIT, 1.0), (-500.0, -16.5, -0.4, -1e-5, 1e-12, 0.3, 3.0, 50.0))),
    ),
    "VonMises": (
        pv.VonMises(),
        densities.von_mises,
        list(product((-3.1, -1e-3, 0.5, 3.0), (-2.0, 0.0, 1.0), (1e-4, 0.1, 1.0, 30.0, 1e4, 1e6))),
    ),
    "Bernoulli": (
        pv.Bernoulli(),
        densities.bernoulli,
        list(product((0.0, 1.0), (-100.0, -20.0, -1e-6, 0.0, 5.0, 90.0))),
    ),
    "Truncated": (
        pv.Truncated(pv.Normal(), *BOUNDS),
        densities.truncated,
        list(product((-0.99, 0.0, 1.5), (-300.0, -8.0, -1.0, 0.0, 2.0, 40.0), (0.01, 1.0, 100.0))),
    ),
    "Censored": (
        pv.Censored(pv.Normal(), *BOUNDS),
        densities.censored,
        list(product((*BOUNDS, 0.0, 1.5), (-30.0, -8.0, -1.0, 0.0, 2.0, 40.0), (0.1, 1.0, 100.0))),
    ),
    "ZeroInflated": (
        pv.ZeroInflated(pv.Poisson()),
        densities.zero_inflated,
        list(product((0.0, 1.0, 50.0), (-50.0, -1.0, 0.0, 30.0), (1e-4, 1.0, 60.0))),
    ),
}
"""By family: a declaration, its exact log-density of x and parameters in their order, and where it is looked at."""

LOGITS = ([0.0, 0.0, 0.0], [-30.0, 0.0, 80.0], [1.0, 1.0 + 1e-6, -2.0])
THREE = [0.2, 0.3, 0.5]
FLAT = [1e-4, 1.0, 300.0]

VECTORS: dict[str, tuple[Family, Callable[..., Any], tuple[int, ...], list[tuple[Any, ...]]]] = {
    "Categorical": (pv.Categorical(3), densities.categorical, (), list(product((0.0, 1.0, 2.0), LOGITS))),
    "OneHot": (pv.OneHot(), densities.one_hot, (3,), list(product(([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]), LOGITS))),
    "OrderedLogistic": (
        pv.OrderedLogistic(4),
        densities.ordered,
        (),
        list(
            product(
                (0.0, 1.0, 2.0, 3.0), (-30.0, 0.0, 9.0), ([-1.0, 0.0, 1.0], [-20.0, -19.999, 20.0], [3.0, 3.01, 3.5])
            )
        ),
    ),
    "DiscretizedLogistic": (
        pv.DiscretizedLogistic(bins=16, components=2),
        densities.pixels,
        (),
        list(
            product((0.0, 3.0, 15.0), ([0.0, 0.0], [-20.0, 3.0]), ([-0.5, 0.5], [2.0, -9.0]), ([0.1, 0.01], [1e3, 1.0]))
        ),
    ),
    "Dirichlet": (
        pv.Dirichlet(),
        densities.dirichlet,
        (3,),
        list(product((THREE, [1e-6, 0.5, 0.5 - 1e-6]), ([1.0, 1.0, 1.0], [0.02, 30.0, 0.5], [900.0, 500.0, 1e3]))),
    ),
    "LogisticNormal": (
        pv.LogisticNormal(),
        densities.logistic_normal,
        (3,),
        list(product((THREE, [1e-6, 0.5, 0.5 - 1e-6]), ([0.0, 1.0], [-9.0, 5.0]), ([1.0, 1.0], [0.01, 90.0]))),
    ),
    "MultivariateNormal": (
        pv.MultivariateNormal(),
        densities.full_rank,
        (3,),
        list(
            product(
                ([0.0, 1.0, -2.0], [30.0, -1e3, 1e3]),
                ([0.0, 0.0, 0.0], [3.0, -1e3, 1e3]),
                ([[1.0, 0, 0], [0.5, 2.0, 0], [-1.0, 0.3, 0.7]], [[1e-3, 0, 0], [0.9, 0.1, 0], [50.0, 2.0, 1e3]]),
            )
        ),
    ),
    "LowRankNormal": (
        pv.LowRankNormal(rank=1),
        densities.low_rank,
        (3,),
        list(
            product(
                ([0.0, 1.0, -2.0], [30.0, -10.0, 10.0]),
                ([0.0, 0.0, 0.0], [3.0, -1.0, 1.0]),
                ([[1.0], [0.5], [-1.0]], [[1e-3], [0.9], [20.0]]),
                ([1.0, 1.0, 1.0], [0.01, 1.0, 100.0]),
            )
        ),
    ),
    "Mixture": (
        pv.Mixture(pv.Normal(), components=2),
        densities.mixture,
        (),
        list(
            product(
                (0.0, -2.5, 30.0),  # further out float32 holds no differences of log-densities, and so no shares
                ([0.0, 0.0], [-50.0, 3.0]),
                ([-2.0, 2.0], [0.0, 1e-3], [999.0, -5.0]),
                ([1.0, 1.0], [1e-3, 1e3]),
            )
        ),
    ),
}
"""Families whose parameters are vectors: a declaration, its exact log-density, an event's shape and settings."""

ELSEWHERE = {
    "Poisson": "test_large_counts",
    "NegativeBinomial": "test_large_counts",
    "Binomial": "test_large_counts",
    "BetaBinomial": "test_large_counts",
    "Transformed": "its part's density, and the Jacobian of a transform of torch (tests/families/test_composites.py)",
    "Scaled": "its part's density in another unit (tests/families/test_composites.py)",
    "Flow": "a composition of Zuko's transforms of a Normal (tests/families/test_flows.py)",
    "VampPrior": "a Mixture of its guide's posteriors",
    "Aggregate": "its part's density",
}
"""Where other families are held to what is exact."""


def test_every_family_is_held_to_what_is_exact() -> None:
    assert {*EXACT, *VECTORS, *ELSEWHERE} == set(FAMILIES)


def require_exact(
    family: Family, exact: Callable[..., Any], x: Any, values: tuple[Any, ...], shape: tuple[int, ...]
) -> None:
    """Within 1e-5 relative or 1e-3 nats in float32; gradients within 1e-4 relative or 1e-3, of x's and loc's in scales.

    Args:
        family: a declaration.
        exact: the log-density of x and parameters.
        x: the event.
        values: of the parameters, in the order of the declaration's slots.
        shape: of the event.
    """
    bound = family.bind(SiteSpec("likelihood", shape))
    given = {
        name: torch.tensor(value).requires_grad_(torch.tensor(value).is_floating_point())
        for name, value in zip(bound.slots, values, strict=True)
    }
    found = bound.distribution(**given).log_prob(torch.tensor(x)).sum()
    at = [_exactly(value) for value in given.values()]
    event = _exactly(torch.tensor(x))
    right = float(exact(event, *at))
    assert found.item() == pytest.approx(right, rel=1e-5, abs=1e-3), (x, values)
    gradients = torch.autograd.grad(found, list(given.values()))
    for number, (name, gradient) in enumerate(zip(given, gradients, strict=True)):
        for place in range(gradient.numel()):
            slope = float(mpmath.diff(_along(exact, event, at, number, place), _flat(at[number])[place]))
            size = _unit(name, given, place)
            assert gradient.flatten()[place].item() * size == pytest.approx(slope * size, rel=1e-4, abs=1e-3), (
                name,
                x,
                values,
            )


def _exactly(value: Tensor) -> Any:
    return mpmath.mpf(value.item()) if not value.ndim else [_exactly(part) for part in value]


def _flat(value: Any) -> list[Any]:
    return [part for each in value for part in _flat(each)] if isinstance(value, list) else [value]


def _with(value: Any, place: int, new: Any) -> Any:
    """A nested list with the number at a place of the flat one replaced."""
    if not isinstance(value, list):
        return new
    size = len(_flat(value[0]))
    return [_with(part, place % size, new) if at == place // size else part for at, part in enumerate(value)]


def _along(exact: Callable[..., Any], x: Any, at: list[Any], number: int, place: int) -> Callable[[Any], Any]:
    return lambda new: exact(x, *at[:number], _with(at[number], place, new), *at[number + 1 :])


def _unit(name: str, given: dict[str, Tensor], place: int) -> float:
    """By what a parameter's gradient is multiplied: a location's by the scale, another's by itself."""
    scale = given.get("scale") if name == "loc" else given[name]
    if scale is None:
        return 1.0
    return abs(scale.flatten()[min(place, scale.numel() - 1)].item()) or 1.0


@pytest.mark.parametrize("name", EXACT)
def test_density_and_gradient_are_exact(name: str) -> None:
    family, exact, settings = EXACT[name]
    for x, *values in settings:
        require_exact(family, exact, x, tuple(values), ())


@pytest.mark.parametrize("name", VECTORS)
def test_density_and_gradient_of_vectors_are_exact(name: str) -> None:
    family, exact, shape, settings = VECTORS[name]
    for x, *values in settings:
        require_exact(family, exact, x, tuple(values), shape)


@pytest.mark.parametrize("name", STANDARDS)
def test_slope_of_a_log_cdf_at_0_is_that_from_both_sides(name: str) -> None:
    at, below = torch.zeros((), requires_grad=True), torch.tensor(-1e-4, requires_grad=True)
    slopes = [torch.autograd.grad(STANDARDS[name].log_cdf(u), u)[0].item() for u in (at, below)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)
