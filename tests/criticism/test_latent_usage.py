"""The report on latents: who is used, what is known of the data, and whether the aggregate is the prior."""

import dataclasses
import math

import pytest
import torch
from helpers.cases import HeadedNetwork
from helpers.exact_models import exact, exact_kl_terms, exact_one_latent, rows
from helpers.oracles import PPCA, linear, table_data
from helpers.pictures import rendered
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism import Latents, aggregate_kl, spread_of_means
from pyro_vae.criticism.latent_usage import _spread


def latents(vae: pv.VAE, x: object, **options: object) -> Latents:
    return pv.criticism.latents(vae, x, **{"progress": False, **options})


def optimum(x: Tensor, q: int) -> PPCA:
    """The maximum-likelihood W of probabilistic PCA with s2 fixed at 1: eigenvalues below 1 get none."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    values, vectors = values.flip(0)[:q], vectors.flip(1)[:, :q]
    return PPCA(vectors * (values - 1).clamp(min=0).sqrt(), x.mean(0), torch.ones((), dtype=torch.float64))


def test_breast_cancer_has_six_active_units() -> None:
    """REFERENCE.md: s2 fixed at 1, q = 10; the number of eigenvalues above 1."""
    x = table_data("breast cancer")
    model = optimum(x, 10)
    found = latents(model.put_into(linear(30, 10, pv.Normal(scale="per_feature"))), x)
    assert found.active == (0, 1, 2, 3, 4, 5)
    assert found.collapsed == (6, 7, 8, 9)
    assert "Collapse: latents 6, 7, 8, 9 are not used; 6 of 10 are active" in repr(found)
    exactly = model.posterior(x)
    spread = exactly.mean.var(0, correction=0)
    torch.testing.assert_close(found.spread, spread, rtol=0.05, atol=0.005)
    variance = exactly.variance[0]
    kl = (exactly.mean.square().mean(0) + variance - variance.log() - 1) / 2
    torch.testing.assert_close(found.kl, kl, rtol=1e-9, atol=1e-9)
    assert found.surgery.mean == pytest.approx(float(kl.sum()), abs=5 * found.mcse[0])


@pytest.mark.slow
def test_training_finds_the_six() -> None:
    x = table_data("breast cancer").float()
    vae = pv.VAE(
        (30,), 10, likelihood=pv.Normal(scale=1), guide=pv.Normal(scale="per_feature"), encoder=pv.MLP(hidden=())
    )
    pv.fit(vae, x, epochs=4000, batch_size=569, seed=0, progress=False)
    assert len(latents(vae, x).active) == 6


@pytest.mark.parametrize("s2", [0.05, 0.5, 5.0])
def test_terms_are_the_integrals(s2: float) -> None:
    vae, x, posterior = exact_one_latent(s2, 500)
    found = latents(vae, x, batch_size=130)
    surgery = found.surgery
    assert surgery.mean == pytest.approx(surgery.information + surgery.aggregate, rel=1e-12)
    exactly = exact_kl_terms(posterior)
    for name, error in zip(("mean", "information", "aggregate"), found.mcse, strict=True):
        assert getattr(surgery, name) == pytest.approx(exactly[name], abs=4.5 * error), name
    repeats = torch.tensor([aggregate_kl(vae, x, seed=seed).information for seed in range(30)])
    assert 0.3 * float(repeats.std()) < found.mcse[1] < 8 * float(repeats.std())


def test_exact_posterior_matches_the_prior() -> None:
    found = latents(exact(), rows(800))
    assert found.active == (0, 1)
    assert found.matches_prior
    assert found.p_value > 0.05
    assert "Both latents are active." in repr(found)
    assert "No difference" in repr(found)
    assert found.kl is None
    assert "MultivariateNormal is not a product over latents" in repr(found)
    torch.testing.assert_close(found.spread, spread_of_means(exact(), rows(800)), rtol=0.25, atol=0)


@pytest.mark.parametrize("raw", [{"loc": 0.5, "scale": 0.0}, {"loc": 0.0, "scale": -1.0}], ids=["shifted", "narrow"])
def test_aggregate_that_is_not_the_prior_is_caught(raw: dict[str, float]) -> None:
    guide = HeadedNetwork({name: torch.full((3,), value) for name, value in raw.items()})
    found = latents(pv.VAE((4,), 3, encoder=guide, decoder=pv.MLP()), torch.randn(800, 4))
    assert found.collapsed == (0, 1, 2)
    assert "Collapse: no latent is used" in repr(found)
    assert not found.matches_prior
    assert found.mmd.p_value == 0.001
    assert found.classifier.p_value < 1e-3
    assert "the aggregate is not the prior" in repr(found)
    assert found.surgery.information == pytest.approx(0, abs=1e-5)


def test_guide_that_is_the_prior_matches_it_and_has_collapsed() -> None:
    guide = HeadedNetwork({"loc": torch.zeros(2), "scale": torch.zeros(2)})
    found = latents(pv.VAE((4,), 2, encoder=guide, decoder=pv.MLP()), torch.randn(300, 4))
    assert found.kl.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert found.active == ()
    assert found.matches_prior


def test_few_rows_far_apart_are_named() -> None:
    vae, x, _ = exact_one_latent(1e-8, 60)
    found = latents(vae, x)
    assert found.surgery.information == pytest.approx(math.log(60), abs=1e-6)
    assert "at least 4.09" in repr(found)
    assert "more rows would raise it" in repr(found)


def test_kl_without_a_closed_form_is_sampled() -> None:
    vae = pv.VAE((4,), 2, prior=pv.Laplace(0, 1), guide=pv.StudentT(), encoder=pv.MLP(hidden=(5,))).double()
    found = latents(vae, torch.randn(300, 4), draws=500)
    assert float(found.kl.sum()) == pytest.approx(found.surgery.mean, abs=5 * found.mcse[0])


def test_masks_batches_and_choices_of_rows() -> None:
    vae, x = exact(), rows(300)
    mask = torch.rand(300, 5) < 0.7
    found = latents(vae, {"x": torch.where(mask, x, math.nan), "mask": mask}, rows=100, batch_size=7)
    assert found.surgery.rows == 100
    assert math.isfinite(found.surgery.mean)


def test_seed_decides_and_everything_stays_as_it_was() -> None:
    vae, x = exact().train(), rows(120)
    state = torch.get_rng_state()
    first = latents(vae, x, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    torch.manual_seed(99)
    assert repr(latents(vae, x, seed=3)) == repr(first)
    assert latents(vae, x, seed=4).surgery != first.surgery


def test_latent_usage_figure_distinguishes_active_from_unused() -> None:
    x = table_data("breast cancer")
    found = latents(optimum(x, 10).put_into(linear(30, 10, pv.Normal(scale="per_feature"))), x)
    picture = pv.plots.latent_usage(found)
    assert rendered(picture).std() > 0
    upper, lower = picture.axes
    for axes in (upper, lower):
        colours = [bar.get_facecolor() for bar in axes.patches]
        assert len(set(colours[:6])) == len(set(colours[6:])) == 1
        assert colours[0] != colours[9]
    heights = [bar.get_height() for bar in upper.patches]
    assert heights == pytest.approx(found.kl.clamp(min=1e-12).tolist())
    assert len(pv.plots.latent_usage(latents(exact(), rows(100))).axes) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": 10}, "rows = 10"),
        ({"draws": 1}, "draws = 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(pv.InputError, match=words):
        latents(exact(), rows(100), **options)


def test_wrong_subjects_are_refused() -> None:
    with pytest.raises(pv.InputError, match=r"latents takes a pv\.VAE, not"):
        latents(object(), rows(100))
    with pytest.raises(pv.InputError, match="at least 50"):
        latents(exact(), rows(20))


@pytest.mark.parametrize(
    ("of_mmd", "of_classifier", "together"),
    [(0.03, 0.5, 0.06), (0.5, 0.02, 0.04), (0.9, 0.8, 1.0), (0.024, 0.024, 0.048)],
)
def test_p_value_of_two_tests_is_bonferronis(of_mmd: float, of_classifier: float, together: float) -> None:
    found = latents(exact(), rows(60), draws=4)
    found = dataclasses.replace(
        found,
        mmd=dataclasses.replace(found.mmd, p_value=of_mmd),
        classifier=dataclasses.replace(found.classifier, p_value=of_classifier),
    )
    assert found.p_value == pytest.approx(together)
    assert found.matches_prior == (together >= 0.05)


def test_spread_of_two_rows_is_unbiased() -> None:
    """Var_x E[z|x] of two rows whose means are 0 and 1 is 1/4, however few draws there are of each."""
    draws = torch.randn(3, 2, 40_000, dtype=torch.float64) + torch.tensor([[0.0], [1.0]])  # 40,000 latents
    found = _spread(draws.mean(0), draws.var(0), 3)
    assert float(found.mean()) == pytest.approx(0.25, abs=5 * float(found.std()) / 200)
