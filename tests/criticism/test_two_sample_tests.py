"""Two-sample statistics: what they are, that they are calibrated, and what they catch."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism import classifier_test, mmd_test
from pyro_vae.distributions.mmd import SCALES, mmd2

SEVERITY = 0.005


def ring(n: int) -> Tensor:
    """Mean 0, variance 1, no correlation, and a hole in the middle."""
    angle, radius = 2 * math.pi * torch.rand(n), math.sqrt(2) * (1 + 0.1 * torch.randn(n))
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1) / math.sqrt(1.01)


WRONG = {
    "mean": lambda n: torch.randn(n, 2) + 0.3,
    "variance": lambda n: 1.4 * torch.randn(n, 2),
    "correlation": lambda n: torch.randn(n, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.8]]),
    "ring": ring,
}


def test_mmd2_of_three_points_is_its_sum() -> None:
    """By hand: D = 1, x = {0, 1}, y = {3, 5, 5}."""
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[3.0], [5.0], [5.0]]).double()

    def k(distance: float) -> float:
        return sum(2 * s / (2 * s + distance**2) for s in SCALES)

    between = (k(3) + 2 * k(5) + k(2) + 2 * k(4)) / 6
    by_hand = k(1) + (2 * k(2) + k(0)) / 3 - 2 * between
    assert float(mmd2(x, y)) == pytest.approx(by_hand, rel=1e-12)
    assert float(mmd2(y, x)) == pytest.approx(by_hand, rel=1e-12)
    assert float(mmd2(x + 1e6, y + 1e6)) == pytest.approx(by_hand, rel=1e-6)  # it knows distances alone


def test_mmd2_has_the_gradient_of_finite_differences() -> None:
    x, y = torch.randn(5, 3).double().requires_grad_(), torch.randn(4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(mmd2, (x, y))
    same = torch.ones(4, 2, requires_grad=True)
    mmd2(same, torch.zeros(3, 2)).backward()
    assert bool(same.grad.isfinite().all())


@pytest.mark.slow
def test_mmd2_is_unbiased() -> None:
    """0 on average where the distributions are equal, also in small samples of different sizes."""
    values = torch.stack([mmd2(torch.randn(6, 2), torch.randn(9, 2)) for _ in range(3000)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(len(values))
    assert float(values.min()) < 0
    few = torch.stack([mmd2(torch.randn(5, 2) + 0.5, torch.randn(5, 2)) for _ in range(4000)])
    many = torch.stack([mmd2(torch.randn(200, 2) + 0.5, torch.randn(200, 2)) for _ in range(100)])
    error = math.hypot(float(few.std()) / math.sqrt(4000), float(many.std()) / 10)
    assert abs(float(few.mean() - many.mean())) < 4 * error


def test_test_statistic_is_mmd2() -> None:
    x, y = torch.randn(40, 3).double(), 1.5 * torch.randn(40, 3).double()
    low, high = torch.quantile(torch.cat([x, y]), torch.tensor([0.25, 0.75]).double(), dim=0)
    scale = (high - low) / 1.349
    assert mmd_test(x, y).mmd2 == pytest.approx(float(mmd2(x / scale, y / scale)), rel=1e-9)


def test_mmd_p_values_are_uniform_under_equality() -> None:
    found = [mmd_test(torch.randn(30, 2), torch.randn(30, 2), permutations=99, seed=n).p_value for n in range(400)]
    jittered = torch.tensor(found) - torch.rand(400) / 100
    assert scipy.stats.kstest(jittered.numpy(), "uniform").pvalue > SEVERITY


@pytest.mark.slow
@pytest.mark.parametrize("classifier", [DecisionTreeClassifier(max_depth=4), LogisticRegression()], ids=str)
def test_classifier_p_values_are_right_under_equality(classifier: object) -> None:
    """The largest number of false rejections that 5 % allow, at a probability of 1 in 200."""
    repeats = 300
    pairs = torch.randn(repeats, 2, 100, 2)
    found = [classifier_test(*pair, classifier=classifier, seed=n) for n, pair in enumerate(pairs)]
    for level in (0.05, 0.2):
        rejected = sum(test.p_value < level for test in found)
        assert rejected <= scipy.stats.binom.ppf(1 - SEVERITY, repeats, level)
        assert rejected >= scipy.stats.binom.ppf(SEVERITY, repeats, 0.6 * level)  # or nothing would ever be found
    accuracy = torch.tensor([test.accuracy for test in found])
    assert abs(float(accuracy.mean()) - 0.5) < 4 * float(accuracy.std()) / math.sqrt(repeats)
    stated = sum(test.se for test in found) / repeats
    assert float(accuracy.std()) == pytest.approx(stated, rel=0.35)


@pytest.mark.parametrize("kind", WRONG)
def test_two_sample_tests_detect_wrong_samples(kind: str) -> None:
    x, y = WRONG[kind](1000), torch.randn(1000, 2)
    assert mmd_test(x, y).p_value == 0.001
    found = classifier_test(x, y)
    assert found.p_value < 1e-4
    assert found.accuracy > 0.5 + 3 * found.se
    assert mmd_test(x, y).mmd2 > 0


def test_classifier_test_detects_one_wrong_latent_among_many() -> None:
    x = torch.randn(1500, 20)
    x[:, 7] *= 1.8
    assert classifier_test(x, torch.randn(1500, 20)).p_value < 1e-3


def test_heavy_tails_and_constants_do_not_break_the_tests() -> None:
    x, y = torch.randn(200, 2) / torch.randn(200, 2), torch.randn(200, 2) / torch.randn(200, 2)
    x[:, 1] = y[:, 1] = 3.0
    assert 0.001 <= mmd_test(x, y).p_value <= 1
    assert mmd_test(torch.ones(60, 2), torch.ones(60, 2)).p_value == 1
    assert classifier_test(torch.ones(60, 2), torch.ones(60, 2)).p_value == 1


def test_seed_decides_and_the_global_state_stays() -> None:
    x, y = torch.randn(60, 2), torch.randn(60, 2)
    state = torch.get_rng_state()
    assert mmd_test(x, y, seed=1).p_value == mmd_test(x, y, seed=1).p_value
    assert classifier_test(x, y, seed=1).p_value == classifier_test(x, y, seed=1).p_value
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(60, 2), torch.zeros(60, 3), "two of one shape"),
        (torch.zeros(60), torch.zeros(60), "two of one shape"),
        (torch.full((60, 2), math.nan), torch.zeros(60, 2), "not finite"),
        (torch.zeros(1, 2), torch.zeros(1, 2), "at least"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(x: Tensor, y: Tensor, words: str) -> None:
    for test in (mmd_test, classifier_test):
        with pytest.raises(pv.InputError, match=words):
            test(x, y)
    with pytest.raises(pv.InputError, match="folds"):
        classifier_test(torch.randn(60, 2), torch.randn(60, 2), folds=1)


class Above:
    """A classifier without training: the second sample is where the first feature exceeds a number."""

    def __init__(self, bound: float = 0.0) -> None:
        self.bound = bound

    def get_params(self, deep: bool = True) -> dict[str, float]:
        return {"bound": self.bound}

    def fit(self, x: object, y: object) -> "Above":
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > self.bound).astype(int)


def test_p_value_of_a_classifier_has_the_variance_of_draws_without_replacement() -> None:
    """Twelve points of each sample in a fold, of which a few are given to the second one: hypergeometric hits."""
    x, y = torch.randn(24, 1), torch.randn(24, 1) + 1.3
    found = classifier_test(x, y, classifier=Above(1.0), folds=2)
    order = [np.random.default_rng(0)]
    held = [sample.numpy()[order[0].permutation(24)][12:] for sample in (x, y)]
    hits = int((held[0] <= 1.0).sum() + (held[1] > 1.0).sum())
    given = int((np.concatenate(held) > 1.0).sum())
    variance = 4 * scipy.stats.hypergeom(24, 12, given).var()  # a point more of one sample is two hits more
    assert found.accuracy == pytest.approx(hits / 24)
    assert found.p_value == pytest.approx(float(scipy.stats.norm.sf((hits - 12 - 1) / variance**0.5)), rel=1e-9)
