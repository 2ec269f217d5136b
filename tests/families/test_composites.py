"""Families around one family: their tails, their gradients, their units, and what they are not made of."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import cases
from helpers.cases import Place

import pyro_vae as pv
from pyro_vae.core.errors import InputError
from pyro_vae.distributions.tails import STANDARDS
from pyro_vae.families import Family
from pyro_vae.families.site import SiteSpec

SCIPYS = {
    "Normal": scipy.stats.norm,
    "Laplace": scipy.stats.laplace,
    "Logistic": scipy.stats.logistic,
    "Cauchy": scipy.stats.cauchy,
}
LOCS = (-50.0, -3.0, 0.0, 0.3, 1.0, 4.0, 50.0)
BOUNDS = ((0.0, 1.0), (0.0, None), (None, 1.0))
over_standards = pytest.mark.parametrize("name", STANDARDS)
over_bounds = pytest.mark.parametrize(("low", "high"), BOUNDS)


def built(family: Family, dtype: torch.dtype = torch.float64) -> Any:
    with cases.default_dtype(dtype):
        return Place("prior", ()).build(family)()


def log_mass(name: str, low: Any, high: Any) -> Any:
    """log(F(high) - F(low)) in float64, from the tail where it is exact, or by quadrature on either side of 0."""
    low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
    standard, (nodes, weights) = SCIPYS[name], np.polynomial.legendre.leggauss(30)
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = []
        for start, end in ((low, np.minimum(high, 0)), (np.zeros_like(high), np.maximum(high, 0))):
            width = np.where(high - low < 1, end - start, 0)[..., None]
            points = np.where(width > 0, start[..., None], 0) + width * (nodes + 1) / 2
            sides.append(scipy.special.logsumexp(standard.logpdf(points) + np.log(weights * width / 2), -1))
        upper, lower = standard.logcdf(high), standard.logcdf(low)
        return np.where(high - low < 1, np.logaddexp(*sides), upper + np.log1p(-np.exp(lower - upper)))


@over_standards
@over_bounds
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-9)], ids=["32", "64"])
def test_truncated_density_is_exact_far_in_the_tails(
    name: str, low: float | None, high: float | None, dtype: torch.dtype, tolerance: float
) -> None:
    for loc, scale in itertools.product(LOCS, (0.3, 1.0, 30.0, 1e4)):
        density = built(pv.Truncated(getattr(pv, name)(loc, scale), low, high), dtype)
        ends = [(end - loc) / scale if end is not None else side for end, side in ((low, -np.inf), (high, np.inf))]
        x = torch.linspace(0, 1, 5, dtype=dtype)
        expected = SCIPYS[name].logpdf(x.numpy().astype(float), loc, scale) - log_mass(name, *ends)
        np.testing.assert_allclose(density.log_prob(x).numpy(), expected, rtol=tolerance, atol=2 * tolerance)


@over_standards
@over_bounds
def test_truncated_draws_follow_their_cdf_where_it_rounds_to_one(
    name: str, low: float | None, high: float | None
) -> None:
    for loc, scale in ((-30.0, 1.0), (0.2, 0.5), (30.0, 1.0), (0.5, 100.0)):
        density = built(pv.Truncated(getattr(pv, name)(loc, scale), low, high), torch.float32)
        torch.manual_seed(0)
        draws = density.sample((4000,)).double().numpy()
        assert draws.min() >= (low if low is not None else -np.inf)
        assert draws.max() <= (high if high is not None else np.inf)
        a, b = ((end - loc) / scale if end is not None else side for end, side in ((low, -np.inf), (high, np.inf)))
        whole = log_mass(name, a, b)
        share = np.exp(log_mass(name, a, np.maximum((draws - loc) / scale, a)) - whole)
        assert scipy.stats.kstest(share, "uniform").pvalue > 1e-3


@over_standards
@over_bounds
def test_truncated_draws_carry_the_gradient_of_their_quantile(name: str, low: float | None, high: float | None) -> None:
    for loc, scale in ((-8.0, 1.0), (0.4, 0.7), (9.0, 2.0)):
        theta = torch.tensor([loc, scale], dtype=torch.float64, requires_grad=True)

        def draw(theta: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(3)
            density = pv.Truncated(getattr(pv, name)(), low, high)
            bound = density.bind(SiteSpec("prior", ()))
            drawn: torch.Tensor = bound.distribution(loc=theta[0], scale=theta[1]).rsample((4,))
            return drawn

        assert torch.autograd.gradcheck(draw, (theta,), atol=1e-6, rtol=1e-5)


@over_standards
def test_censored_masses_and_density_are_the_familys(name: str) -> None:
    for loc, scale in itertools.product(LOCS, (0.3, 2.0)):
        density = built(pv.Censored(getattr(pv, name)(loc, scale), 0, 1))
        whole = SCIPYS[name](loc, scale)
        x = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
        np.testing.assert_allclose(
            density.log_prob(x).numpy(), [whole.logcdf(0), whole.logpdf(0.25), whole.logsf(1)], rtol=1e-9, atol=1e-12
        )
        survival = scipy.integrate.quad(whole.sf, 0, 1, points=[min(max(loc, 0.0), 1.0)])[0]
        np.testing.assert_allclose(density.mean.item(), survival, atol=1e-8)
    assert built(pv.Censored(getattr(pv, name)(0, 1))).log_prob(torch.tensor(-0.1)).item() == -math.inf


def test_means_of_one_sided_bounds_equal_scipys() -> None:
    np.testing.assert_allclose(built(pv.Censored(pv.Normal(1, 2))).mean, 2 * (0.5 * 0.6914625 + 0.3520653), rtol=1e-6)
    np.testing.assert_allclose(
        built(pv.Truncated(pv.Normal(-20, 2))).mean, scipy.stats.truncnorm(10, np.inf, -20, 2).mean(), rtol=1e-9
    )
    with pytest.raises(NotImplementedError):  # the tail that is left has no mean
        _ = built(pv.Censored(pv.Cauchy(0, 1))).mean


@pytest.mark.parametrize(
    ("composed", "known", "x"),
    [
        (pv.Transformed(pv.Normal(0.5, 0.7), "exp"), pv.LogNormal(0.5, 0.7), [0.01, 1, 30]),
        (pv.Transformed(pv.Normal(0.5, 0.7), "sigmoid"), pv.LogitNormal(0.5, 0.7), [0.01, 0.5, 0.99]),
        (pv.Scaled(pv.Normal(1, 2), 3, 0.5), pv.Normal(3.5, 1), [-1, 3, 9]),
        (pv.Scaled(pv.Exponential(2), 0, 4), pv.Exponential(0.5), [0.1, 1, 9]),
    ],
    ids=repr,
)
def test_known_names(composed: Family, known: Family, x: list[float]) -> None:
    at = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(built(composed).log_prob(at), built(known).log_prob(at), rtol=1e-12, atol=1e-12)


def test_unit_for_each_element_moves_support_density_mean_and_starts() -> None:
    family = pv.Scaled(pv.Beta(), loc=[0, 5], scale=[10, 2])
    assert family == pv.Scaled(pv.Beta(), loc=np.array([0.0, 5.0]), scale=(10.0, 2.0))
    x = torch.tensor([[2.0, 5.5], [7.0, 6.0], [4.0, 6.9]])
    vae = pv.VAE((2,), 1, likelihood=family, encoder=pv.MLP((3,)))
    vae.initialize(x)
    draws = vae.sample(500)
    vae.check({"x": draws})
    assert bool(torch.isfinite(vae.decode(torch.zeros(500, 1)).log_prob(draws)).all())
    with pytest.raises(InputError, match=r"x\[1, 1\] = 7.* Scaled\(family=Beta.*choose loc and scale"):
        vae.check({"x": torch.tensor([[2.0, 6.0], [3.0, 7.0]])})
    with pytest.raises(InputError, match=r"^prior: Scaled.loc has shape \(2,\), which does not broadcast to \(3,\)"):
        Place("prior", (3,)).build(family)
    plain = pv.VAE((2,), 1, likelihood=pv.Beta(), encoder=pv.MLP((3,))).initialize(
        (x - torch.tensor([0, 5])) / torch.tensor([10, 2])
    )
    for name in ("offset_concentration1", "offset_concentration0"):
        torch.testing.assert_close(vae.likelihood.get_buffer(name), plain.likelihood.get_buffer(name))


@pytest.mark.parametrize("family", [pv.Scaled(pv.Beta(0.02, 0.02), 5, 10), pv.Scaled(pv.Beta(0.02, 9), -1000, 1000.5)])
def test_draws_that_round_to_an_end_have_a_density(family: Family) -> None:
    density = built(family, torch.float32)
    draws = density.sample((2000,))
    assert bool(density.support.check(draws).all())
    assert bool(torch.isfinite(density.log_prob(draws)).all())
    ends = torch.stack([density.support.lower_bound, density.support.upper_bound])
    assert bool(torch.isfinite(density.log_prob(ends)).all())  # which a number beside them may round to


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pv.Truncated(pv.StudentT()),
            "Truncated.family = StudentT.* take one of Normal, Laplace, Logistic, Cauchy",
        ),
        (lambda: pv.Censored(pv.Poisson()), "Censored.family = Poisson"),
        (lambda: pv.Truncated(low=None), "Truncated has no bound: give low=0"),
        (lambda: pv.Censored(low=2, high=1), "Censored.low = 2 has to be less than Censored.high = 1"),
        (lambda: pv.Truncated("Normal"), "Truncated.family = 'Normal' has to be a Family"),  # type: ignore[arg-type]
        (lambda: pv.Transformed(transform="log"), "unknown Transformed.transform 'log'.* Known: exp, sigmoid"),
        (lambda: Place("prior", (2,)).build(pv.Transformed(pv.Gamma())), "prior: .* exp wants the real numbers"),
        (lambda: Place("prior", (2,)).build(pv.Scaled(pv.Poisson())), "prior: .*Poisson.* have no other unit"),
        (lambda: Place("prior", (2,)).build(pv.Scaled(pv.Dirichlet())), "prior: .*Dirichlet.* have no other unit"),
        (lambda: Place("prior", (2,)).build(pv.Scaled(pv.Scaled())), "changes the unit twice"),
        (lambda: pv.Scaled(scale=0), "Scaled.scale = 0.0 has to be positive"),
        (lambda: pv.Scaled(loc="learned"), "Scaled.loc = 'learned' is not a unit"),  # type: ignore[arg-type]
    ],
)
def test_composites_refuse_wrong_parts(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_ends_of_an_image_are_refused_as_data() -> None:
    for name, x, words in (("sigmoid", 1.0, "squeeze"), ("tanh", -1.0, "squeeze"), ("exp", 0.0, r"Censored\(low=0\)")):
        vae = pv.VAE((2,), 1, likelihood=pv.Transformed(pv.Normal(), name), encoder=pv.MLP((3,)))
        with pytest.raises(InputError, match=words):
            vae.check({"x": torch.tensor([[0.5, 0.5], [0.5, x]])})
