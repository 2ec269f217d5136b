"""How the guide uses the latents, against integrals that are exact."""

import math

import pytest
import torch
from helpers.cases import HeadedNetwork
from helpers.exact_models import exact_kl_terms, exact_one_latent
from helpers.oracles import PPCA, linear

import pyro_vae as pv
from pyro_vae.criticism import latent_usage as latent
from pyro_vae.criticism.latent_usage import aggregate_kl, spread_of_means


def test_terms_add_up() -> None:
    vae = pv.VAE((4,), 3, encoder=pv.MLP(hidden=(5,)), prior=pv.Laplace(), guide=pv.StudentT()).double()
    kl = aggregate_kl(vae, torch.randn(50, 4).double())
    assert kl.mean == pytest.approx(kl.information + kl.aggregate, rel=1e-12)
    assert kl.information <= math.log(50)  # of each draw; above 0 are the terms only on average


@pytest.mark.parametrize("s2", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("n", [50, 1500])
def test_terms_of_the_exact_posterior_are_its_integrals(s2: float, n: int) -> None:
    vae, x, posterior = exact_one_latent(s2, n)
    repeats = [aggregate_kl(vae, x, seed=seed) for seed in range(8)]
    for name, exact in exact_kl_terms(posterior).items():
        found = torch.tensor([getattr(kl, name) for kl in repeats], dtype=torch.float64)
        error = float(found.std()) / math.sqrt(8)
        assert float(found.mean()) == pytest.approx(exact, abs=5 * error), name
        assert error < 0.1


def test_aggregate_of_the_exact_posterior_nears_the_prior_as_data_grow() -> None:
    vae, x, _ = exact_one_latent(0.5, 2000)
    few, many = (aggregate_kl(vae, x[:n]).aggregate for n in (20, 2000))
    assert abs(many) < 0.05 < few


def test_far_apart_posteriors_tell_the_row() -> None:
    vae, x, _ = exact_one_latent(1e-8, 5)
    kl = aggregate_kl(vae, x)
    assert kl.information == pytest.approx(math.log(5), abs=1e-9)
    assert kl.rows == 5
    assert kl.saturated


def test_guide_that_is_the_prior_has_no_information() -> None:
    guide = HeadedNetwork({"loc": torch.zeros(2), "scale": torch.zeros(2)})  # a raw 0 is a scale of 1
    vae, x = pv.VAE((4,), 2, encoder=guide, decoder=pv.MLP()), torch.randn(30, 4)
    kl = aggregate_kl(vae, x)
    assert (kl.mean, kl.information, kl.aggregate) == pytest.approx((0, 0, 0), abs=1e-6)
    assert not kl.saturated


def test_guide_that_ignores_the_data_pays_for_its_aggregate_only() -> None:
    guide = HeadedNetwork({"loc": torch.full((2,), 1.5), "scale": torch.zeros(2)})
    vae, x = pv.VAE((4,), 2, encoder=guide, decoder=pv.MLP()), torch.randn(2000, 4)
    kl = aggregate_kl(vae, x)
    assert kl.information == pytest.approx(0, abs=1e-5)
    assert kl.aggregate == pytest.approx(2 * 1.5**2 / 2, abs=5 * 1.5 * math.sqrt(2 / 2000))


# Spread of the posterior means


@pytest.mark.parametrize("draws", [2, 64])
def test_spread_of_means_is_the_closed_forms(draws: int) -> None:
    model, n = PPCA.random(4, 2), 2000
    x = model.marginal().sample((n,))
    posterior = model.posterior(x)
    found = torch.stack([spread_of_means(model.put_into(linear(4, 2)), x, draws=draws, seed=s) for s in range(20)])
    exact = posterior.mean.var(0, correction=0)
    assert ((found.mean(0) - exact).abs() < 5 * found.std(0) / math.sqrt(20)).all()
    assert (found.std(0) < 0.1 * exact).all()


@pytest.mark.parametrize("draws", [2, 64])
def test_means_that_do_not_vary_have_no_spread(draws: int) -> None:
    guide = HeadedNetwork({"loc": torch.ones(3), "scale": torch.zeros(3)})
    vae, x = pv.VAE((4,), 3, encoder=guide, decoder=pv.MLP()), torch.randn(500, 4)
    found = torch.stack([spread_of_means(vae, x, draws=draws, seed=seed) for seed in range(400)])
    assert (found.mean(0).abs() < 5 * found.std(0) / math.sqrt(400)).all()
    assert (found.mean(0) < 0.01).all()  # where a unit counts as active


def test_aggregate_kl_and_spread_use_only_the_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent, "MAX_ROWS", 40)
    vae, x, _ = exact_one_latent(0.5, 40)
    for estimate in (aggregate_kl, spread_of_means):
        results = []
        for rows in (x, torch.cat([x, 1000 + x])):
            torch.manual_seed(0)
            results.append(estimate(vae, rows))
        assert results[0] == results[1]
