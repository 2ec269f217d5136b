"""Guides against exact evidence: what each can reach, and where it has to stay below.

With the model fixed, the bound is log p(x) - KL(q(z|x) || p(z|x)), so a guide is as good as that KL is small.
"""

import math
from collections.abc import Iterator

import pytest
import torch
from helpers.oracles import PPCA, linear
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import pyro_vae as pv


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices are small here: a second thread would only wait, and slow down the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MODEL = PPCA.random(4, 3, s2=1.0, seed=3)
"""Its latents are correlated a posteriori: the columns of W are not orthogonal."""

NATS = 0.02


def fit_guide(vae: pv.VAE, x: Tensor, plan: list[tuple[float, int]], *, particles: int, batch_size: int) -> None:
    """Train the encoder alone, at learning rates and for epochs as planned."""
    before = {name: value.clone() for name, value in vae.likelihood.state_dict().items()}
    frozen = {"likelihood": 0.0} if list(vae.likelihood.parameters()) else {}
    for lr, epochs in plan:
        pv.fit(
            vae,
            x,
            objective=pv.objectives.ELBO(particles),
            optimizer=pv.Adam(lr, lr_by_part=frozen),
            epochs=epochs,
            batch_size=batch_size,
            progress=False,
        )
    torch.testing.assert_close(dict(vae.likelihood.state_dict()), before, rtol=0, atol=0)


@torch.no_grad()
def log_weights(vae: pv.VAE, x: Tensor, particles: int) -> Tensor:
    """Log p(x, z) - log q(z|x) at draws from the guide, (K, N)."""
    torch.manual_seed(0)
    return pv.objectives.ELBO(particles).draw(vae.model, vae.guide, x).log_weights


def diagonal_gap(model: PPCA) -> float:
    r"""The least KL from a diagonal Gaussian to the posterior, at every x the same.

    $\tfrac12 (\sum_i \log \Lambda_{ii} - \log \det \Lambda)$ with $\Lambda = M / s^2$ the posterior precision; it is
    reached with the exact mean and the variances $1 / \Lambda_{ii}$ (Bishop, Pattern Recognition and Machine Learning,
    2006, section 10.1.2).
    """
    precision = model.m / model.s2
    return 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))


LINEAR = {
    "full rank": (pv.MultivariateNormal(), 0.0),
    "diagonal": (pv.Normal(), diagonal_gap(MODEL)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_gaussian_guide_reaches_the_evidence_of_a_correlated_posterior_up_to_what_its_shape_costs(name: str) -> None:
    guide, least = LINEAR[name]
    assert diagonal_gap(MODEL) > 10 * NATS  # or the two guides could not be told apart
    x = MODEL.marginal().sample((500,))
    vae = linear(4, 3, guide).double()
    exact = MODEL.put_into(linear(4, 3))
    vae.likelihood.load_state_dict(exact.likelihood.state_dict())
    fit_guide(vae, x, [(0.03, 100), (0.01, 60), (0.003, 60)], particles=10, batch_size=len(x))

    with torch.no_grad():
        q = vae.encode(x)
    covariance = q.covariance_matrix if name == "full rank" else q.variance.diag_embed()
    gaps = kl_divergence(MultivariateNormal(q.mean, covariance), MODEL.posterior(x))  # no Monte Carlo error in it
    print(f"{name}: {gaps.mean():.4f} nats below the evidence, of which {least:.4f} cannot be had")
    assert bool((gaps > least - 1e-9).all())  # no row can do better, so the tolerance is needed upwards only
    assert float(gaps.mean()) < least + NATS

    evidence = MODEL.marginal().log_prob(x)
    found = evidence - log_weights(vae, x, 200)
    error = float(found.std() / found.numel() ** 0.5)
    assert float(found.mean()) == pytest.approx(float(gaps.mean()), abs=4 * error + 1e-9)  # the bound of the package


class Banana(nn.Module):
    """The mean of x given z: z_2 - z_1^2, so that a posterior follows a parabola."""

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        return {"loc": z[..., 1:] - z[..., :1].square()}


NOISE = 0.2


def banana_evidence(x: Tensor) -> Tensor:
    """Log p(x) of rows (N, 1): z_2 integrated in closed form, z_1 by the trapezoidal rule."""
    grid = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    terms = Normal(0.0, 1.0).log_prob(grid) + Normal(-grid.square(), math.hypot(1, NOISE)).log_prob(x.double())
    return terms.logsumexp(1) + math.log(float(grid[1] - grid[0]))


def test_evidence_of_the_banana_is_that_of_a_grid_over_both_latents() -> None:
    x, grid = torch.tensor([[-3.0], [0.0], [1.5]]).double(), torch.linspace(-8, 8, 1601, dtype=torch.float64)
    z = torch.cartesian_prod(grid, grid)
    likelihood = Normal(Banana()(z)["loc"].T, NOISE).log_prob(x)
    total = (Normal(0.0, 1.0).log_prob(z).sum(1) + likelihood).logsumexp(1) + 2 * math.log(0.01)
    torch.testing.assert_close(banana_evidence(x), total, rtol=0, atol=1e-9)


BANANA_GUIDES = {
    "diagonal": pv.Normal(),
    "full rank": pv.MultivariateNormal(),
    "flow": pv.Flow("nsf", transforms=1, hidden=(32, 32), context=8),
}


@pytest.mark.slow
def test_flow_guide_follows_a_banana_that_no_gaussian_can() -> None:
    # Three data, many times over: what is left of the gap is the shape of the guide, and not its amortisation.
    x = torch.tensor([[-1.0], [0.0], [1.0]])
    evidence = banana_evidence(x)
    gaps, errors = {}, {}
    for name, guide in BANANA_GUIDES.items():
        torch.manual_seed(1)
        vae = pv.VAE(
            (1,), 2, likelihood=pv.Normal(scale=NOISE), guide=guide, encoder=pv.MLP(hidden=(32,)), decoder=Banana()
        )
        vae.likelihood.initialized.fill_(True)  # the decoder is the truth: no location from the data is added to it
        fit_guide(vae, x.repeat(512, 1), [(0.01, 30), (0.003, 15), (0.001, 10)], particles=1, batch_size=192)
        weights = log_weights(vae, x, 4000).double()
        below = evidence - weights
        gaps[name], errors[name] = float(below.mean()), float(below.std() / below.numel() ** 0.5)
        print(f"{name}: {gaps[name]:.4f} +- {errors[name]:.4f} nats below the evidence")
    assert all(gap > -4 * errors[name] for name, gap in gaps.items())  # it is a KL
    assert gaps["flow"] < 0.1 < 0.4 < min(gaps["diagonal"], gaps["full rank"])

    ratios = (weights - evidence).exp()  # of the flow, the last one: by importance sampling it has the evidence
    torch.testing.assert_close(ratios.mean(0), torch.ones(3).double(), rtol=0, atol=float(4 * ratios.std(0).max() / 63))
