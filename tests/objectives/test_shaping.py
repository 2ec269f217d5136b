"""Objectives that shape the KL: their values and parts against sums written out, and what they refuse."""

import itertools
import math
from typing import Any

import pyro
import pytest
import torch
from helpers.programs import Chain, Plain, loss_and_gradient, vae_of
from torch import Tensor

import pyro_vae as pv
from pyro_vae.distributions.mmd import mmd2
from pyro_vae.objectives import DIP, ELBO, BetaTC, Capacity, InfoVAE, Objective, Particles


def vae_and_rows(prior: pv.families.Family = pv.Normal(0, 1), guide: pv.families.Family = pv.Normal()) -> Any:
    return vae_of(prior, guide).double(), torch.randn(6, 3).double()


def drawn(objective: Objective, vae: Any, x: Tensor) -> Particles:
    pyro.set_rng_seed(3)
    return objective.draw(vae.model, vae.guide, x=x)


@pytest.mark.parametrize("kl", ["sampled", "analytic"])
def test_beta_weighs_the_kl_and_nothing_else(kl: Any) -> None:
    vae, x = vae_and_rows()
    objective = ELBO(particles=3, kl=kl, beta=2.5)
    particles = drawn(objective, vae, x)
    parts = objective.summary(particles)
    assert float(objective.bound(particles).mean().detach()) == pytest.approx(
        float(parts["log_likelihood"] - 2.5 * parts["kl"]), rel=1e-12
    )
    torch.testing.assert_close(ELBO(particles=3, kl=kl, beta=1).bound(particles), objective.elbo(particles))
    zero = ELBO(particles=3, kl=kl, beta=0).bound(particles)
    torch.testing.assert_close(zero, particles.log_likelihood.mean(0))


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_beta_and_an_estimator_go_together(estimator: Any) -> None:
    """Without the score, whose mean is 0, the gradient is the same on average, and beta still weighs it."""
    vae, x = vae_and_rows()
    plain = loss_and_gradient(ELBO(particles=20000, beta=2.5), vae, x)
    other = loss_and_gradient(ELBO(particles=20000, beta=2.5, estimator=estimator), vae, x)
    unweighed = loss_and_gradient(ELBO(particles=20000, estimator=estimator), vae, x)
    assert plain[0] == pytest.approx(other[0], rel=1e-9)
    for name, gradient in plain[1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(other[1][name], gradient, rtol=0, atol=0.05 * scale, msg=name)
    worst = max(float((unweighed[1][n] - g).abs().max() / g.abs().max()) for n, g in plain[1].items())
    assert worst > 0.2


def test_sticking_the_landing_has_no_gradient_where_the_tempered_posterior_is_the_guide() -> None:
    """Of z ~ N(0, 1), x|z ~ N(z, 1): p(z) p(x|z)^(1/beta) is N(x / (1 + beta), beta / (1 + beta))."""
    beta = 3.0

    class Pair:
        def __init__(self) -> None:
            self.slope = torch.tensor(1 / (1 + beta), dtype=torch.float64, requires_grad=True)
            self.scale = torch.tensor(math.sqrt(beta / (1 + beta)), dtype=torch.float64, requires_grad=True)

        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pyro.distributions.Normal(torch.zeros_like(x), 1.0))
                pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", pyro.distributions.Normal(self.slope * x, self.scale))

    pair = Pair()
    x = torch.randn(7, dtype=torch.float64)
    for objective, zero in ((ELBO(beta=beta, estimator="stl"), True), (ELBO(estimator="stl"), False)):
        loss = objective.differentiable_loss(pair.model, pair.guide, x)
        gradients = torch.autograd.grad(loss, [pair.slope, pair.scale])
        assert (max(float(g.abs()) for g in gradients) < 1e-10) is zero


@pytest.mark.parametrize("kl", ["sampled", "analytic"])
@pytest.mark.parametrize("groups", [None, 2, 1])
def test_free_bits_are_the_larger_of_both(groups: int | None, kl: Any) -> None:
    vae, x = vae_and_rows()
    base = ELBO(particles=3, kl=kl)
    particles = drawn(base, vae, x)
    split = base.summary(particles)["kl_z"]
    for free in (float(split.min()) / 2, float(split.mean()), 5.0):
        objective = ELBO(particles=3, kl=kl, free_bits=free, groups=groups, beta=0.7)
        cost = max(float(split.sum()), free) if groups == 1 else sum(max(float(v), free) for v in split)
        expected = particles.log_likelihood.mean(0) - 0.7 * cost
        torch.testing.assert_close(objective.bound(particles), expected)


def test_free_bits_have_no_gradient_below_them() -> None:
    vae, x = vae_and_rows()
    _, free = loss_and_gradient(ELBO(free_bits=100), vae, x)
    _, paid = loss_and_gradient(ELBO(beta=0), vae, x)
    torch.testing.assert_close(free, paid)


def test_capacity_is_a_distance() -> None:
    vae, x = vae_and_rows()
    base = ELBO(particles=2, kl="analytic")
    particles = drawn(base, vae, x)
    parts = base.summary(particles)
    for capacity in (0.0, 7.0):
        bound = Capacity(capacity, gamma=9, particles=2, kl="analytic").bound(particles)
        expected = float(parts["log_likelihood"]) - 9 * abs(float(parts["kl"]) - capacity)
        assert float(bound.mean().detach()) == pytest.approx(expected, rel=1e-10)


# Total correlation


def by_hand(vae: pv.VAE, x: Tensor, z: Tensor, weight: Any) -> tuple[list[float], list[float]]:
    """Log q(z_n) and the sum of log q(z_nj), by loops; `weight(n, m)` is what row m counts at the draw of row n."""
    with torch.no_grad():
        posterior = vae.encode(x).base_dist
    joint, product = [], []
    for n in range(len(x)):
        each = [torch.distributions.Normal(posterior.loc[m], posterior.scale[m]).log_prob(z[n]) for m in range(len(x))]
        joint.append(math.log(sum(weight(n, m) * float(each[m].sum().exp()) for m in range(len(x)))))
        marginals = [math.log(sum(weight(n, m) * float(each[m][j].exp()) for m in range(len(x)))) for j in range(2)]
        product.append(sum(marginals))
    return joint, product


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_parts_of_the_kl_are_sums_over_pairs(sampling: Any) -> None:
    vae, x = vae_and_rows()
    objective = BetaTC(beta=4, alpha=0.5, gamma=2, sampling=sampling, rows=50)
    particles = drawn(objective, vae, x)
    z = particles.latents["z"].value.detach()
    weights = {
        "weighted": lambda n, m: 1 / (50 * 6),
        "stratified": lambda n, m: 1 / 50 if n == m else 49 / (50 * 5),
    }
    joint, product = by_hand(vae, x, z, weights[sampling])
    own, prior = (latent.tolist() for latent in (particles.log_posterior[0], particles.latents["z"].log_prior[0]))
    parts = objective.parts_of_kl(particles)
    assert parts["information"].tolist() == pytest.approx([a - b for a, b in zip(own, joint, strict=True)], rel=1e-9)
    assert parts["total_correlation"].tolist() == pytest.approx(
        [a - b for a, b in zip(joint, product, strict=True)], rel=1e-9
    )
    assert parts["dimensionwise_kl"].tolist() == pytest.approx(
        [a - b for a, b in zip(product, prior, strict=True)], rel=1e-9
    )
    cost = 0.5 * parts["information"] + 4 * parts["total_correlation"] + 2 * parts["dimensionwise_kl"]
    torch.testing.assert_close(objective.bound(particles), particles.log_likelihood[0] - cost)
    terms = objective.summary(particles)
    assert float(terms["total_correlation"]) == pytest.approx(float(parts["total_correlation"].detach().mean()))
    plain = BetaTC(1, sampling=sampling, rows=50).bound(particles)
    torch.testing.assert_close(plain, ELBO().bound(particles))


def test_stratified_batches_estimate_the_aggregate_without_bias() -> None:
    """The mean over every batch of 3 of 6 rows with row n in it is q(z_n) of all 6."""
    vae, x = vae_and_rows()
    z = vae.encode(x).sample()
    with torch.no_grad():
        densities = torch.stack([vae.encode(x[m : m + 1]).log_prob(z) for m in range(6)], 1).exp()  # [n, m]
    batches = [batch for batch in itertools.combinations(range(6), 3) if 0 in batch]
    weights = BetaTC(sampling="stratified", rows=6)._log_weights(3).exp()
    total = 0.0
    for batch in batches:
        order = [0, *(m for m in batch if m != 0)]
        total += sum(float(weights[0, i] * densities[0, m]) for i, m in enumerate(order))
    assert total / len(batches) == pytest.approx(float(densities[0].mean()), rel=1e-6)


def test_fit_passes_the_number_of_rows_and_records_the_parts() -> None:
    x = torch.randn(50, 3)
    vae = pv.VAE((3,), 2, encoder=pv.MLP((8,)))
    history = pv.fit(vae, x, validation=x, objective=BetaTC(3), epochs=2, batch_size=7, progress=False)
    parts = history["information"] + history["total_correlation"] + history["dimensionwise_kl"]
    assert parts.tolist() == pytest.approx(history["kl"].tolist(), rel=1e-4)
    assert {"validation_information", "validation_total_correlation"} <= set(history.columns)


# Distances of the aggregate


def test_infovae_is_the_elbo_and_a_distance() -> None:
    vae, x = vae_and_rows(pv.Laplace(0, 1))
    objective = InfoVAE(alpha=0.3, scale=20)
    particles = drawn(objective, vae, x)
    parts = objective.summary(particles)
    pyro.set_rng_seed(5)
    bound = objective.bound(particles).mean()
    pyro.set_rng_seed(5)
    prior = vae.prior().sample((6,))
    distance = mmd2(particles.latents["z"].value, prior)
    expected = parts["log_likelihood"] - 0.7 * parts["kl"] - (0.3 + 20 - 1) * distance
    assert float(bound.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_infovae_pulls_an_aggregate_to_the_prior() -> None:
    x = pv.data.load("digits").train.x.flatten(1)[:600]
    distances = []
    for scale in (0.0, 50.0):  # with alpha = 1 nothing else holds the latents
        torch.manual_seed(0)
        vae = pv.VAE((64,), 2, likelihood=pv.Normal(scale=0.3), encoder=pv.MLP((32,)))
        history = pv.fit(
            vae, x, objective=InfoVAE(alpha=1, scale=scale), epochs=15, optimizer=pv.Adam(5e-3), progress=False
        )
        assert np_finite(history["mmd"])
        with torch.no_grad():
            distances.append(float(mmd2(vae.encode(x).sample(), vae.prior().sample((600,)))))
    assert distances[0] > 0.3
    assert distances[1] < 0.1


def np_finite(values: Any) -> bool:
    return bool((values == values).all())


@pytest.mark.parametrize("guide", [pv.Normal(), pv.MultivariateNormal()], ids=repr)
@pytest.mark.parametrize("of", ["means", "draws"])
def test_dip_is_the_elbo_and_a_covariance(of: Any, guide: pv.families.Family) -> None:
    vae, x = vae_and_rows(guide=guide)
    objective = DIP(of, off_diagonal=3, diagonal=5)
    particles = drawn(objective, vae, x)
    z = vae.encode(x).sample((200_000,)) if of == "draws" else vae.encode(x).mean[None]
    covariance = torch.cov(z.reshape(-1, 2).T, correction=0)
    penalty = 3 * 2 * covariance[0, 1] ** 2 + 5 * (covariance.diagonal() - 1).square().sum()
    assert float(objective.extra_terms(particles)["covariance"].detach()) == pytest.approx(
        float(penalty.detach()), rel=0.02
    )
    torch.testing.assert_close(objective.bound(particles), ELBO().bound(particles) - objective._penalty(particles))


@pytest.mark.parametrize("objective", [BetaTC(), InfoVAE(), DIP()], ids=repr)
def test_last_batch_of_one_row_is_allowed(objective: Objective) -> None:
    vae = pv.VAE((3,), 2, encoder=pv.MLP((8,)))
    history = pv.fit(vae, torch.randn(9, 3), objective=objective, epochs=2, batch_size=4, progress=False)
    assert np_finite(history["loss"])


# What is refused


WRONG: dict[str, tuple[Any, Any, str]] = {
    "two sites": (Chain(), BetaTC(rows=9), "one latent site, and these programs have top, z"),
    "two sites, MMD": (Chain(), InfoVAE(), "one latent site"),
    "a correlated guide": (
        vae_of(pv.Normal(0, 1), pv.MultivariateNormal()),
        BetaTC(rows=9),
        r"MultivariateNormal as a guide does not factorise: .* guide=pv.Normal\(\)",
    ),
    "no number of rows": (Plain(), BetaTC(), r"number of training rows, .* BetaTC\(rows=60000\)"),
    "a guide without moments": (vae_of(pv.Normal(0, 1), pv.Flow("maf")), DIP(), r"closed form, .* pv.Normal\(\)"),
    "free bits of what does not split": (
        vae_of(pv.Normal(0, 1), pv.MultivariateNormal()),
        ELBO(free_bits=0.1),
        "not a sum over latents, .* groups=1",
    ),
    "groups that do not divide": (Plain(), ELBO(free_bits=0.1, groups=2), "does not divide the 3 latents at site 'z'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_meaningless_options_are_refused(name: str) -> None:
    pair, objective, sentence = WRONG[name]
    with pytest.raises(pv.InputError, match=sentence):
        objective.loss(pair.model, pair.guide, torch.randn(6, 3))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ELBO(beta=-1), "at least 0"),
        (lambda: ELBO(beta="warm"), "a finite number or a Schedule"),
        (lambda: ELBO(free_bits=0.1, estimator="stl"), "free bits truncate it"),
        (lambda: ELBO(groups=0), "at least 1"),
        (lambda: InfoVAE(alpha=2), "alpha"),
        (lambda: DIP("covariances"), "Known: draws, means"),
        (lambda: BetaTC(sampling="mss"), "Known: stratified, weighted"),
    ],
)
def test_wrong_options_are_refused(make: Any, sentence: str) -> None:
    with pytest.raises(pv.InputError, match=sentence):
        make()
