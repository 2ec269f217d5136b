"""Predictive checks: replicates are what the model says, and numbers of them are exact where exact ones are known."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from helpers.exact_models import MODEL, exact, pyro_pair, rows
from helpers.oracles import PPCA, linear
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism import findings
from pyro_vae.criticism.sampler import PredictiveSampler


def check(vae: Any, x: Any, **options: Any) -> Any:
    return pv.predictive_check(vae, x, **{"two_sample": False, "progress": False, **options})


def values_of(tree: Any, name: str, of: str = "replicated") -> np.ndarray:
    return tree["statistics"][of].sel(statistic=name).values[0]


# Exact distributions


def test_replicated_means_and_variances_have_their_closed_form_distributions() -> None:
    x = rows(40)
    tree = check(exact(), x, statistics=["mean", "standard deviation"], draws=1000)
    covariance = MODEL.marginal().covariance_matrix
    for at in range(5):
        spread = float(covariance[at, at])
        means = values_of(tree, f"mean of x[{at}]")
        squares = values_of(tree, f"standard deviation of x[{at}]") ** 2 * 40 / spread
        assert scipy.stats.kstest(means, "norm", (float(MODEL.mu[at]), (spread / 40) ** 0.5)).pvalue > 0.005
        assert scipy.stats.kstest(squares, "chi2", (39,)).pvalue > 0.005
    realized = values_of(tree, "mean of x[2]", "realized")
    np.testing.assert_allclose(realized, float(x[:, 2].mean()))


@pytest.mark.parametrize("candidates", [1, 200])
def test_posterior_replicates_follow_the_guide_or_by_weights_the_posterior(candidates: int) -> None:
    x, wide = rows(4), 2.0
    tree = check(
        exact(spread=wide), x, kind="posterior", statistics=["mean"], draws=2000, keep=2000, candidates=candidates
    )
    drawn = np.stack([tree["posterior_predictive"][f"x[{at}]"].values[0] for at in range(5)], -1)
    posterior = MODEL.posterior(x)
    scale = 1.0 if candidates > 1 else wide**2
    covariance = scale * MODEL.w @ posterior.covariance_matrix[0] @ MODEL.w.T + MODEL.s2 * torch.eye(5)
    mean = posterior.mean @ MODEL.w.T + MODEL.mu
    error = (covariance.diagonal() / 2000).sqrt()
    assert (np.abs(drawn.mean(0) - mean.numpy()) < 5 * error.numpy()).all()
    ratio = drawn.var(0).mean(0) / covariance.diagonal().numpy()
    assert (np.abs(ratio - 1) < 5 * (2 / 8000) ** 0.5).all()


def test_ranks_are_those_of_the_draws() -> None:
    x = torch.poisson(torch.full((30, 2), 3.0))
    vae = pv.VAE((2,), 1, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(4,))).initialize(x)
    tree = check(vae, x, draws=50, keep=50, statistics=["share of zeros", "row total"])
    drawn = np.stack([tree["posterior_predictive"][f"x[{at}]"].values[0] for at in range(2)], -1)
    below, at_most = (drawn < x.numpy()).sum(0), (drawn <= x.numpy()).sum(0)
    coverage = tree["calibration"]["ecdf_overall"].values
    # The share of PIT values below u lies between those of their largest and of their smallest values.
    for at, u in enumerate(tree["calibration"]["u"].values):
        assert ((at_most + 1) / 51 <= u).mean() - 1e-12 <= coverage[at] <= (below / 51 < u).mean() + 1e-12
    totals, own = drawn.sum(-1), x.sum(1).numpy()
    tail = 2 * (1 + np.minimum((totals <= own).sum(0), (totals >= own).sum(0))) / 51
    np.testing.assert_allclose(tree["rows"]["tail"].sel(row_statistic="row total"), np.minimum(tail, 1))
    zeros = (drawn == 0).mean(1)
    np.testing.assert_allclose(values_of(tree, "share of zeros of x[1]"), zeros[:, 1], atol=1e-6)


def test_tail_probability_counts_the_data_among_the_draws() -> None:
    tree = check(exact(), rows(20) + 100, draws=99, statistics=["mean"])
    np.testing.assert_allclose(tree["checks"]["p_value"], 2 / 100)
    assert all("p <= 0.02." in each for each in tree["checks"]["sentence"].values)


def test_discrepancies_of_the_data_and_of_replicates_share_their_latents() -> None:
    x = rows(50)
    tree = check(exact(), x, kind="posterior", draws=400, statistics=["chi-squared"])
    replicated, realized = (values_of(tree, "chi-squared", of) for of in ("replicated", "realized"))
    # Replicates are chi-squared with 5 degrees of freedom given z; so is the data's, for z is from its posterior.
    assert abs(replicated.mean() - 5) < 5 * (10 / 50 / 400) ** 0.5
    assert realized.std() > 0
    assert abs(realized.mean() - 5) < 5 * (10 / 50) ** 0.5


# Programs, masks, streaming, state


def test_programs_of_a_users_own() -> None:
    pair = pyro_pair(lambda z: dist.Normal(z, 1.0), dist.Normal(0.0, 1.0), lambda x: dist.Normal(x / 2, 0.5**0.5))
    x = 2**0.5 * torch.randn(200)
    tree = check(pair, x, draws=300)
    assert float(tree["checks"]["q_value"].min()) > 0.05
    assert check(pair, 3 * x, draws=300, statistics=["standard deviation"])["checks"]["p_value"].item() < 0.01


def test_latent_of_all_rows_is_drawn_once_for_a_replicate() -> None:
    def model(x: Tensor) -> None:
        level = pyro.sample("level", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("level", dist.Normal(x.mean(), len(x) ** -0.5))

    pair, x = SimpleNamespace(model=model, guide=guide), 7 + torch.randn(50)
    tree = check(pair, x, draws=200, statistics=["mean", "standard deviation"])
    assert values_of(tree, "mean").std() > 5
    assert values_of(tree, "standard deviation").max() < 2
    posterior = check(pair, x, draws=200, kind="posterior", statistics=["mean"])
    assert abs(values_of(posterior, "mean").mean() - float(x.mean())) < 0.1
    with pytest.raises(pv.InputError, match="rows of these programs depend on each other"):
        check(pair, x, kind="posterior", candidates=3)


def test_masked_values_are_not_judged() -> None:
    x, mask = rows(200), torch.rand(200, 5) < 0.7
    spoiled = torch.where(mask, x, torch.nan)
    tree = check(exact(), {"x": spoiled, "mask": mask}, draws=200)
    assert (tree["calibration"]["values"].values == mask.sum(0).numpy()).all()
    assert float(tree["checks"]["q_value"].min()) > 0.05
    assert abs(float(tree["calibration"]["coverage_overall"].sel(level=0.9)) - 0.9) < 0.04


@pytest.mark.slow  # a minute
def test_missing_values_cancel_in_discrepancies() -> None:
    """Posterior replicates of the right model: were values that are filled in judged, it would be rejected."""
    x, mask = rows(200), torch.rand(200, 5) < 0.5
    named = ["chi-squared", "minus log-likelihood"]
    options = {"kind": "posterior", "candidates": 50, "draws": 100, "statistics": named}
    tree = check(exact(), {"x": torch.where(mask, x, torch.nan), "mask": mask}, **options)
    for name in named:
        assert float(tree["checks"]["p_value"].sel(statistic=name)) > 0.05
    wrong = check(exact(), {"x": torch.where(mask, 3 * x, torch.nan), "mask": mask}, **options)
    assert float(wrong["checks"]["p_value"].sel(statistic="chi-squared")) <= 0.02


def test_statistics_of_features_omit_missing_values() -> None:
    x, mask = rows(100), torch.rand(100, 5) < 0.5
    tree = check(exact(), {"x": torch.where(mask, x, torch.nan), "mask": mask}, draws=20, statistics=["mean"])
    np.testing.assert_allclose(
        values_of(tree, "mean of x[3]", "realized")[0], float(x[mask[:, 3], 3].mean()), rtol=1e-6
    )
    assert "values are missing" in notes(tree)
    mask[:3] = False
    some = check(exact(), {"x": torch.where(mask, x, torch.nan), "mask": mask}, draws=20)
    assert (some["rows"]["tail"].isnull().all("row_statistic").values == (~mask.any(1)).numpy()).all()


def test_two_sample_tests_use_only_fully_observed_rows() -> None:
    x, mask = rows(400), torch.ones(400, 5, dtype=torch.bool)
    mask[:300, 2] = False
    tree = check(exact(), {"x": torch.where(mask, x, torch.nan), "mask": mask}, draws=5, two_sample=True)
    assert int(tree["two_sample"]["points"]) == 100
    mask[:380, 2] = False
    few = check(exact(), {"x": torch.where(mask, x, torch.nan), "mask": mask}, draws=5, two_sample=True)
    assert "two_sample" not in few.children
    assert "Two-sample tests need at least 50 rows" in notes(few)


def test_weights_see_every_observed_site_and_no_masked_row() -> None:
    """z | x, y: replicates of x follow the posterior by both, whichever of them the guide has seen."""

    def model(x: Tensor, y: Tensor, weigh: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-1), pyro.poutine.mask(mask=weigh):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    def guide(x: Tensor, y: Tensor, weigh: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-1), pyro.poutine.mask(mask=weigh):
            pyro.sample("z", dist.Normal(0.0, 1.5))

    x, y = torch.tensor([1.0, -1.0, 0.5]), torch.tensor([2.0, 0.0, -1.0])
    given = {"x": x, "y": y, "weigh": torch.ones(3, dtype=torch.bool)}
    pair = SimpleNamespace(model=model, guide=guide)
    tree = check(pair, given, kind="posterior", candidates=100, draws=2000, keep=2000, statistics=["mean"])
    drawn = tree["posterior_predictive"]["x"].values[0]
    precision = 1 + 1 + 4.0
    np.testing.assert_allclose(drawn.mean(0), ((x + 4 * y) / precision).numpy(), atol=5 * (1.2 / 2000) ** 0.5)


def test_catalogue_follows_the_likelihood_and_not_the_data() -> None:
    """Zeros and ones under a Poisson likelihood: that replicates reach further is what has to be seen."""
    x = (torch.rand(200, 3) < 0.5).float()
    vae = pv.VAE((3,), 1, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(4,))).initialize(x)
    tree = check(vae, x, draws=200)
    assert "largest value of x[0]" in tree["checks"]["statistic"].values
    assert float(tree["checks"]["q_value"].sel(statistic="largest value of x[0]")) < 0.05


def test_heavy_tails_do_not_stop_a_check() -> None:
    x = torch.randn(60, 3)
    likelihood = pv.StudentT(df=1.5, scale="learned")
    tree = check(pv.VAE((3,), 1, likelihood=likelihood).initialize(x), x, kind="posterior", draws=20)
    assert "minus log-likelihood" in tree["checks"]["statistic"].values


def test_size_factors_reach_the_replicates() -> None:
    depth = torch.tensor([1.0, 100.0]).repeat(50)
    x = torch.poisson(depth[:, None] * torch.ones(100, 3))
    vae = pv.VAE((3,), 1, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(4,))).initialize(x, size_factor=depth)
    tree = check(vae, {"x": x, "size_factor": depth}, draws=20, statistics=["row total"])
    drawn = tree["posterior_predictive"]["x[0]"].values[0]
    assert drawn[:, 1::2].mean() > 20 * drawn[:, ::2].mean()


def test_few_data_sets_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_vae.criticism import sampler

    largest: list[int] = []
    once = PredictiveSampler.__call__

    def watched(self: PredictiveSampler, batch: dict[str, Tensor], times: int, terms: Any) -> Any:
        largest.append(times * len(batch["x"]))
        return once(self, batch, times, terms)

    monkeypatch.setattr(PredictiveSampler, "__call__", watched)
    monkeypatch.setattr(sampler, "MAX_ELEMENTS", 30 * sampler.MIN_WIDTH)
    tree = check(exact(), rows(100), draws=7, keep=3, statistics=["mean"])
    assert max(largest) == 30
    assert sum(largest) == 7 * 100
    assert tree["posterior_predictive"].sizes["draw"] == 3
    assert tree["statistics"].sizes["draw"] == 7


def test_seed_decides_and_nothing_else_changes() -> None:
    vae, x = exact(), rows(60)
    vae.train()
    before = torch.get_rng_state()
    first, again, other = (check(vae, x, draws=20, seed=seed) for seed in (0, 0, 1))
    assert first.identical(again)
    assert not np.array_equal(values_of(first, "mean of x[0]"), values_of(other, "mean of x[0]"))
    assert torch.equal(before, torch.get_rng_state())
    assert vae.training
    assert not pyro.get_param_store().keys()


# What a result says of itself


def notes(tree: Any) -> str:
    return " ".join(json.loads(tree.attrs["notes"]))


def test_prior_check_says_what_its_weights_are() -> None:
    x = 50 + torch.randn(60, 3)
    vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale="learned"), encoder=pv.MLP(hidden=(8,)))
    tree = check(vae, x, kind="prior", draws=50)
    assert "initial values, not draws from a prior" in notes(tree)
    assert "agree by construction" in notes(tree)
    assert abs(values_of(tree, "mean of x[0]").mean() - 50) < 5  # it starts from the data
    assert not bool(vae.likelihood.initialized)  # on a copy
    pv.fit(vae, x, epochs=1, progress=False)
    assert "those of the fitted model" in notes(check(vae, x[:30], kind="prior", draws=50))


def test_rows_that_were_trained_on_are_said_to_be() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    vae = pv.VAE((3,), 2, encoder=pv.MLP(hidden=(8,)))
    pv.fit(vae, x, epochs=1, progress=False)
    assert "trained on these rows" in notes(check(vae, x, draws=20))
    assert "trained on" not in notes(check(vae, x + 1, draws=20))
    digits = pv.data.load("digits")
    image = pv.VAE((1, 8, 8), 2, encoder=pv.MLP(hidden=(8,))).initialize(digits.train.x)
    assert "trained on these rows" in notes(check(image, digits.train, draws=2, statistics=["mean"]))
    assert json.loads(check(image, digits.test, draws=2, statistics=["mean"]).attrs["data"])["split"] == "test"


def test_posterior_replicates_are_called_conservative() -> None:
    tree = check(exact(), rows(60), kind="posterior", draws=50)
    assert "conservative" in notes(tree)
    assert any("have seen the values" in each for each in findings(tree))


def test_discrepancy_without_a_variance_is_left_out_and_said() -> None:
    x = torch.randint(3, (40, 4)).float()
    vae = pv.VAE((4,), 2, likelihood=pv.Categorical(classes=3), encoder=pv.MLP(hidden=(8,))).initialize(x)
    tree = check(vae, x, kind="posterior", draws=20)
    assert "chi-squared discrepancy was left out" in notes(tree)
    assert "minus log-likelihood" in tree["checks"]["statistic"].values


def test_statistics_of_a_users_own() -> None:
    x = rows(50)
    own = {
        "range": lambda x: x.max() - x.min(),
        "first": lambda x: x[:, 0],
        "cubes": pv.criticism.Statistic(lambda columns: columns.pow(3).mean(0), "mean cube", "feature"),
        "average": "mean",
    }
    tree = check(exact(), x, statistics=own, draws=30)
    names = list(tree["checks"]["statistic"].values)
    assert names[:3] == ["range", "first, mean", "first, spread"]
    assert {"cubes of x[0]", "average of x[4]"} <= set(names)
    np.testing.assert_allclose(tree["checks"]["observed"].values[0], float(x.max() - x.min()), rtol=1e-6)
    np.testing.assert_allclose(tree["rows"]["observed"].sel(row_statistic="first"), x[:, 0], rtol=1e-6)


def test_predictive_check_names_statistics_of_a_list_by_their_labels() -> None:
    own = pv.criticism.Statistic(lambda x: x.square().mean(), "mean square")
    assert list(check(exact(), rows(50), statistics=[own], draws=30)["checks"]["statistic"].values) == ["mean square"]


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no programs": (object(), {}, "an object with .model and .guide"),
    "kind": (None, {"kind": "prio"}, "'population' .new data"),
    "draws": (None, {"draws": 1}, "draws = 1"),
    "keep": (None, {"keep": 0}, "keep = 0"),
    "seed": (None, {"seed": -1}, "seed = -1"),
    "candidates of no posterior": (None, {"candidates": 5}, "kind='posterior'"),
    "a name": (None, {"statistics": "mean"}, r"statistics=\['mean', "),
    "a number": (None, {"statistics": 5}, "is not a list"),
    "twice": (None, {"statistics": ["mean", "mean"]}, "two test statistics are called 'mean'"),
    "wrong scope": (
        None,
        {"statistics": [pv.criticism.Statistic(lambda x: x.mean(), "average", "row")]},
        r"gives shape \(\) .*of='row' gives \(20,\)",
    ),
    "columns by a function": (None, {"statistics": {"all": lambda x: x[:5].mean(0)}}, r"gives shape \(5,\)"),
    "a large seed": (None, {"seed": 2**40}, "below 2"),
    "no truth": (None, {"two_sample": "no"}, "two_sample = 'no'"),
    "an unknown name": (None, {"statistics": ["meen"]}, "'mean'"),
    "none": (None, {"statistics": []}, "leave it out"),
    "no name": (None, {"statistics": [lambda x: x.mean()]}, "needs a name"),
    "wrong shape": (None, {"statistics": {"all": lambda x: x}}, r"gives shape \(20, 5\)"),
    "a failing one": (None, {"statistics": {"bad": lambda x: x.nothing}}, "'bad'.* failed on x of shape"),
    "a discrepancy of the population": (None, {"statistics": ["chi-squared"]}, "take kind='posterior'"),
}


@pytest.mark.parametrize(("vae", "options", "told"), WRONG.values(), ids=list(WRONG))
def test_wrong_arguments_are_refused_before_work(vae: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(pv.InputError, match=told):
        check(exact() if vae is None else vae, rows(20), **options)


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(pv.InputError, match="event_shape"):
        check(exact(), torch.randn(10, 4))
    scaled = PPCA.fit(rows(50), 2).rotated().put_into(linear(5, 2))
    with pytest.raises(pv.InputError):
        check(scaled, torch.full((10, 5), torch.nan))


def test_replicates_that_are_not_finite_are_named() -> None:
    vae = exact()
    with torch.no_grad():
        next(vae.likelihood.network.parameters()).fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="replicate 0 of row"):
        check(vae, rows(10), draws=5)
