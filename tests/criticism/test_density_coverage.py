"""Density and coverage, and which features tell samples apart: what they are, under equality and of wrong samples."""

import importlib
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism import DensityCoverage, classifier_test, density_coverage

fidelity = importlib.import_module("pyro_vae.criticism.density_coverage")


def published(x: Tensor, y: Tensor, neighbours: int) -> tuple[float, float]:
    """As the paper's own program has it: all distances, and a point's own is the smallest."""
    to_data, to_replicates = cdist(x, x), cdist(x, y)
    radius = np.sort(to_data, 1)[:, neighbours]
    inside = to_replicates < radius[:, None]
    return inside.sum(0).mean() / neighbours, (to_replicates.min(1) < radius).mean()


def in_random_order(x: Tensor, y: Tensor, neighbours: int, rng: np.random.Generator) -> tuple[float, float]:
    """Equal distances set apart by lot."""
    to_data, to_replicates = (cdist(x, z).round(9) for z in (x, y))
    np.fill_diagonal(to_data, np.inf)
    both = np.concatenate([to_data, to_replicates], 1)
    order = np.lexsort((rng.random(both.shape), both), axis=1)
    is_replicate = order >= len(x)
    before = np.cumsum(~is_replicate, 1) < neighbours
    inside = (is_replicate & before).sum(1)
    return inside.sum() / (neighbours * len(y)), (inside > 0).mean()


@pytest.mark.parametrize(("n", "m"), [(200, 200), (150, 40), (30, 300)])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_density_coverage_equals_the_papers_formula(n: int, m: int, neighbours: int) -> None:
    x, y = torch.randn(n, 4), 1.3 * torch.randn(m, 4) + 0.2
    found = density_coverage(x, y, neighbours=neighbours)
    assert (found.density, found.coverage) == pytest.approx(published(x, y, neighbours), rel=1e-12)
    assert found.points == (n, m)
    assert found.neighbours == neighbours


def test_by_hand() -> None:
    """Data 0, 1, 3 with balls of radius 1, 1, 2 around them; replicates .5, 2.5, 9."""
    x, y = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.5], [2.5], [9.0]])
    found = density_coverage(x, y, neighbours=1)
    assert found.density == pytest.approx((1 + 1 + 1) / 3)
    assert found.coverage == 1
    assert found.expected == pytest.approx(1 - 2 / 5)
    assert density_coverage(x, y[1:], neighbours=1).coverage == pytest.approx(1 / 3)


def test_density_coverage_is_invariant_to_unit_place_rotation_order_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(100, 3).double(), torch.randn(80, 3).double() + 0.3
    turn = torch.linalg.qr(torch.randn(3, 3).double()).Q
    plain = density_coverage(x, y)
    for changed in (
        density_coverage(100 * x @ turn + 1e4, 100 * y @ turn + 1e4),
        density_coverage(x.flip(0), y.flip(0)),
        density_coverage(1e-9 * x, 1e-9 * y),
    ):
        assert (changed.density, changed.coverage) == (plain.density, plain.coverage)
    for held in (1, 1000, 18_000):
        monkeypatch.setattr(fidelity, "DISTANCES", held)
        again = density_coverage(x, y)
        assert (again.density, again.coverage) == pytest.approx((plain.density, plain.coverage), rel=1e-12)


def test_distances_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "DISTANCES", 2000)
    for to_data, to_replicates, _ in fidelity._distances(torch.randn(90, 2).double(), torch.randn(70, 2).double()):
        assert to_data.numel() + to_replicates.numel() <= 2000


def test_outlier_does_not_blur_the_others() -> None:
    """Rounding at 1e8 is coarse; what is near the other points is told apart all the same."""
    x, y = torch.randn(300, 2).double(), torch.randn(300, 2).double()
    x[0], y[0] = 1e8, -1e8
    found = density_coverage(x, y)
    assert (found.density, found.coverage) == pytest.approx(published(x, y, 5), rel=1e-12)


# Under equality


@pytest.mark.parametrize(("n", "m", "neighbours"), [(10, 10, 5), (100, 30, 1), (20, 500, 3), (10_000, 10_000, 5)])
def test_expected_coverage_is_that_of_a_lottery(n: int, m: int, neighbours: int) -> None:
    found = fidelity._expected_coverage(n, m, neighbours)
    assert found == pytest.approx(scipy.stats.hypergeom(n - 1 + m, m, neighbours).sf(0), rel=1e-9)
    factors = [(n - j) / (2 * n - j) for j in range(1, neighbours + 1)]
    if n == m:
        assert found == pytest.approx(1 - math.prod(factors), rel=1e-12)  # as the paper has it


EQUAL: dict[str, Callable[[int], Tensor]] = {
    "normal": lambda n: torch.randn(n, 3),
    "heavy tails": lambda n: torch.randn(n, 2) / torch.randn(n, 1),
    "binary": lambda n: (torch.rand(n, 4) < torch.tensor([0.1, 0.5, 0.8, 0.5])).double(),
    "few values": lambda n: torch.randint(0, 3, (n, 2)) / 16,
    "counts": lambda n: torch.poisson(torch.full((n, 3), 2.0)),
    "constant": lambda n: torch.full((n, 2), 0.1),
}


@pytest.mark.parametrize("kind", EQUAL)
@pytest.mark.parametrize(("n", "m"), [(60, 60), (80, 30)])
def test_means_under_equality_are_exact(kind: str, n: int, m: int) -> None:
    """Density 1 and the expected coverage, of samples of different sizes and with ties too."""
    found = [density_coverage(EQUAL[kind](n), EQUAL[kind](m), neighbours=3) for _ in range(300)]
    for values, expected in (
        ([each.density for each in found], 1),
        ([each.coverage for each in found], found[0].expected),
    ):
        error = float(np.std(values)) / math.sqrt(len(values))
        assert abs(float(np.mean(values)) - expected) < 4 * error + 1e-9


@pytest.mark.parametrize("kind", ["binary", "few values", "counts"])
def test_ties_are_the_mean_over_random_orders(kind: str) -> None:
    x, y, rng = EQUAL[kind](40), EQUAL[kind](25), np.random.default_rng(0)
    drawn = np.array([in_random_order(x, y, 4, rng) for _ in range(1500)])
    found = density_coverage(x, y, neighbours=4)
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert (np.abs([found.density, found.coverage] - drawn.mean(0)) < 4 * error + 1e-9).all()


def test_ties_are_ties_in_any_unit() -> None:
    """Tenths are no sums of powers of two: rounding would set equal distances apart."""
    x, y = EQUAL["counts"](200), EQUAL["counts"](200)
    plain, tenths = density_coverage(x, y), density_coverage(x.double() / 10, y.double() / 10)
    assert (tenths.density, tenths.coverage) == pytest.approx((plain.density, plain.coverage), rel=1e-12)


# What is wrong


def modes(n: int, probability: float) -> Tensor:
    """Two clusters."""
    return torch.randn(n, 2) + 10 * (torch.rand(n, 1) < probability)


def found_in(y: Tensor) -> DensityCoverage:
    return density_coverage(modes(1000, 0.5), y)


def test_right_sample_has_what_is_expected() -> None:
    found = found_in(modes(1000, 0.5))
    assert found.density == pytest.approx(1, abs=0.1)
    assert found.coverage == pytest.approx(found.expected, abs=0.03)


def test_dropped_mode_lowers_coverage_alone() -> None:
    found = found_in(modes(1000, 0.0))
    assert found.coverage == pytest.approx(found.expected / 2, abs=0.05)
    assert found.density > 0.9


def test_outliers_lower_density_and_coverage_little() -> None:
    y = modes(1000, 0.5)
    y[:300] += 100 * torch.randn(300, 2)
    found = found_in(y)
    assert found.density == pytest.approx(0.7, abs=0.08)
    assert found.coverage > found.expected - 0.08


def test_too_narrow_and_too_wide_are_distinguished() -> None:
    x, z = torch.randn(1000, 5), torch.randn(1000, 5)
    narrow, wide = density_coverage(x, 0.6 * z), density_coverage(x, 1.7 * z)
    same = [density_coverage(x, torch.randn(1000, 5)).density for _ in range(10)]
    assert wide.density < 1 - 5 * np.std(same) < 1 + 5 * np.std(same) < narrow.density
    assert max(narrow.coverage, wide.coverage) < narrow.expected - 0.05


@pytest.mark.slow
def test_published_self_check() -> None:
    """N(0, I), 10,000 points in 1,000 dimensions: density 1.056, coverage .974, of one draw without a seed.

    The spread is that of three draws, .09 and .01: a few points are in most balls, so that density varies.
    """
    found = density_coverage(torch.randn(10_000, 1000), torch.randn(10_000, 1000))
    assert found.density == pytest.approx(1.056, abs=3 * 0.09)
    assert found.coverage == pytest.approx(0.974, abs=3 * 0.01)
    assert found.expected == pytest.approx(0.969, abs=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "neighbours", "words"),
    [
        (torch.zeros(9, 2), torch.zeros(9, 3), 5, "cannot be compared"),
        (torch.zeros(9, 1, 4), torch.zeros(9, 1, 4), 5, "flatten"),
        (torch.zeros(5, 2), torch.zeros(9, 2), 5, "too few"),
        (torch.zeros(9, 2), torch.zeros(0, 2), 5, "too few"),
        (torch.full((9, 2), math.nan), torch.zeros(9, 2), 5, "not finite"),
        (torch.zeros(9, 2), torch.full((9, 2), math.inf), 5, "not finite"),
        (torch.zeros(9, 2), torch.zeros(9, 2), 0, "neighbours"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(x: Tensor, y: Tensor, neighbours: int, words: str) -> None:
    with pytest.raises(pv.InputError, match=words):
        density_coverage(x, y, neighbours=neighbours)


# Which features tell samples apart


@pytest.mark.parametrize(
    "classifier",
    [
        None,
        RandomForestClassifier(50, random_state=0),
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=["default", "forest", "linear", "pipeline"],
)
def test_feature_that_differs_is_the_important_one(classifier: object) -> None:
    x, y = torch.randn(400, 6), torch.randn(400, 6)
    x[:, 4] += 2
    importance = classifier_test(x, y, classifier=classifier).importance
    assert importance is not None
    assert importance.shape == (6,)
    assert float(importance.sum()) == pytest.approx(1)
    assert bool((importance >= 0).all())
    assert int(importance.argmax()) == 4
    assert float(importance[4]) > 0.5


def test_difference_in_spread_alone_has_a_feature_too() -> None:
    x, y = torch.randn(600, 5), torch.randn(600, 5)
    x[:, 2] *= 3
    assert int(classifier_test(x, y).importance.argmax()) == 2


def test_importance_is_the_last_classifiers() -> None:
    x, y = torch.randn(60, 3), torch.randn(60, 3) + 1
    fitted: list[LogisticRegression] = []

    class Kept(LogisticRegression):
        def fit(self, *arguments: object) -> "Kept":
            fitted.append(super().fit(*arguments))
            return self

    importance = classifier_test(x, y, classifier=Kept()).importance
    sizes = abs(fitted[-1].coef_[0])
    assert len(fitted) == 4
    np.testing.assert_allclose(importance, sizes / sizes.sum(), rtol=1e-12)


OF_OTHERS = {
    "none": GaussianNB(),
    "more features": make_pipeline(PolynomialFeatures(2), LogisticRegression()),
    "as many": make_pipeline(PCA(2), LogisticRegression()),
    "nameless": make_pipeline(FunctionTransformer(np.sinh), LogisticRegression()),
}


@pytest.mark.parametrize("classifier", OF_OTHERS.values(), ids=OF_OTHERS)
def test_importance_is_none_where_a_classifier_has_none_of_these_features(classifier: object) -> None:
    assert classifier_test(torch.randn(60, 2), torch.randn(60, 2), classifier=classifier).importance is None


def test_importance_is_none_where_no_feature_is_used() -> None:
    assert classifier_test(torch.ones(60, 2), torch.ones(60, 2)).importance is None
