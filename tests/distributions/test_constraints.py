"""Constraints are exact maps: inverted, differentiated, bounded, and compared as the sets that they are."""

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from helpers import cases
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to

from pyro_vae.distributions.constraints import Bounded, describe, positive, scale_tril, supports_equal
from pyro_vae.families import FAMILIES

BOUNDED = {
    repr(p.constraint): p.constraint
    for family in FAMILIES.values()
    for p in family.parameters.values()
    if isinstance(p.constraint, Bounded)
} | {"narrow": Bounded(0.2, 0.7, unit=0.3)}
over_bounded = pytest.mark.parametrize("constraint", BOUNDED.values(), ids=BOUNDED)

REAL, BOOLEAN = constraints.real, constraints.boolean
SUPPORTS = {
    "real": REAL,
    "interval(-inf, inf)": constraints.interval(-math.inf, math.inf),
    "real_vector": constraints.real_vector,
    "independent(real, 1)": constraints.independent(REAL, 1),
    "normal_vector": dist.Normal(torch.zeros(2), 1.0).to_event(1).support,
    "positive": constraints.positive,
    "greater_than(0)": constraints.greater_than(0),
    "nonnegative": constraints.nonnegative,
    "greater_than(1)": constraints.greater_than(1),
    "unit_interval": constraints.unit_interval,
    "interval(0, 1)": constraints.interval(0, 1),
    "boolean": BOOLEAN,
    "integer_interval(0, 1)": constraints.integer_interval(0, 1),
    "categorical": dist.Categorical(torch.ones(2)).support,
    "integer_interval(0, 2)": constraints.integer_interval(0, 2),
    "nonnegative_integer": constraints.nonnegative_integer,
    "poisson": dist.Poisson(1.0).support,
    "boolean vector": constraints.independent(BOOLEAN, 1),
    "nested": constraints.independent(constraints.independent(BOOLEAN, 1), 1),
    "boolean matrix": constraints.independent(BOOLEAN, 2),
    "simplex": constraints.simplex,
    "one_hot": constraints.one_hot,
    "integer vector": constraints.independent(constraints.integer_interval(-9, 9), 1),
}
SAME = [  # every set of names for one set; all other pairs differ
    {"real", "interval(-inf, inf)"},
    {"real_vector", "independent(real, 1)", "normal_vector"},
    {"positive", "greater_than(0)", "nonnegative"},
    {"unit_interval", "interval(0, 1)"},
    {"boolean", "integer_interval(0, 1)", "categorical"},
    {"nonnegative_integer", "poisson"},
    {"nested", "boolean matrix"},
]


def transform(constraint: Any) -> Any:
    return transform_to(constraint)


def spd_factors(count: int, size: int) -> Tensor:
    """Cholesky factors of random covariances, some of them with correlations near 1."""
    root = torch.randn(count, size, size, generator=cases.seeded(), dtype=torch.float64)
    ridge = torch.logspace(-6, 1, count, dtype=torch.float64)[:, None, None] * torch.eye(size, dtype=torch.float64)
    return torch.linalg.cholesky(root @ root.mT + ridge)


# ---- Bounded -----------------------------------------------------------------------------------------------


@over_bounded
def test_bounded_inverts(constraint: Bounded) -> None:
    raw = torch.linspace(-8, 8, 81, dtype=torch.float64)
    value = transform(constraint)(raw)
    torch.testing.assert_close(transform(constraint).inv(value), raw, rtol=0, atol=1e-9)
    shares = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    value = constraint.lower_bound * (constraint.upper_bound / constraint.lower_bound) ** shares
    torch.testing.assert_close(transform(constraint)(transform(constraint).inv(value)), value, rtol=1e-9, atol=0)


@over_bounded
def test_bounded_log_derivative(constraint: Bounded) -> None:
    raw = torch.linspace(-8, 8, 81, dtype=torch.float64, requires_grad=True)
    value = transform(constraint)(raw)
    (slope,) = torch.autograd.grad(value.sum(), raw)
    claimed = transform(constraint).log_abs_det_jacobian(raw, value)
    torch.testing.assert_close(claimed, slope.abs().log(), rtol=0, atol=1e-9)


@over_bounded
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bounded_stays_within_its_bounds(constraint: Bounded, dtype: torch.dtype) -> None:
    raw = torch.tensor([-1e3, -50, -1, 0, 1, 50, 1e3], dtype=dtype, requires_grad=True)
    value = transform(constraint)(raw)
    rounding = 2 * torch.finfo(dtype).eps
    assert bool((value >= constraint.lower_bound * (1 - rounding)).all())
    assert bool((value <= constraint.upper_bound * (1 + rounding)).all())
    assert bool((value.diff() >= 0).all()), "the map has to be monotone"
    assert value[0].item() == pytest.approx(constraint.lower_bound)
    assert value[-1].item() == pytest.approx(constraint.upper_bound)
    (slope,) = torch.autograd.grad(value.log().sum(), raw)
    assert bool(torch.isfinite(slope).all())
    assert bool((slope[2:5] > 0).all())


@over_bounded
def test_bounded_is_its_unit_at_zero(constraint: Bounded) -> None:
    value = transform(constraint)(torch.zeros((), dtype=torch.float64))
    assert value.item() == pytest.approx(constraint.unit, rel=1e-12)


def test_bounded_is_an_exponential_between_its_ends() -> None:
    raw = torch.linspace(-3, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(transform(positive)(raw), raw.exp(), rtol=5e-3, atol=0)


@pytest.mark.parametrize("beyond", [0.0, 1e-12, 1e9])
def test_inverse_is_finite_beyond_the_bounds(beyond: float) -> None:
    for dtype in (torch.float32, torch.float64):
        assert bool(torch.isfinite(transform(positive).inv(torch.tensor(beyond, dtype=dtype))))


def test_bounded_has_a_bijection() -> None:
    raw = torch.linspace(-3, 3, 7)
    assert torch.equal(biject_to(positive)(raw), transform(positive)(raw))


# ---- ScaleTril -----------------------------------------------------------------------------------------------


def correlation_of(factor: Tensor) -> Tensor:
    """The correlation matrix of a covariance's Cholesky factor."""
    rows = factor / torch.linalg.vector_norm(factor, dim=-1, keepdim=True)
    return rows @ rows.mT


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_covariance_within_the_bounds_is_reached(size: int) -> None:
    factor = spd_factors(20, size)
    factor = factor[torch.linalg.eigvalsh(correlation_of(factor))[:, 0] > 2e-4]
    assert len(factor) > 10
    assert bool(scale_tril.check(factor).all())
    raw = transform(scale_tril).inv(factor)
    assert torch.equal(raw, raw.tril()), "the inverse has to use one entry for each free number"
    torch.testing.assert_close(transform(scale_tril)(raw), factor, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_raw_matrices_invert(size: int) -> None:
    raw = 3 * torch.randn(20, size, size, generator=cases.seeded(), dtype=torch.float64).tril()
    torch.testing.assert_close(transform(scale_tril).inv(transform(scale_tril)(raw)), raw, rtol=0, atol=1e-9)


def test_scale_tril_is_the_documented_covariance() -> None:
    raw = 2 * torch.randn(7, 4, 4, generator=cases.seeded(), dtype=torch.float64)
    factor, rows = transform(scale_tril)(raw), (raw.tril(-1) + torch.eye(4)).numpy()
    assert torch.equal(factor, factor.tril())
    deviations = transform(positive)(raw.diagonal(dim1=-2, dim2=-1)).numpy()
    rows = rows / (rows**2).sum(-1, keepdims=True) ** 0.5
    correlation = (1 - 1e-4) * rows @ rows.swapaxes(-1, -2) + 1e-4 * np.eye(4)
    expected = torch.as_tensor(deviations[:, :, None] * correlation * deviations[:, None])
    torch.testing.assert_close(factor @ factor.mT, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [3, 16, 32])
def test_scale_tril_stays_within_its_bounds(size: int, dtype: torch.dtype) -> None:
    """At outputs of 50 and beyond, in any mixture of signs, density, draws and gradients stay numbers."""
    signs = torch.randint(-1, 2, (12, size, size), generator=cases.seeded())
    for extreme in (50.0, 1e3):
        raw = torch.cat([signs, *(torch.full((1, size, size), sign) for sign in (-1, 1))]).to(dtype) * extreme
        factor = transform(scale_tril)(raw.requires_grad_())
        rounding = 1e3 * size * torch.finfo(dtype).eps
        norms = torch.linalg.vector_norm(factor, dim=-1)
        assert bool((norms > 1e-4 * (1 - rounding)).all() & (norms < 1e6 * (1 + rounding)).all())
        share = factor.diagonal(dim1=-2, dim2=-1) / norms
        assert bool((share > 0.01 * (1 - rounding) ** 0.5 - rounding).all() & (share < 1 + rounding).all())
        assert bool((torch.linalg.eigvalsh(correlation_of(factor))[:, 0] > 1e-4 - rounding * 1e-3).all())
        loc = 50 * torch.randn(size, generator=cases.seeded()).sign().to(dtype)
        normal = dist.MultivariateNormal(loc, scale_tril=factor, validate_args=False)
        for x in (torch.zeros(size, dtype=dtype), normal.sample()):
            density = normal.log_prob(x)
            assert bool(torch.isfinite(density).all())
            (slope,) = torch.autograd.grad(density.sum(), raw, retain_graph=True)
            assert bool(torch.isfinite(slope).all())


def test_scale_tril_at_zero_is_the_identity() -> None:
    raw = torch.zeros(2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(transform(scale_tril)(raw), torch.eye(3).double().expand(2, 3, 3), rtol=1e-12, atol=0)


def test_scale_tril_starts_at_a_diagonal() -> None:
    diagonal = torch.diag(torch.tensor([0.5, 2.0, 30.0], dtype=torch.float64))
    raw = transform(scale_tril).inv(diagonal)
    assert torch.equal(raw, raw.diagonal().diag())
    torch.testing.assert_close(transform(scale_tril)(raw), diagonal, rtol=1e-12, atol=0)


def test_collinear_data_have_a_bounded_likelihood() -> None:
    """Of two elements that are one, the likelihood has a maximum: that at a correlation of 1 - floor."""
    x = torch.randn(200, 1, generator=cases.seeded(), dtype=torch.float64).expand(200, 2)
    variance = x[:, 0].square().mean() / (2 - 1e-4)
    highest = -math.log(2 * math.pi) - variance.log() - math.log(1e-4 * (2 - 1e-4)) / 2 - 1
    raw = 3 * torch.randn(5000, 2, 2, generator=cases.seeded(), dtype=torch.float64).tril()
    raw[:, 1, 0] *= torch.logspace(-1, 3, 5000, dtype=torch.float64)
    raw[0] = torch.diag(transform(positive).inv(variance.sqrt()).expand(2))
    raw[0, 1, 0] = 1e6
    normal = dist.MultivariateNormal(torch.zeros(2).double(), scale_tril=transform(scale_tril)(raw))
    reached = normal.log_prob(x[:, None]).mean(0)
    torch.testing.assert_close(reached[0], highest, rtol=0, atol=1e-6)
    assert reached.argmax() == 0


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0.5], [0.5, 1]],
        [[1, 0], [0, 1e7]],
        [[1, 0], [0, -1]],
        [[1, 0], [0, 1e-5]],
        [[1, 0], [1, 0.005]],
        [[0, 0], [0, 0]],
    ],
    ids=str,
)
def test_scale_tril_refuses(matrix: list[list[float]]) -> None:
    assert not bool(scale_tril.check(torch.tensor(matrix, dtype=torch.float64)))


# ---- supports ------------------------------------------------------------------------------------------------


def test_supports_are_compared_as_sets() -> None:
    wrong = [
        (first, second)
        for first in SUPPORTS
        for second in SUPPORTS
        if supports_equal(SUPPORTS[first], SUPPORTS[second])
        != (first == second or any({first, second} <= names for names in SAME))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (constraints.real_vector, "the real numbers"),
        (constraints.interval(-math.inf, math.inf), "the real numbers"),
        (constraints.independent(BOOLEAN, 2), "{0, 1}"),
        (constraints.positive, "the numbers in [0.0, inf]"),
        (constraints.unit_interval, "the numbers in [0.0, 1.0]"),
        (constraints.integer_interval(0, 4), "the integers in [0.0, 4.0]"),
        (constraints.nonnegative_integer, "the integers in [0.0, inf]"),
        (constraints.simplex, "the vectors of positive numbers that sum to 1"),
        (constraints.one_hot, "OneHot()"),
    ],
    ids=str,
)
def test_supports_in_words(constraint: Any, words: str) -> None:
    assert describe(constraint) == words
