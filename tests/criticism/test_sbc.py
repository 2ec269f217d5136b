"""Simulation-based calibration: it passes exact posteriors and catches wrong ones, in every kind of program."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from helpers.cases import HeadedNetwork
from helpers.exact_models import Chain, exact, pyro_pair
from helpers.pictures import rendered
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism import SBC, ranks

SEVERITY = 0.005


def sbc(vae: Any, **options: Any) -> SBC:
    return pv.criticism.sbc(vae, **{"progress": False, **options})


def passes(found: SBC) -> bool:
    return all(p > SEVERITY for p in found.p_values.values())


# The reference: an exact posterior, and two wrong guides


def test_exact_posterior_passes_in_every_quantity() -> None:
    found = sbc(exact(), simulations=500)
    assert found.quantities == ("log joint", "z[0]", "z[1]")
    assert found.ranks.shape == (500, 3)
    assert found.ranks.min() >= 0
    assert found.ranks.max() == found.draws == 199
    assert passes(found)
    assert found.passed
    assert "No sign of a wrong guide" in repr(found)
    assert all(abs(held - 0.9) < 0.05 for held in found.coverage.values())


@pytest.mark.parametrize(("spread", "word", "cause"), [(0.5**0.5, "over", "narrow"), (2**0.5, "under", "wide")])
def test_guide_of_half_or_twice_the_variance_is_caught(spread: float, word: str, cause: str) -> None:
    found = sbc(exact(spread=spread), simulations=500)
    assert found.p_values["log joint"] < 1e-4
    assert found.failed == found.quantities
    for sentence in (f"z[0]: the guide is {word}confident", f"too {cause}"):
        assert sentence in repr(found)


def test_guide_that_is_the_prior_is_caught_by_the_log_joint_alone() -> None:
    guide = HeadedNetwork({"loc": torch.zeros(2), "scale": torch.zeros(2)})  # a raw 0 is a scale of 1
    vae = pv.VAE((5,), 2, likelihood=pv.Normal(scale=1), encoder=guide, decoder=torch.nn.Linear(2, 5))
    found = sbc(vae, simulations=500)
    assert found.p_values["log joint"] < 1e-4
    assert found.failed == ("log joint",)
    assert "ignore the data" in repr(found)


def test_guide_in_a_wrong_place_is_named() -> None:
    vae = exact()
    with torch.no_grad():
        vae.posterior.network.heads["loc"].bias[0] += 0.5
    found = sbc(vae)
    assert "z[0]: the guide puts it too high, the truth lies below its median" in repr(found)


def test_p_values_are_right() -> None:
    """False rejections at 5 % in 200 runs on an exact posterior: the bound that 1 in 200 would break."""
    vae, bound = exact(), scipy.stats.binom.ppf(1 - SEVERITY, 200, 0.05)
    runs = [sbc(vae, simulations=40, draws=9, seed=seed) for seed in range(200)]
    assert bound <= 0.1 * 200
    for name in runs[0].quantities:
        p_values = [run.p_values[name] for run in runs]
        assert sum(p < 0.05 for p in p_values) <= bound
        assert scipy.stats.kstest(p_values, "uniform").pvalue > SEVERITY
    assert sum(not run.passed for run in runs) <= bound


# Conditional models


class Counts:
    """z ~ Gamma(3, 2), x|z ~ Poisson(size z): the posterior is Gamma(3 + x, 2 + size)."""

    def __init__(self, sees_size: bool = True) -> None:
        self.sees_size = sees_size

    def model(self, x: Tensor, size_factor: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("rate", dist.Gamma(3.0, 2.0))
            pyro.sample("x", dist.Poisson(size_factor * z), obs=x)

    def guide(self, x: Tensor, size_factor: Tensor) -> None:
        size = size_factor if self.sees_size else size_factor.mean()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("rate", dist.Gamma(3.0 + x, 2.0 + size))


def test_conditional_programs() -> None:
    given = {"x": torch.zeros(150), "size_factor": torch.linspace(0.2, 20, 150)}
    found = sbc(Counts(), given=given, simulations=500, draws=99)
    assert found.quantities == ("log joint", "rate")
    assert passes(found)
    ignorant = sbc(Counts(sees_size=False), given=given, simulations=500)
    assert ignorant.p_values["log joint"] < 1e-4


def test_rows_given_are_taken_in_turn_or_a_choice_of_them() -> None:
    seen: list[Tensor] = []

    class Watched(Counts):
        def guide(self, x: Tensor, size_factor: Tensor) -> None:
            seen.append(size_factor)
            super().guide(x, size_factor)

    sizes = torch.arange(1.0, 31.0)
    for simulations in (20, 60):
        seen.clear()
        sbc(Watched(), given={"x": torch.zeros(30), "size_factor": sizes}, simulations=simulations, draws=2)
        used = seen[-1]
        assert len(used) == simulations
        assert used.unique(return_counts=True)[1].unique().tolist() == [max(1, simulations // 30)]
        assert not torch.equal(used[:20], sizes[:20]) or simulations == 60


def test_vae_takes_masks_and_sizes_without_data() -> None:
    """A guide that is the exact posterior of all elements is not that of those observed."""
    mask = torch.zeros(40, 5, dtype=torch.bool)
    mask[:, :2] = True
    assert passes(sbc(exact(), given={"mask": torch.ones(40, 5, dtype=torch.bool)}))
    assert not sbc(exact(), given={"mask": mask}).passed
    vae = pv.VAE((3,), 2, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(4,)))
    found = sbc(vae, given={"size_factor": torch.linspace(1, 5, 30)}, simulations=50, draws=19)
    assert found.ranks.shape == (50, 3)


# Several latents, plates and globals


class Levels:
    """a ~ N(0, 1) for all rows, b_n ~ N(a, 1), x_n ~ N(b_n, 1), the exact posterior, its scale at a wrong or right."""

    def __init__(self, wide: float = 1.0) -> None:
        self.wide = wide

    def model(self, x: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        variance = 1 / (1 + len(x) / 2)  # x_n | a ~ N(a, 2)
        at = variance * x.sum() / 2
        a = pyro.sample("a", dist.Normal(at, self.wide * math.sqrt(variance)))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("b", dist.Normal((a + x) / 2, math.sqrt(0.5)))


def test_global_latent_takes_one_run_for_each_simulation() -> None:
    given = {"x": torch.zeros(4)}
    found = sbc(Levels(), given=given, simulations=200, draws=49)
    assert found.quantities == ("log joint", "a", "b[0]", "b[1]", "b[2]", "b[3]")
    assert found.ranks.shape == (200, 6)
    assert passes(found)


@pytest.mark.parametrize(("wide", "word"), [(0.3, "over"), (3.0, "under")])
def test_wrong_global_posteriors_are_caught(wide: float, word: str) -> None:
    found = sbc(Levels(wide), given={"x": torch.zeros(4)}, simulations=150, draws=49)
    assert found.p_value < 1e-4
    assert any(f"a: the guide is {word}confident" in finding for finding in found.findings)


def test_sbc_handles_two_latents_of_a_row_and_permuted_data() -> None:
    """z1 ~ N(0, 1), z2|z1 ~ N(z1, 1), x four times N(z2, 1): z2|x ~ N(8/9 mean x, 2/9), z1|z2 ~ N(z2/2, 1/2)."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            second = pyro.sample("z2", dist.Normal(x.mean(1) * 8 / 9, math.sqrt(2 / 9)))
            pyro.sample("z1", dist.Normal(second / 2, math.sqrt(0.5)))

    given = {"x": torch.randn(6, 4)}
    found = sbc(SimpleNamespace(model=Chain().model, guide=guide), given=given)
    assert sorted(found.quantities) == ["log joint", "z1", "z2"]
    assert passes(found)
    assert found.quantities[0] == "log joint"
    wrong = sbc(Chain(), given=given)
    assert wrong.p_values["log joint"] < 1e-4
    assert any("z2: the guide is underconfident" in finding for finding in wrong.findings)


def test_ties_are_broken_by_chance() -> None:
    """Both densities at one point: every rank is a tie, and none may look like a sign of a wrong guide."""
    at_one = dist.Delta(torch.tensor(1.0))
    pair = pyro_pair(lambda z: dist.Normal(z, 1.0), at_one, lambda x: dist.Delta(torch.ones(len(x))))
    found = sbc(pair, given={"x": torch.zeros(1)}, draws=9)
    assert passes(found)
    assert set(np.unique(found.ranks[:, 1])) == set(range(10))


# Bounded work, state, pictures, wrong input


def test_chunks_of_draws_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    draw = ranks.draw_without_gradient

    def watched(model: Any, guide: Any, k: int, **batch: Tensor) -> Any:
        sizes.append(k)
        return draw(model, guide, k, **batch)

    monkeypatch.setattr(ranks, "draw_without_gradient", watched)
    monkeypatch.setattr(ranks, "MAX_ELEMENTS", 7 * 50 * ranks.MIN_WIDTH)
    found = sbc(exact(), draws=99, batch_size=50)
    assert max(sizes) == 7
    assert sum(sizes) == 10 * (99 + 1)  # the truth of each batch is a record too
    assert passes(found)


def test_seed_decides_and_everything_stays_as_it_was() -> None:
    vae = exact().train()
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in vae.state_dict().items()}
    first = sbc(vae, simulations=30, draws=9, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert not list(pyro.get_param_store())
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    torch.manual_seed(99)
    again = sbc(vae, simulations=30, draws=9, seed=3)
    assert (first.ranks == again.ranks).all()
    assert first.p_values == again.p_values
    assert (first.ranks != sbc(vae, simulations=30, draws=9, seed=4).ranks).any()


@pytest.mark.parametrize("prior", [pv.Mixture(pv.Normal(), components=3), pv.StudentT(df=3)], ids=str)
def test_priors_of_every_kind(prior: pv.families.Family) -> None:
    vae = pv.VAE((3,), 2, prior=prior, likelihood=pv.Bernoulli(), guide=pv.StudentT(), encoder=pv.MLP(hidden=(4,)))
    assert sbc(vae, simulations=40, draws=9).ranks.shape == (40, 3)


def test_holms_correction_is_that_of_its_definition() -> None:
    found = sbc(exact(), simulations=50, draws=9)
    low, middle, high = sorted(found.p_values.values())
    expected = [min(1, 3 * low), min(1, max(3 * low, 2 * middle)), min(1, max(3 * low, 2 * middle, high))]
    assert sorted(found.adjusted_p_values.values()) == pytest.approx(expected)
    assert found.p_value == pytest.approx(expected[0])


def test_pictures_show_the_log_joint_first_and_the_worst() -> None:
    for found in (sbc(exact(spread=0.7)), sbc(Levels(), given={"x": torch.zeros(12)}, simulations=50, draws=9)):
        picture = pv.plots.sbc(found)
        assert rendered(picture).std() > 0
        titles = [axes.get_title(loc="left") for axes in picture.axes if axes.get_visible()]
        assert titles[0].startswith("log joint")
        assert len(titles) == min(8, len(found.quantities))


def test_band_holds_99_of_100_uniform_curves() -> None:
    from pyro_vae.criticism.ecdf_bands import simultaneous_ecdf_band

    points = np.linspace(0, 1, 101)[1:-1]
    low, high = simultaneous_ecdf_band(300, points)
    samples = np.sort(np.random.default_rng(1).random((3000, 300)), 1)
    curves = np.stack([np.searchsorted(sample, points, side="right") for sample in samples]) / 300
    inside = ((curves >= low) & (curves <= high)).all(1).mean()
    assert inside == pytest.approx(0.99, abs=0.008)


def test_models_that_cannot_be_simulated_are_refused() -> None:
    class Half(Counts):
        def model(self, x: Tensor, size_factor: Tensor) -> None:
            with pyro.poutine.scale(scale=0.5):
                super().model(x, size_factor)

    class Doubled(Counts):
        def model(self, x: Tensor, size_factor: Tensor) -> None:
            super().model(2 * x, size_factor)

    given = {"x": torch.ones(5), "size_factor": torch.full((5,), 3.0)}
    for programs, options, words in (
        (Half(), {"given": given}, "scaled"),
        (Doubled(), {"given": given}, "something other than a tensor of the batch"),
        (Counts(), {}, "given={'x': x}"),
        (object(), {}, "not object"),
        (exact(), {"simulations": 5}, "simulations = 5"),
        (exact(), {"draws": 1}, "draws = 1"),
        (exact(), {"seed": -1}, "seed = -1"),
        (exact(), {"given": {"covariates": torch.zeros(4, 1)}}, "covariates"),
    ):
        with pytest.raises(pv.InputError, match=words):
            sbc(programs, **options)


def test_densities_that_fail_are_named() -> None:
    vae = exact()
    with torch.no_grad():
        vae.posterior.network.heads["loc"].bias.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"is NaN in a simulation"):
        sbc(vae)
