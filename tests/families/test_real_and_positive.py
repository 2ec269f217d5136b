"""What the families of real and positive numbers promise beyond the laws of tests/test_families.py."""

import math
from typing import Any
from unittest import mock

import pytest
import torch
from helpers import cases
from helpers.cases import Place
from torch import Tensor
from torch.distributions import MultivariateNormal

import pyro_vae as pv
from pyro_vae.distributions.normal import StableLowRankMultivariateNormal

POSITIVE = (pv.Gamma(), pv.LogNormal(), pv.Weibull())


def prior(family: pv.families.Family, size: int = 3) -> Any:
    return Place("prior", (size,)).build(family)()


@pytest.mark.parametrize("family", POSITIVE, ids=repr)
def test_exact_zeros_are_refused_with_a_remedy(family: pv.families.Family) -> None:
    x = torch.rand(8, 3) + 0.1
    x[2, 1] = 0
    with pytest.raises(pv.InputError, match=r"x\[2, 1\] = 0.0 .* add half of the .* take Exponential\(\)") as refusal:
        pv.VAE((3,), 2, likelihood=family).check({"x": x})
    remedy = next(line for line in str(refusal.value).split(", ") if line.startswith("x + "))
    pv.VAE((3,), 2, likelihood=family).check({"x": eval(remedy, {"x": x})})
    pv.VAE((3,), 2, likelihood=pv.Exponential()).check({"x": x})
    with pytest.raises(pv.InputError, match=r"may not be negative"):
        pv.VAE((3,), 2, likelihood=pv.Exponential()).check({"x": -x})


@pytest.mark.parametrize(
    "family",
    [pv.Gamma(0.01, 1e6), pv.LogNormal(-90, 10), pv.LogNormal(90, 10), pv.Weibull(1e-4, 0.1), pv.Weibull(1e6, 0.1)],
    ids=repr,
)
def test_draws_beyond_the_type_stay_positive_and_finite(family: pv.families.Family) -> None:
    constants = dict.fromkeys(family.parameters, "per_feature")
    conditional = Place("prior", (2000,)).build(type(family)(**constants))
    with torch.no_grad():
        for name, slot in conditional.slots.items():
            value = torch.full(slot.shape, getattr(family, name))
            conditional.constants[name].copy_(torch.distributions.transform_to(slot.constraint).inv(value))
    draws = conditional().rsample((5,))
    assert bool((torch.isfinite(draws) & (draws > 0)).all())
    assert bool(torch.isfinite(conditional().log_prob(draws)).all())
    draws.log().sum().backward()
    for name, weight in conditional.constants.items():
        assert bool(torch.isfinite(weight.grad).all()), name


def test_exponential_starts_at_a_finite_rate_for_an_all_zero_element() -> None:
    for x in (torch.zeros(5, 3), torch.tensor([[0.0, 1.0, 5.0]])):
        conditional = Place("prior", (3,)).build(pv.Exponential())
        conditional.initialize(x)
        assert bool((conditional.trained_value("rate") < 1e4).all())


def test_logistic_and_exponential_draws_are_finite_where_the_uniform_number_is_zero() -> None:
    logistic, exponential, weibull = (prior(f) for f in (pv.Logistic(0, 1), pv.Exponential(1), pv.Weibull(1, 0.5)))
    with (
        mock.patch.object(Tensor, "uniform_", lambda self: self.zero_()),
        mock.patch.object(Tensor, "exponential_", lambda self: self.zero_()),
    ):
        assert bool(torch.isfinite(logistic.rsample((4,))).all())
        assert bool((exponential.rsample((4,)) > 0).all())
        assert bool((weibull.rsample((4,)) > 0).all())


def test_weibull_density_leads_back_from_where_it_underflows() -> None:
    conditional = Place("prior", (1,)).build(pv.Weibull(scale="per_feature", concentration=50))
    conditional().log_prob(torch.tensor([1e4])).backward()
    assert 0 < conditional.constants["scale"].grad.item() < math.inf


def test_asymmetry_of_a_laplace_says_which_quantile_its_location_is() -> None:
    for asymmetry, share in ((3.0, 0.9), (1.0, 0.5), (1 / 3, 0.1)):
        below = (prior(pv.AsymmetricLaplace(2, 1.5, asymmetry), 1).sample((20_000,)) < 2).double().mean().item()
        assert abs(below - share) < 4 * math.sqrt(share * (1 - share) / 20_000)


def test_half_a_cauchys_quartiles_apart_survives_outliers_and_constant_elements() -> None:
    x = torch.linspace(-1, 1, 101).repeat(2, 1).T.clone()
    x[:10, 0], x[:, 1] = 1e9, 7.0
    conditional = Place("prior", (2,)).build(pv.Cauchy())
    conditional.initialize(x)
    scale = conditional.trained_value("scale")
    assert abs(conditional.trained_value("loc")[1] - 7) < 1e-5
    assert 0.3 < scale[0] < 0.7
    torch.testing.assert_close(scale[1], 0.05 * scale[0], rtol=1e-3, atol=0)


# ---- LowRankNormal -------------------------------------------------------------------------------------------


def factors(rank: int, size: int, batch: tuple[int, ...] = ()) -> tuple[Tensor, Tensor, Tensor]:
    generator = cases.seeded()
    draw = lambda *shape: torch.randn(*batch, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(size), draw(size, rank), draw(size).exp()


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_factor_covariance_is_the_dense_one(rank: int) -> None:
    loc, factor, diagonal = factors(rank, 5, (4,))
    ours = StableLowRankMultivariateNormal(loc, factor, diagonal, validate_args=False)
    dense = MultivariateNormal(loc, factor @ factor.mT + torch.diag_embed(diagonal))
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), dense.log_prob(x), rtol=1e-10, atol=1e-10)
    expanded = ours.expand((2, 4)).log_prob(x[:, None])
    torch.testing.assert_close(expanded, dense.log_prob(x)[:, None].expand(3, 2, 4), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.covariance_matrix, dense.covariance_matrix)
    torch.testing.assert_close(ours.entropy(), dense.entropy())


@pytest.mark.parametrize("size", [2, 16, 64])
def test_loud_factors_are_shortened_and_stay_finite_in_float32(size: int) -> None:
    """Parallel factors of 50 over a variance of 1e-8, and others like them."""
    signs = torch.randint(-1, 2, (20, size, 2), generator=cases.seeded()).float()
    factor = (50 * torch.cat([signs, torch.ones(1, size, 2)])).requires_grad_()
    diagonal = torch.full((size,), 1e-8, requires_grad=True)
    normal = StableLowRankMultivariateNormal(torch.zeros(size), factor, diagonal)
    loudness = (normal.cov_factor.square() / diagonal[:, None]).sum(-2)
    assert bool((loudness < 1.001e5).all())
    for x in (torch.full((size,), 60.0), normal.sample()):
        density = normal.log_prob(x)
        assert bool(torch.isfinite(density).all())
        for slope in torch.autograd.grad(density.sum(), (factor, diagonal), retain_graph=True):
            assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize("role", ["prior", "likelihood", "guide"])
def test_low_rank_refuses_more_factors_than_elements(role: str) -> None:
    with pytest.raises(pv.InputError, match=rf"^{role}: LowRankNormal\(rank=4.* the 3 elements .* rank of at most 3"):
        Place(role, (3,), None if role == "prior" else (2,)).build(pv.LowRankNormal(rank=4))
    with pytest.raises(pv.InputError, match="at least 1"):
        pv.LowRankNormal(rank=0)


def test_factors_start_unlike_each_other_and_in_the_datas_unit() -> None:
    x = 1000 * torch.randn(200, 6, generator=cases.seeded())
    conditional = Place("likelihood", (6,), (2,)).build(pv.LowRankNormal(3, cov_factor="per_feature"))
    assert bool((conditional.trained_value("cov_factor") != 0).all())
    conditional.initialize(x)
    factor = conditional.trained_value("cov_factor")
    assert torch.linalg.matrix_rank(factor) == 3
    assert bool((factor.norm(dim=0) > 10).all())
