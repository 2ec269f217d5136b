"""Checks are calibrated: the right model is rarely doubted, wrong ones are caught, and told apart (REFERENCE.md)."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.exact_models import MODEL, exact, rows
from helpers.oracles import PPCA, linear, table_data
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism import findings
from pyro_vae.criticism.pit import adjust_p_values, pit_calibration, uniform_p_values

LOOKED_AT = ["mean", "standard deviation", "skewness", "largest value", "mean correlation", "row standard deviation"]


def check(vae: Any, x: Any, **options: Any) -> Any:
    return pv.predictive_check(vae, x, **{"two_sample": False, "progress": False, **options})


def noisy(scale: float) -> pv.VAE:
    """The exact model, its noise and its loadings so many times what they are."""
    model = PPCA(scale * MODEL.w, MODEL.mu, scale**2 * MODEL.s2)
    return model.put_into(linear(5, 2))


def counts(dispersed: bool) -> pv.VAE:
    """Counts of mean 5, Poisson or with a negative binomial's variance 5 + 25 / 4, with hardly any latent effect."""
    likelihood = pv.NegativeBinomial(mean=None, dispersion=0.25) if dispersed else pv.Poisson()
    vae = pv.VAE((3,), 1, likelihood=likelihood, encoder=pv.MLP(hidden=()))
    vae.initialize(torch.full((100, 3), 5.0))
    with torch.no_grad():
        for weight in vae.likelihood.network.parameters():
            weight.zero_()
    return vae


@pytest.mark.parametrize(
    ("sets", "often", "share"),
    [(50, 0.2, (0.01, 0.1)), pytest.param(200, 0.09, (0.03, 0.06), marks=pytest.mark.slow)],
)
def test_right_model_is_rarely_doubted(sets: int, often: float, share: tuple[float, float]) -> None:
    """On data sets from the model, p <= .05 happens about as often as it says, for every statistic."""
    vae = exact()
    with torch.no_grad():
        found = [check(vae, rows(40), statistics=LOOKED_AT, draws=39, seed=seed) for seed in range(sets)]
    p_values = np.stack([tree["checks"]["p_value"].values for tree in found])
    rejected = (p_values <= 0.05).mean(0)
    assert rejected.max() <= often
    assert share[0] <= (p_values <= 0.05).mean() <= share[1]  # and not never: the level is .05 exactly
    flagged = np.mean([bool((tree["checks"]["q_value"].values < 0.05).any()) for tree in found])
    assert flagged <= often
    pit = np.stack([tree["calibration"]["pit_p_value"].values for tree in found])
    assert (pit <= 0.05).mean(0).max() <= often


def small_images() -> pv.VAE:
    """Pictures of 6 by 5 levels, of an untrained decoder."""
    torch.manual_seed(1)
    vae = pv.VAE((6, 5), 2, likelihood=pv.Categorical(classes=4), encoder=pv.MLP(hidden=(8,)))
    with torch.no_grad():
        for weight in vae.likelihood.parameters():
            weight *= 3
    return vae


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["counts", "images", "posterior"])
def test_test_statistics_do_not_reject_the_right_model(kind: str) -> None:
    """As above, of everything that suits the data; posterior replicates reject less."""
    vae = {"counts": lambda: counts(True), "images": small_images, "posterior": exact}[kind]()
    options = {"kind": "posterior"} if kind == "posterior" else {}
    p_values = []
    for seed in range(200):
        x = rows(40) if kind == "posterior" else vae.sample(40)
        p_values.append(check(vae, x, draws=79, seed=seed, **options)["checks"]["p_value"].values)
    assert (np.stack(p_values) <= 0.05).mean(0).max() <= 0.09


def test_poisson_on_overdispersed_counts_is_caught() -> None:
    poisson, dispersed = counts(False), counts(True)
    options: dict[str, Any] = {"statistics": ["dispersion index"], "draws": 99}
    caught, false = [], []
    for seed in range(30):
        x = dispersed.sample(60)
        caught.append(float(check(poisson, x, seed=seed, **options)["checks"]["p_value"].min()) <= 0.05)
        false.append(float(check(dispersed, x, seed=seed, **options)["checks"]["p_value"][0]) <= 0.05)
    assert np.mean(caught) >= 0.9
    assert np.mean(false) <= 0.2  # 30 trials at 5 %: .17 is the 99 % quantile


@pytest.mark.parametrize(
    ("scale", "told"),
    [(1.0, "no sign of distributions"), (0.7, "overconfident"), (1.5, "underconfident")],
    ids=["right", "too narrow", "too wide"],
)
def test_coverage_distinguishes_narrow_from_wide(scale: float, told: str) -> None:
    tree = check(noisy(scale), rows(300), draws=200, statistics=["mean"])
    sentences = findings(tree)
    assert sum(told in each for each in sentences) == 1
    pit = tree["calibration"]["pit_q_value"].values
    assert (pit < 0.05).all() if scale != 1 else (pit > 0.05).all()
    ecdf, u = tree["calibration"]["ecdf_overall"].values, tree["calibration"]["u"].values
    low = float(ecdf[np.searchsorted(u, 0.1)]) - 0.1  # too many values in the tails if too narrow
    assert abs(low) < 0.03 if scale == 1 else (low > 0.02) == (scale < 1)


@pytest.mark.parametrize("share", [0.6, 1.0], ids=["shifted", "right"])
def test_shifted_feature_is_named(share: float) -> None:
    x = rows(300)
    x[:, 3] += 3 * (1 - share)
    sentences = " ".join(findings(check(exact(), x, statistics=LOOKED_AT, draws=1000)))
    assert ("of x[3]" in sentences) == (share < 1)
    assert ("None of" in sentences) == (share == 1)


@pytest.mark.parametrize(("name", "q", "covered"), [("iris", 2, 0.978), ("breast cancer", 5, 0.944)])
def test_posterior_intervals_are_conservative_and_population_intervals_exact(name: str, q: int, covered: float) -> None:
    """90 % intervals of new rows under the exact model: figures of REFERENCE.md."""
    model = PPCA.fit(table_data(name), q)
    vae, x = model.put_into(linear(*model.w.shape)), model.marginal().sample((1500,))
    for kind, expected in (("posterior", covered), ("population", 0.9)):
        tree = check(vae, x, kind=kind, draws=200, statistics=["mean"])
        assert abs(float(tree["calibration"]["coverage_overall"].sel(level=0.9)) - expected) < 0.012


@pytest.mark.parametrize("n", [1, 8, 49])
def test_few_rows_make_no_verdict(n: int) -> None:
    told = [" ".join(findings(check(exact(), rows(n), draws=50, seed=seed, statistics=["mean"]))) for seed in range(10)]
    assert not any("confident" in each or "nan" in each for each in told)
    assert all("too few to decide" in each for each in told)


def test_right_model_is_rarely_called_over_or_underconfident() -> None:
    told = [" ".join(findings(check(exact(), rows(60), draws=99, seed=s, statistics=["mean"]))) for s in range(40)]
    assert sum("confident" in each for each in told) <= 2


@pytest.mark.slow  # many checks
def test_posterior_replicates_of_the_right_model_are_not_doubted() -> None:
    tree = pv.predictive_check(exact(), rows(400), kind="posterior", draws=100, progress=False)
    told = " ".join(findings(tree))
    assert "is off" not in told
    assert "confident" not in told
    assert "have seen these rows" in told


def test_binary_data_have_uniform_ranks_under_the_right_model() -> None:
    vae = pv.VAE((4,), 2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(8,)))
    x = vae.sample(400)
    tree = check(vae, x, draws=200, statistics=["mean"])
    assert float(tree["calibration"]["pit_q_value"].min()) > 0.01
    assert abs(float(tree["calibration"]["coverage_overall"].sel(level=0.9)) - 0.9) < 0.03
    flipped = check(vae, 1 - (1 - x) * (torch.rand(400, 4) < 0.5), draws=200, statistics=["mean"])
    assert float(flipped["calibration"]["pit_q_value"].max()) < 0.01


def test_two_sample_tests_distinguish_only_different_samples() -> None:
    right = pv.predictive_check(exact(), rows(400), draws=20, progress=False)
    wrong = pv.predictive_check(noisy(1.6), rows(400), draws=20, progress=False)
    assert float(right["two_sample"]["classifier_p_value"]) > 0.01
    assert float(right["two_sample"]["mmd_p_value"]) > 0.01
    assert float(wrong["two_sample"]["classifier_p_value"]) < 1e-3
    assert float(wrong["two_sample"]["mmd_p_value"]) <= 0.01
    expected = float(right["two_sample"]["coverage_expected"])
    assert abs(float(right["two_sample"]["coverage"]) - expected) < 0.04
    assert "does not distinguish replicates from data" in " ".join(findings(right))
    assert "A classifier distinguishes replicates from data" in " ".join(findings(wrong))
    assert "two_sample" not in pv.predictive_check(exact(), rows(20), draws=5, progress=False).children


def test_uniform_p_values_are_scipys() -> None:
    from scipy.stats import kstest

    u = np.random.default_rng(0).beta(1.2, 1, size=(80, 6))
    np.testing.assert_allclose(uniform_p_values(u), [kstest(column, "uniform").pvalue for column in u.T], rtol=1e-9)
    u[::3, 2], u[:, 4] = np.nan, np.nan
    found = uniform_p_values(u)
    known = u[~np.isnan(u[:, 2]), 2]
    np.testing.assert_allclose(found[2], kstest(known, "uniform").pvalue, rtol=1e-9)
    assert np.isnan(found[4])
    assert np.isnan(adjust_p_values(found)[4])


def test_check_takes_one_row_and_constants() -> None:
    def look(x: Tensor) -> Any:
        return check(pv.VAE((3,), 1, encoder=pv.MLP(hidden=(4,))).initialize(x), x, draws=10)

    for x in (torch.randn(1, 3), torch.zeros(20, 3)):
        tree = look(x)
        assert tree["checks"]["p_value"].notnull().all()
        assert len(findings(tree)) > 2


@pytest.mark.parametrize("n", [6, 200])
def test_coverage_error_is_that_of_means_of_rows(n: int) -> None:
    """Eight equal values of a row are one: the error is that over rows, with n - 1 degrees of freedom."""
    pit = torch.rand(n, 1, dtype=torch.float64).expand(n, 8)
    found = pit_calibration(pit, torch.ones(n, 8, dtype=torch.bool), [f"x[{j}]" for j in range(8)])
    for level, error in zip(found["level"].values, found["coverage_error"].values, strict=True):
        inside = (abs(pit[:, 0].numpy() - 0.5) <= level / 2).astype(float)
        least = np.sqrt(level * (1 - level) / (8 * n))  # that of independent values, where rows happen to agree
        assert error == pytest.approx(max(inside.std(ddof=1) / np.sqrt(n), least), rel=1e-9)


def test_coverage_error_is_the_spread_of_coverage_over_data_sets() -> None:
    """Rows of five dependent values, of which some are missing: the stated error is that of repetitions."""
    shares, errors = [], []
    for _ in range(300):
        common = torch.randn(40, 1, dtype=torch.float64).expand(40, 5)
        pit = torch.special.ndtr(0.9 * common + 0.19**0.5 * torch.randn(40, 5, dtype=torch.float64))
        found = pit_calibration(pit, torch.rand(40, 5) < torch.linspace(0.3, 1, 5), [f"x[{j}]" for j in range(5)])
        shares.append(float(found["coverage_overall"].sel(level=0.5)))
        errors.append(float(found["coverage_error"].sel(level=0.5)))
    assert np.mean(errors) == pytest.approx(np.std(shares), rel=0.12)
    assert np.mean(errors) > 1.2 * 0.5 / np.sqrt(40 * 5 * 0.65), "more than that of independent values"


def test_error_of_a_p_value_is_its_spread_over_replicates() -> None:
    vae, x = exact(), rows(30) + 0.6
    found = [check(vae, x, statistics=["mean"], draws=40, seed=seed)["checks"] for seed in range(60)]
    p_values, errors = (np.stack([each[name].values for each in found]) for name in ("p_value", "p_error"))
    middling = (p_values.mean(0) > 0.1) & (p_values.mean(0) < 0.6)
    assert middling.any()
    np.testing.assert_allclose(errors.mean(0)[middling], p_values.std(0)[middling], rtol=0.3)
