"""A linear VAE is probabilistic PCA: through the public API it has to reach the closed form."""

import pytest
import torch
from helpers.oracles import PPCA, TABLE, largest_angle, linear, table_data
from torch import Tensor

import pyro_vae as pv


@pytest.mark.parametrize(("data", "q", "log_likelihood", "s2"), TABLE, ids=[f"{d}-q{q}" for d, q, *_ in TABLE])
def test_oracle_gives_the_reference_table(data: str, q: int, log_likelihood: float, s2: float) -> None:
    x = table_data(data)
    model = PPCA.fit(x, q)
    assert float(model.marginal().log_prob(x).mean()) == pytest.approx(log_likelihood, abs=1e-6)
    assert float(model.s2) == pytest.approx(s2, abs=1e-6)


def test_oracle_is_consistent_with_itself() -> None:
    model, x, z = PPCA.random(5, 2), torch.randn(4, 5).double(), torch.randn(4, 2).double()
    likelihood = torch.distributions.Normal(z @ model.w.T + model.mu, model.s2.sqrt())
    log_joint = torch.distributions.Normal(0, 1).log_prob(z).sum(1) + likelihood.log_prob(x).sum(1)
    bayes = log_joint - model.posterior(x).log_prob(z)
    torch.testing.assert_close(bayes, model.marginal().log_prob(x))
    torch.testing.assert_close(model.rotated().marginal().covariance_matrix, model.marginal().covariance_matrix)
    off_diagonal = model.rotated().m - model.rotated().m.diag().diag()
    assert model.m[0, 1].abs() > 0.1 > 1e-12 > off_diagonal.abs().max()


@pytest.mark.parametrize("degrees", [0.0, 5.0, 90.0])
def test_largest_angle_is_that_of_a_rotation(degrees: float) -> None:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    plane = torch.eye(4, 2, dtype=torch.float64)
    turned = plane.clone()
    turned[:, 1] = torch.tensor([0, torch.cos(angle), torch.sin(angle), 0])
    mixed = turned @ torch.tensor([[2.0, 1.0], [-1.0, 3.0]], dtype=torch.float64)
    assert largest_angle(plane, mixed) == pytest.approx(degrees, abs=1e-6)


GUIDES = {
    "full covariance": (pv.MultivariateNormal(scale_tril="per_feature"), PPCA.random(6, 3)),
    "full, from the network": (pv.MultivariateNormal(), PPCA.random(6, 3)),
    "diagonal": (pv.Normal(scale="per_feature"), PPCA.random(6, 3).rotated()),
    "diagonal, from the network": (pv.Normal(), PPCA.random(6, 3).rotated()),
    "maximum likelihood": (pv.Normal(scale="per_feature"), PPCA.fit(table_data("iris"), 2)),
}


@pytest.mark.parametrize("name", GUIDES)
def test_weights_of_the_exact_model_equal_the_evidence_for_every_draw(name: str) -> None:
    guide, model = GUIDES[name]
    p, q = model.w.shape
    x = 3 * torch.randn(7, p, dtype=torch.float64)
    vae = model.put_into(linear(p, q, guide))
    particles = pv.objectives.ELBO(particles=5).draw(vae.model, vae.guide, x)
    expected = model.marginal().log_prob(x).expand(5, 7)
    torch.testing.assert_close(particles.log_weights, expected, rtol=1e-10, atol=1e-10)


def reach(x: Tensor, q: int, plan: list[tuple[float, int]], particles: int = 1) -> dict[str, float]:
    """Train on full batches, learning rates and epochs as planned; compare with the closed form."""
    exact = PPCA.fit(x, q)
    vae = linear(x.shape[1], q, pv.Normal(scale="per_feature"))
    for lr, epochs in plan:
        pv.fit(
            vae,
            x,
            objective=pv.objectives.ELBO(particles, kl="analytic"),
            optimizer=pv.Adam(lr),
            epochs=epochs,
            batch_size=len(x),
            progress=False,
        )
    learned, vae = PPCA.of(vae), vae.double()
    evidence = learned.marginal().log_prob(x)
    with torch.no_grad():
        gaps = evidence - pv.objectives.ELBO(particles=200).draw(vae.model, vae.guide, x).log_weights
    return {
        "below the optimum": float((exact.marginal().log_prob(x) - evidence).mean()),
        "bound below the model": float(gaps.mean()),
        "its Monte Carlo error": float(gaps.std() / gaps.numel() ** 0.5),
        "s2, relative": float(learned.s2 / exact.s2) - 1,
        "angle": largest_angle(learned.w, exact.w),
    }


# The location of the data changes no log-density, and centred data trains ten times faster: the encoder's
# least-squares problem is badly conditioned by a mean of eight standard deviations.
FAST = {
    "iris-q2": (table_data("iris") - table_data("iris").mean(0), 2, [(0.03, 300), (0.01, 150), (0.003, 100)], 0.02),
    "breast-cancer-q5": (table_data("breast cancer"), 5, [(0.03, 300), (0.01, 150), (0.003, 100)], 0.10),
}


@pytest.mark.parametrize("case", ["iris-q2", pytest.param("breast-cancer-q5", marks=pytest.mark.slow)])
def test_training_reaches_the_maximum_likelihood(case: str) -> None:
    x, q, plan, nats = FAST[case]
    found = reach(x, q, plan)
    print({name: f"{value:.4f}" for name, value in found.items()})
    assert 0 <= found["below the optimum"] < nats
    assert -4 * found["its Monte Carlo error"] < found["bound below the model"] < nats
    assert abs(found["s2, relative"]) < 0.05
    assert found["angle"] < 5


@pytest.mark.slow
def test_training_on_raw_iris_reaches_the_maximum_likelihood() -> None:
    found = reach(table_data("iris"), 2, [(0.03, 1200), (0.01, 1500), (0.003, 800)], particles=10)
    print({name: f"{value:.4f}" for name, value in found.items()})
    assert 0 <= found["below the optimum"] < 0.02
    assert -4 * found["its Monte Carlo error"] < found["bound below the model"] < 0.02
    assert abs(found["s2, relative"]) < 0.05
    assert found["angle"] < 5
