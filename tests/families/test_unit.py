"""Families on the unit interval, the circle and the simplex: precision where torch's lose it, draws off the edge."""

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from helpers import cases
from helpers.cases import Place
from helpers.family_cases.unit import sigmoid_mean
from torch import Tensor
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae.core.errors import InputError
from pyro_vae.distributions.constraints import any_element, describe, supports_equal
from pyro_vae.distributions.simplex import StableStickBreaking
from pyro_vae.distributions.unit import StableContinuousBernoulli, logistic_normal_mean
from pyro_vae.distributions.von_mises import StableVonMises
from pyro_vae.families import Family

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}
LOGITS = (0, 1e-12, 1e-5, 1e-3, 4e-3, 0.1, 0.399, 0.401, 1, 3, 10, 16.5, 50, 500)


def continuous_bernoulli(dtype: torch.dtype, **options: Any) -> tuple[StableContinuousBernoulli, list[mpmath.mpf]]:
    """It at logits near and far from 0, on both sides, and these to 60 digits."""
    logits = torch.tensor([sign * value for value in LOGITS for sign in (-1, 1)], dtype=dtype, **options)
    return StableContinuousBernoulli(logits=logits), [mpmath.mpf(value) for value in logits.tolist()]


def cumulant(logit: mpmath.mpf) -> mpmath.mpf:
    """The logarithm of the integral of e^(lx) over the unit interval."""
    return mpmath.log(mpmath.expm1(logit) / logit) if logit else mpmath.mpf(0)


def close(ours: Tensor, theirs: list[Any], dtype: torch.dtype, scale: float = 1.0) -> None:
    assert ours.dtype == dtype
    expected = torch.tensor([float(value) for value in theirs], dtype=torch.float64)
    tolerance = scale * TOLERANCE[dtype]
    torch.testing.assert_close(ours.detach().double(), expected, rtol=tolerance, atol=tolerance)


@DTYPES
def test_continuous_bernoulli_has_its_moments_near_one_half_and_far_from_it(dtype: torch.dtype) -> None:
    ours, logits = continuous_bernoulli(dtype, requires_grad=True)
    with mpmath.workdps(60):
        means = [1 / (1 - mpmath.exp(-v)) - 1 / v if v else mpmath.mpf(1) / 2 for v in logits]
        variances = [1 / v**2 - 1 / (2 * mpmath.sinh(v / 2)) ** 2 if v else mpmath.mpf(1) / 12 for v in logits]
        densities = [v * mpmath.mpf("0.25") - cumulant(v) for v in logits]
        entropies = [cumulant(v) - v * m for v, m in zip(logits, means, strict=True)]
    close(ours.mean, means, dtype)
    close(ours.variance, variances, dtype, 3)
    close(ours.entropy(), entropies, dtype, 50)
    log_prob = ours.log_prob(torch.tensor(0.25, dtype=dtype))
    close(log_prob, densities, dtype)
    (slope,) = torch.autograd.grad(log_prob.sum(), ours.logits)
    close(slope, [mpmath.mpf("0.25") - m for m in means], dtype, 3)


def test_log_normaliser_is_the_integral() -> None:
    nodes, weights = (torch.as_tensor(part)[:, None] / 2 for part in np.polynomial.legendre.leggauss(100))
    logits = torch.tensor([-30, -1e-3, 0, 0.4, 2, 30], dtype=torch.float64)
    density = StableContinuousBernoulli(logits=logits).log_prob(0.5 + nodes).exp()
    torch.testing.assert_close((density * weights).sum(0), torch.ones_like(logits), rtol=0, atol=1e-12)


@DTYPES
def test_continuous_bernoullis_quantiles_invert_its_distribution_function(dtype: torch.dtype) -> None:
    ours, logits = continuous_bernoulli(dtype, requires_grad=True)
    x = torch.tensor(0.3, dtype=dtype)
    with mpmath.workdps(60):
        at = mpmath.mpf(float(x))
        below = [mpmath.expm1(v * at) / mpmath.expm1(v) if v else at for v in logits]
    close(ours.cdf(x), below, dtype)
    u = torch.tensor([[0.0], [0.001], [0.3], [0.9], [1.0]], dtype=dtype)
    quantile, middle = ours.icdf(u), ours.logits.abs() < 100  # beyond, neighbouring numbers have different quantiles
    assert bool(((quantile >= 0) & (quantile <= 1)).all())
    again = ours.cdf(quantile)[:-1, middle]
    torch.testing.assert_close(again, u[:-1].expand_as(again), rtol=0, atol=4e-6)
    (slope,) = torch.autograd.grad(quantile[2].sum(), ours.logits)  # implicitly, -(dF/dl) / p
    assert bool((slope > 0).all())
    (moved,) = torch.autograd.grad(ours.cdf(quantile[2].detach()).sum(), ours.logits)
    expected = -moved / ours.log_prob(quantile[2]).exp()
    torch.testing.assert_close(slope[middle], expected[middle], rtol=1e-3, atol=1e-4)


def test_divergence_of_continuous_bernoullis_is_the_integral() -> None:
    pairs = torch.tensor([(0, 1), (0.001, -0.001), (3, -40), (60, 50)], dtype=torch.float64)
    p, q = (StableContinuousBernoulli(logits=logits) for logits in pairs.T)
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:, None]
    expected = torch.trapezoid(p.log_prob(x).exp() * (p.log_prob(x) - q.log_prob(x)), x, dim=0)
    torch.testing.assert_close(kl_divergence(p, q), expected, rtol=1e-6, atol=1e-9)
    single = kl_divergence(*(StableContinuousBernoulli(logits=logits.float()) for logits in pairs.T))
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-6)


# ---- edges -------------------------------------------------------------------------------------------------------

EDGED = (pv.Beta(), pv.LogitNormal(), pv.ContinuousBernoulli(), pv.Dirichlet(), pv.LogisticNormal())


@DTYPES
@pytest.mark.parametrize("family", EDGED, ids=repr)
def test_extreme_draws_lie_inside_and_have_gradients(family: Family, dtype: torch.dtype) -> None:
    shapes = cases.raw_shapes(family, (5,))
    for raws in itertools.product((-50.0, -4.0, 50.0), repeat=len(shapes)):
        outputs = {name: torch.full(shapes[name], raw, dtype=dtype) for name, raw in zip(shapes, raws, strict=True)}
        emitter = cases.HeadedNetwork(outputs)
        distribution = Place("guide", (5,), (2,)).build(family, emitter).to(dtype)(torch.zeros(400, 2, dtype=dtype))
        draws = distribution.rsample()
        assert bool(((draws > 0) & (draws < 1)).all())
        again = draws.detach().clone()  # which no transform remembers
        for log_prob in (distribution.log_prob(draws), distribution.log_prob(again)):
            assert bool(torch.isfinite(log_prob).all())
            log_prob.sum().backward(retain_graph=True)
        draws.pow(2).sum().backward()
        assert all(bool(torch.isfinite(value.grad).all()) for value in emitter.outputs.values())


def test_breaks_of_a_stick_keep_their_digits() -> None:
    """A break in float32 comes back from shares of 1e-20 and of nearly everything, where torch's is off by 40."""
    for breaks in ([30.0, 0.0, -1.0], [-20.0, 3.0, 15.0], [0.5, -0.5, 12.0]):
        exact = torch.tensor(breaks, dtype=torch.float64)
        shares = StableStickBreaking()(exact)
        torch.testing.assert_close(shares.sum(), torch.ones((), dtype=torch.float64))
        single = StableStickBreaking()(exact.float())
        torch.testing.assert_close(single.double(), shares, rtol=1e-5, atol=0)
        torch.testing.assert_close(StableStickBreaking().inv(single), exact.float(), rtol=1e-4, atol=1e-4)
    jacobian = torch.autograd.functional.jacobian(StableStickBreaking(), exact)[:-1]
    ours = StableStickBreaking().log_abs_det_jacobian(exact, shares)
    torch.testing.assert_close(ours, torch.linalg.slogdet(jacobian).logabsdet)


def test_mean_of_a_gaussians_sigmoid() -> None:
    loc, scale = torch.meshgrid(
        torch.tensor([-8.0, -1, 0, 0.3, 5], dtype=torch.float64),
        torch.tensor([1e-4, 0.1, 1, 3, 10], dtype=torch.float64),
        indexing="ij",
    )
    torch.testing.assert_close(logistic_normal_mean(loc, scale), sigmoid_mean(loc, scale), rtol=0, atol=5e-9)
    draws = Place("prior", (4,)).build(pv.LogisticNormal([1, 0, -2], [0.5, 1, 3]))()
    error = (draws.sample((100_000,)).mean(0) - draws.mean) / draws.sample((1000,)).std(0)
    assert bool((error.abs() < 4 / math.sqrt(100_000)).all())


def test_von_mises_is_precise_and_stays_on_the_circle() -> None:
    concentration = torch.tensor([1e-4, 1.0, 50.0, 1e3, 1e6])
    ours = StableVonMises(torch.full((5,), 3.1), concentration)
    x = 3.1 + 0.7 / (1 + concentration.sqrt())
    expected = scipy.stats.vonmises.logpdf(
        x.numpy().astype(float), concentration.numpy().astype(float), np.float32(3.1)
    )
    np.testing.assert_allclose(ours.log_prob(x).numpy(), expected, rtol=2e-6, atol=2e-3)  # x - 3.1 has 3 digits
    np.testing.assert_allclose(ours.log_prob(x)[:3].numpy(), expected[:3], rtol=3e-6, atol=3e-6)
    turned = StableVonMises(torch.tensor(3.1 + 20 * math.pi), torch.tensor(5.0))
    torch.testing.assert_close(turned.mean, torch.tensor(3.1), rtol=0, atol=1e-5)
    assert bool(turned.support.check(turned.sample((1000,))).all())


# ---- what is refused -----------------------------------------------------------------------------------------------


def checked(family: Family, x: Tensor) -> None:
    pv.VAE(tuple(x.shape[1:]), 2, likelihood=family, encoder=pv.MLP(hidden=(2,))).check({"x": x})


HALVES = torch.full((6, 3), 0.5)
THIRDS = torch.full((6, 3), 1 / 3)


def edited(x: Tensor, row: int, value: Any) -> Tensor:
    x = x.clone()
    x[row] = torch.as_tensor(value)
    return x


REFUSED = {
    "0 under Beta": (pv.Beta(), edited(HALVES, 4, 0.0), [r"x[4, 0] = 0.0 lies", "(3 of 18 values do)", "squeeze"]),
    "1 under LogitNormal": (
        pv.LogitNormal(),
        edited(HALVES, 2, [0.5, 0.5, 1.0]),
        ["x[2, 2] = 1.0", "(1 of 18", "ContinuousBernoulli()"],
    ),
    "nearly 1 in float32": (pv.Beta(), edited(HALVES, 1, 0.5).double() + (0.5 - 1e-12), ["x[0, 0] = 1.0"]),
    "bytes under ContinuousBernoulli": (pv.ContinuousBernoulli(), 255 * HALVES, ["x[0, 0] = 127.5", "x / 255"]),
    "grey under Bernoulli": (pv.Bernoulli(), HALVES, ["ContinuousBernoulli()", "binarize", "grey=True"]),
    "degrees": (pv.VonMises(), edited(HALVES, 3, 90.0), ["x[3, 0] = 90.0", "torch.deg2rad"]),
    "a sum": (
        pv.Dirichlet(),
        edited(THIRDS, 4, [0.2, 0.2, 0.2]),
        ["x[4] = [0.2, 0.2, 0.2] lies", "(1 of 6 vectors do)", "x / x.sum(-1, keepdim=True)"],
    ),
    "a zero share": (pv.LogisticNormal(), edited(THIRDS, 5, [0.5, 0.5, 0.0]), ["x[5] = [0.5, 0.5, 0.0]", "clamp"]),
    "labels of no class": (pv.OneHot(), THIRDS, ["x[0] = [0.333333, 0.333333, 0.333333]", "(6 of 6 vectors do)"]),
}


@pytest.mark.parametrize(("family", "x", "words"), REFUSED.values(), ids=REFUSED)
def test_data_outside_of_the_support_is_refused(family: Family, x: Tensor, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        checked(family, x)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_data_inside_of_the_support_is_let_in() -> None:
    checked(pv.Beta(), HALVES)
    checked(pv.ContinuousBernoulli(), HALVES.round())
    checked(pv.VonMises(), torch.full((6, 3), math.pi))
    counts = torch.rand(6, 5000, generator=cases.seeded()) + 0.01
    for shares in (THIRDS, counts / counts.sum(-1, keepdim=True)):
        checked(pv.Dirichlet(), shares)
        checked(pv.LogisticNormal(), shares)


def test_simplex_refuses_one_part_and_a_mask() -> None:
    for family in (pv.Dirichlet(), pv.LogisticNormal()):
        with pytest.raises(InputError, match="shares of at least 2 parts"):
            Place("prior", (1,)).build(family)
        vae = pv.VAE((3,), 2, likelihood=family, encoder=pv.MLP(hidden=(2,)))
        for run in (vae.check, lambda batch, vae=vae: vae.model(**batch)):
            with pytest.raises(InputError, match="takes no mask"):
                run({"x": THIRDS, "mask": THIRDS > 0})


def test_supports_are_compared_and_named() -> None:
    supports = [Place("prior", (3,)).build(family)().support for family in (*EDGED, pv.VonMises(), pv.Normal())]
    beta, logit, grey, dirichlet, logistic, circle, real = supports
    assert supports_equal(beta, logit)
    assert supports_equal(beta, grey)
    assert supports_equal(dirichlet, logistic)
    assert not any(supports_equal(*pair) for pair in itertools.combinations((beta, dirichlet, circle, real), 2))
    assert describe(dirichlet) == "the vectors of positive numbers that sum to 1"
    assert 0 < any_element(dirichlet) <= 1
    with pytest.raises(InputError, match=r"guide=Normal.* the real numbers and prior=Dirichlet.* that sum to 1"):
        pv.VAE((3,), 2, prior=pv.Dirichlet(1), encoder=pv.MLP(hidden=(2,)))


# ---- in a VAE ------------------------------------------------------------------------------------------------------


def documents(rows: int, likelihood: Family) -> Tensor:
    """Word counts of documents, each about a few of three topics; their logarithms for a Gaussian."""
    generator = torch.Generator().manual_seed(0)
    topics = torch.softmax(2 * torch.randn(3, 12, generator=generator), -1)
    about = torch.softmax(2 * torch.randn(rows, 3, generator=generator), -1)
    counts = torch.poisson(60 * about @ topics, generator=generator)
    return counts if isinstance(likelihood, pv.Poisson) else torch.log1p(counts)


PAIRS = {
    "a topic model": (pv.Dirichlet(0.3), pv.LogisticNormal(), pv.Poisson()),
    "logistic normal topics": (pv.LogisticNormal(0, 2), pv.LogisticNormal(), pv.Normal(scale="learned")),
    "Dirichlet in both": (pv.Dirichlet(), pv.Dirichlet(), pv.Poisson()),
    "shares": (pv.Beta(0.5, 0.5), pv.LogitNormal(), pv.Normal(scale="learned")),
    "shares in both": (pv.Beta(1, 1), pv.Beta(), pv.Normal(scale="learned")),
    "grey latents": (pv.Beta(1, 1), pv.ContinuousBernoulli(), pv.Normal(scale="learned")),
}


@pytest.mark.parametrize(("prior", "guide", "likelihood"), PAIRS.values(), ids=PAIRS)
def test_latents_on_the_interval_and_the_simplex_train(prior: Family, guide: Family, likelihood: Family) -> None:
    torch.manual_seed(0)
    x = documents(192, likelihood)
    network = pv.MLP(hidden=(16,))
    vae = pv.VAE((12,), 3, prior=prior, likelihood=likelihood, guide=guide, encoder=network, decoder=network)
    history = pv.fit(vae, x, epochs=40, batch_size=48, optimizer=pv.Adam(lr=0.03), progress=False)
    losses = history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.2, losses
    z = vae.encode(x).sample()
    assert bool(vae.prior.support.check(z).all())
    assert torch.isfinite(vae.sample(5, mean=True)).all()
