"""Comparing models: differences and errors by hand, intervals that cover, and what may not be compared."""

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from helpers.cases import FAMILIES
from helpers.exact_models import MODEL, estimate, exact, pyro_pair, rows, truth
from helpers.family_pairs import LIKELIHOODS, rows_for, small_vae
from helpers.oracles import PPCA
from scipy import stats
from torch import Tensor

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.criticism import Importance, compare
from pyro_vae.criticism.base_measure import base_measure
from pyro_vae.criticism.compare import estimate as estimate_mean


def found(values: Any, error: float = 0.0, khat: float = 0.1, **facts: Any) -> pv.Evidence:
    """Evidence with these values of log p(x), of the same rows as any other made so."""
    values = torch.as_tensor(values, dtype=torch.float64)
    facts = {"measure": "densities", "fingerprint": "f", **facts}
    return pv.Evidence(values, torch.full_like(values, error), torch.full_like(values, khat), Importance(), **facts)


# By hand


def test_paired_differences_and_errors_are_those_worked_out_by_hand() -> None:
    result = compare({"b": found([0.0, 0.0, 3.0]), "a": found([1.0, 2.0, 3.0])})
    best, other = result.models
    assert (best.name, other.name, result.rows) == ("a", "b", 3)
    assert (best.log_p.value, other.log_p.value) == (2.0, 1.0)
    assert best.log_p.se == pytest.approx(1 / math.sqrt(3))  # deviations -1, 0, 1
    assert other.log_p.se == pytest.approx(1.0)  # deviations -1, -1, 2
    assert other.difference.value == -1.0  # differences -1, -2, 0: variance 1
    assert other.difference.se == pytest.approx(1 / math.sqrt(3))
    low, high = other.difference.interval
    assert (low, high) == pytest.approx((-1 - 4.302653 / math.sqrt(3), -1 + 4.302653 / math.sqrt(3)), rel=1e-6)
    assert (best.difference.value, best.difference.se, best.differs, other.differs) == (0.0, 0.0, False, False)


def test_group_splits_its_variance_into_rows_and_seeds() -> None:
    """Means of seeds 2, 4 and of rows 1.5, 4.5 around 3; the residuals are all +-0.5, so their mean square is 1."""
    of = estimate_mean(torch.tensor([[1.0, 3.0], [2.0, 6.0]]))
    assert of.value == 3
    assert of.se_rows**2 == pytest.approx(4.5 / 2)
    assert of.se_seeds**2 == pytest.approx((2 - 1 / 2) / 2)
    assert of.half_width == pytest.approx(12.706205 * math.sqrt(2.25 + 0.75), rel=1e-6)
    less = estimate_mean(torch.tensor([[1.0, 3.0], [2.0, 6.0]]), torch.tensor([[0.0, 0.0]]))
    assert (less.value, less.se_rows, less.se_seeds) == (of.value, of.se_rows, of.se_seeds)
    both = estimate_mean(torch.tensor([[1.0, 3.0], [2.0, 6.0]]), torch.tensor([[1.0, 3.0], [2.0, 6.0]]))
    assert (both.value, both.se_rows) == (0, 0)
    assert both.se_seeds**2 == pytest.approx(1.5)  # seeds of two groups have nothing in common


def test_variance_is_that_of_the_two_way_table_of_mean_squares() -> None:
    """Searle et al.: (MS of seeds + MS of rows - MS of residuals) / (N S)."""
    seeds, n = 4, 30
    values = torch.randn(seeds, n).double() + 2 * torch.randn(seeds, 1) + 3 * torch.randn(1, n)
    table = values.numpy()
    by_seed, by_row = table.mean(1), table.mean(0)
    residuals = table - by_seed[:, None] - by_row + table.mean()
    squares = (
        n * by_seed.var(ddof=1),
        seeds * by_row.var(ddof=1),
        (residuals**2).sum() / ((seeds - 1) * (n - 1)),
    )
    expected = (squares[0] + squares[1] - squares[2]) / (n * seeds)
    assert estimate_mean(values).se ** 2 == pytest.approx(expected, rel=1e-10)


# Intervals that cover


def simulated(n: int, seeds: tuple[int, int], between: float, noise: float) -> tuple[Tensor, Tensor]:
    """Two groups on shared rows, hard and easy for both; the first is better by 0.3 nats, over all seeds and rows."""
    hard = 5 * torch.randn(1, n).double()
    first, second = (
        hard + torch.randn(1, n) + (between * torch.randn(s, 1) if s > 1 else 0) + noise * torch.randn(s, n)
        for s in seeds
    )
    return first + 0.3, second


def coverage(repeats: int, n: int, seeds: tuple[int, int], between: float) -> tuple[float, float]:
    """The share of intervals that hold 0.3, and the same of intervals that take a group for one model."""
    hits = np.zeros((repeats, 2))
    for repeat in range(repeats):
        pair = simulated(n, seeds, between, noise=0.7)
        naive = [side.mean(0, keepdim=True) for side in pair]
        for column, (a, b) in enumerate((pair, naive)):
            low, high = estimate_mean(a, b).interval
            hits[repeat, column] = low <= 0.3 <= high
    honest, naive_share = hits.mean(0)
    return float(honest), float(naive_share)


def test_intervals_of_two_models_cover() -> None:
    """The noise of draws is in the values, and so in their spread: added once more it would cover 99 %."""
    honest, same = coverage(2000, 50, (1, 1), 0.0)
    assert 0.93 <= honest <= 0.97
    assert honest == same


@pytest.mark.parametrize("seeds", [(3, 3), (2, 2), (3, 1), (5, 2)])
@pytest.mark.parametrize("between", [0.1, 0.5])
def test_intervals_of_groups_cover_and_those_that_ignore_seeds_do_not(seeds: tuple[int, int], between: float) -> None:
    honest, naive = coverage(800, 100, seeds, between)
    assert honest >= 0.93
    if between == 0.5:
        assert naive < 0.75


def test_measured_models_are_as_far_apart_as_they_are_exactly() -> None:
    """Two PPCA whose log p(x) is known, by guides that are too wide; the expected difference over all data is a KL."""
    other = PPCA(MODEL.w * 0.8, MODEL.mu + 0.3, MODEL.s2)
    x = rows(400)
    result = compare({"wrong": estimate(exact(other, 1.4), x), "right": estimate(exact(spread=1.4), x)})
    assert result.names == ["right", "wrong"]
    exactly = truth(x, other) - truth(x)
    standing = result.models[1]
    spread = math.hypot(*(at.mcse for at in result.models))
    assert standing.difference.value == pytest.approx(float(exactly.mean()), abs=4 * spread)
    assert standing.difference.se == pytest.approx(float(exactly.std()) / 20, rel=0.05)
    kl = float(torch.distributions.kl_divergence(MODEL.marginal(), other.marginal()))
    assert abs(standing.difference.value + kl) < standing.difference.half_width
    assert standing.differs
    assert standing.difference.se < 0.3 * standing.log_p.se  # what pairing is for


# What is said and shown


def three() -> pv.criticism.Comparison:
    hard = 3 * torch.randn(300).double() - 88
    near, far = (hard + shift + 0.5 * torch.randn(300) for shift in (-0.01, -2))
    group = [hard + 0.5 * torch.randn(300) + shift for shift in (0.2, 0.0, -0.1)]
    return compare({"far": found(far), "near": found(near, 0.02, khat=0.9), "group": [found(g) for g in group]})


def test_table_is_ordered_and_its_columns_are_what_users_of_arviz_know() -> None:
    result = three()
    table = result.to_pandas()
    assert list(table.index) == result.names
    assert table["log_p"].is_monotonic_decreasing
    assert list(table["rank"]) == [0, 1, 2]
    assert {"rank", "log_p", "se", "difference", "dse", "warning"} <= set(table.columns)
    assert table["difference"].to_numpy() == pytest.approx((table["log_p"] - table["log_p"].iloc[0]).to_numpy())
    assert table.loc["near", "warning"]
    assert not table.loc[["far", "group"], "warning"].any()
    assert math.isnan(table.loc["far", "se_seeds"])
    assert table.loc["group", "seeds"] == 3
    assert table.loc["near", "se_draws"] == pytest.approx(0.02 / math.sqrt(300))
    shown = result.to_csv().splitlines()
    assert shown[0].startswith("model,rank,log_p,se,difference,dse")
    assert len(shown) == 4
    assert float(shown[1].split(",")[2]) == result.best.log_p.value


def test_sentences_say_which_model_is_ahead_and_which_are_undecided() -> None:
    shown = repr(three())
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ["group", "near", "far"]
    assert "group is ahead of far by 2" in shown or "near is ahead of far by 2" in shown
    assert (
        "near and group do not differ significantly" in shown or "group and near do not differ significantly" in shown
    )
    for words in ("Nats per row, mean of 300 rows", "3 seeds are few", "Student's t with 2", "represents itself"):
        assert words in shown
    alone = repr(compare({"a": found([1.0, 2.0]), "b": found([1.0, 1.0])}))
    assert "do not include differences between seeds" in alone


def test_khat_that_is_too_large_is_said_and_seen() -> None:
    model = PPCA.random(5, 2, s2=10.0)
    x = rows(40, model)
    trusted = estimate(exact(model), x, draws=1000)
    doubted = estimate(exact(model, spread=0.2), x, draws=1000)
    result = compare({"trusted": trusted, "doubted": doubted})
    standing = next(at for at in result.models if at.name == "doubted")
    assert doubted.warning
    assert doubted.warning in standing.warning
    assert f"Warning: doubted: {doubted.warning}" in repr(result)
    assert "doubted: k-hat" in result.warning
    assert "by unreliable numbers" in repr(result)
    seeds = compare({"trusted": trusted, "doubted": [doubted, estimate(exact(model, spread=0.2), x, seed=1)]})
    assert "in 2 of 2 seeds" in seeds.warning
    assert compare({"a": trusted, "b": found(trusted.pointwise - 1, fingerprint=trusted.fingerprint)}).warning == ""


def test_bias_beyond_the_error_is_said() -> None:
    values = torch.linspace(-3, 3, 50)
    shifted = values - 0.2 + 0.01 * torch.randn(50)
    assert "biased by about -0.5" in compare({"a": found(values), "b": found(shifted, error=1.0)}).warning
    assert compare({"a": found(values), "b": found(shifted, error=0.01)}).warning == ""


def test_picture_shows_every_model_best_first() -> None:
    result = three()
    picture = plots.compare(result)
    left, right = picture.axes
    assert [label.get_text().split(" (")[0] for label in left.get_yticklabels()] == result.names
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the best at the top
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert [float(np.asarray(dot.get_xdata())[0]) for dot in dots] == [at.log_p.value for at in result.models]
    hollow = [dot.get_markerfacecolor() == "white" for dot in dots]
    assert hollow == [bool(at.warning) for at in result.models]
    assert sum(line.get_marker() == "o" for line in right.lines) == 2
    assert "unreliable (k-hat or bias)" in [text.get_text() for text in picture.legends[0].get_texts()]
    trusted = plots.compare(compare({"a": found([1.0, 2.0]), "b": found([1.0, 1.0])}))
    assert len(trusted.legends[0].get_texts()) == 2


# What may not be compared


A = found([1.0, 2.0, 4.0])
WRONG: dict[str, tuple[Any, list[str]]] = {
    "one model": ({"a": A}, ["at least two"]),
    "no names": ([A, A], ["by their names", "pv.compare({"]),
    "no evidence": ({"a": A, "b": torch.zeros(3)}, ["'b' is Tensor", "pv.evidence(vae, x)"]),
    "an empty group": ({"a": A, "b": []}, ["'b' is list"]),
    "one seed twice": ({"a": A, "b": [A, A]}, ["group 'b'", "twice"]),
    "other rows": ({"a": A, "b": found([1.0, 2, 3], fingerprint="g")}, ["'a' and 'b'", "different rows", "same rows"]),
    "more rows": ({"a": A, "b": found([1.0, 2.0])}, ["'a' and 'b'", "3 rows", "on 2"]),
    "one row": ({"a": found([1.0]), "b": found([2.0])}, ["at least 2"]),
    "masses and densities": (
        {"a": A, "b": found([1.0, 2, 3], measure="probabilities")},
        ["'a' and 'b'", "gives densities", "probabilities", "one kind"],
    ),
    "unknown measure": ({"a": A, "b": found([1.0, 2, 3], measure="")}, ["unknown kind"]),
    "a cross-entropy": (
        {"a": A, "b": found([1.0, 2, 3], caveat="it is no density")},
        ["'b' cannot be compared with 'a'", "it is no density", "pv.ContinuousBernoulli"],
    ),
    "two cross-entropies": ({n: found([1.0, v], caveat="none") for n, v in (("a", 0), ("b", 1))}, ["'a'", "'b'"]),
    "levels": (
        {
            "a": found([1.0, 2, 3], source={"levels": 17, "root": "r"}),
            "b": found([1.0, 2, 3], source={"levels": None, "root": "s"}, fingerprint="g"),
        },
        ["'a' and 'b'", "levels=17", "levels=None"],
    ),
    "binarisation": (
        {
            "a": found([1.0, 2, 3], source={"binarize": "static"}),
            "b": found([1.0, 2, 3], source={"binarize": "dynamic"}, fingerprint="g"),
        },
        ["binarize='static'", "binarize='dynamic'", "same seed"],
    ),
    "probability 0": ({"a": A, "b": found([1.0, -math.inf, 3])}, ["'b' gives row 1", "-inf", "defensive"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_evidence_that_cannot_be_compared_is_refused(name: str) -> None:
    models, words = WRONG[name]
    with pytest.raises(pv.InputError) as caught:
        compare(models)
    message = str(caught.value)
    assert not [word for word in words if word not in message], message
    assert message.endswith("."), message


def test_settings_may_differ_where_the_rows_are_the_same() -> None:
    compare({"a": found([1.0, 2.0], source={"data": "x.npy"}), "b": found([1.0, 1.0], source={"data": "./x.npy"})})


# What evidence knows of itself


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_measure_of_a_likelihood_is_that_of_its_draws(name: str) -> None:
    """Whole numbers have probabilities; what is drawn twice without being whole has both."""
    vae, x = small_vae(likelihood=FAMILIES[name].family).double(), rows_for(name)
    vae.initialize(x)
    with torch.random.fork_rng():
        drawn = vae.sample(200)
    measure = base_measure(vae, {"x": x})
    assert measure.split()[0] == ("probabilities" if bool((drawn == drawn.round()).all()) else "densities")
    assert ("probabilities at the ends" in measure) == bool(FAMILIES[name].masses)


def test_measure_of_a_simplex_and_of_programs_is_described() -> None:
    shares = {"x": torch.tensor([[0.2, 0.8], [0.5, 0.5]])}
    for family in (pv.Dirichlet(), pv.LogisticNormal()):
        vae = pv.VAE((2,), 2, likelihood=family, encoder=pv.MLP(hidden=(3,)))
        assert base_measure(vae, shares) == "densities on the simplex"
    pair = pyro_pair(lambda z: dist.Poisson(z.exp()), dist.Normal(0.0, 1.0), lambda x: dist.Normal(x, 1.0))
    assert base_measure(pair, {"x": torch.ones(3)}) == "probabilities"
    several = pyro_pair(
        lambda z: dist.Dirichlet(z.exp()[:, None, None].expand(-1, 2, 3)).to_event(1),
        dist.Normal(0.0, 1.0),
        lambda x: dist.Normal(x.sum((1, 2)), 1.0),
    )
    assert base_measure(several, {"x": torch.full((4, 2, 3), 1 / 3)}) == "densities on the simplex"


def test_fingerprint_is_that_of_the_rows_and_of_nothing_else() -> None:
    x = rows(6).float().double()
    first = estimate(exact(), x, draws=30)
    assert first.measure == "densities"
    for vae, same in ((exact(spread=2.0), x), (exact().float(), x.float()), (exact(), x.numpy())):
        assert estimate(vae, same, draws=40, seed=1, batch_size=4).fingerprint == first.fingerprint
    for other in (x.flip(0), x[:5], x + 1e-3):
        assert estimate(exact(), other, draws=30).fingerprint != first.fingerprint
    mask = torch.rand(6, 5) < 0.5
    filled, holes = ({"x": x.where(mask, torch.tensor(gap)), "mask": mask} for gap in (0.0, math.nan))
    prints = {estimate(exact(), given, draws=30).fingerprint for given in (filled, holes)}
    assert len(prints | {first.fingerprint}) == 2
    grey = pv.data.Rows({"x": torch.rand(20, 6)}, dynamic=True, source={"binarize": "dynamic"})
    vae = pv.VAE((6,), 2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(5,)))
    drawn = [estimate(vae, grey, draws=30, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].fingerprint == drawn[1].fingerprint != drawn[2].fingerprint
    assert drawn[0].source == {"binarize": "dynamic"}
    with pytest.raises(pv.InputError, match="different rows"):
        compare({"a": drawn[0], "b": drawn[2]})


def test_intervals_use_students_t() -> None:
    values = torch.randn(1, 8).double()
    low, high = estimate_mean(values).interval
    expected = stats.t.interval(0.95, 7, loc=values.mean(), scale=stats.sem(values[0]))
    assert (low, high) == pytest.approx(tuple(float(end) for end in expected))
