"""Where objectives lead: on a linear Gaussian model theory knows the optimum of each, and training has to reach it.

The posterior of probabilistic PCA lies in the guide's family, so every bound that is tight there has the maximum of the
likelihood as its optimum. A KL weighed by beta has it at the noise beta s2 instead (Lucas et al., Don't Blame the
ELBO!, 2019): loadings of length sqrt(eigenvalue - beta s2) along the principal axes.
"""

import math
from typing import Any

import pytest
import torch
from helpers.oracles import PPCA, largest_angle
from torch import Tensor

import pyro_vae as pv
from pyro_vae.objectives import (
    CIWAE,
    DIP,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    RWS,
    BetaTC,
    Capacity,
    InfoVAE,
    Objective,
    Renyi,
    ScheduledObjective,
)
from pyro_vae.schedules import GECO, Cyclical, Linear, Sigmoid

EIGENVALUES = (4.0, 2.0, 0.6, 0.4)


def data() -> Tensor:
    """Rows (200, 4) whose covariance, with 1/N, has exactly those eigenvalues."""
    x = torch.randn(200, 4, dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / len(x)).T)
    turned = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    return white * torch.tensor(EIGENVALUES, dtype=torch.float64).sqrt() @ turned.T + 3


def trained(
    objective: Objective,
    x: Tensor,
    scale: Any = "learned",
    steps: int = 400,
    guide: pv.families.Family = pv.Normal(scale="per_feature"),
) -> pv.VAE:
    """A linear VAE after full batches, each an epoch, with a step size that falls in the second half."""
    vae = pv.VAE((4,), 2, likelihood=pv.Normal(scale=scale), guide=guide, encoder=pv.MLP(hidden=())).double()
    vae.initialize(x)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.03, fused=True)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 10 ** (4 - 8 * step / steps)))
    scheduled = ScheduledObjective(objective, rows=len(x))
    with vae.no_param_store():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = -scheduled.current.bound(particles := scheduled.current.draw(vae.model, vae.guide, x=x)).mean()
            loss.backward()
            optimizer.step()
            falling.step()
            with torch.no_grad():
                log_likelihood = particles.log_likelihood.mean()
                scheduled.advance(log_likelihood, log_likelihood - scheduled.current.elbo(particles).mean())
    return vae


TIGHT: list[Objective] = [
    ELBO(particles=4),
    ELBO(particles=4, kl="analytic"),
    ELBO(estimator="stl"),
    ELBO(particles=4, beta=Linear(0, 1, epochs=100)),
    ELBO(particles=4, beta=Sigmoid(0, 1, epochs=100)),
    ELBO(particles=4, beta=Cyclical(0, 1, period=50)),
    IWAE(5),
    IWAE(5, estimator="dreg"),
    Renyi(0.5, 5),
    MIWAE(8, 2),
    PIWAE(8, 2, estimator="dreg"),
    CIWAE(5),
    BetaTC(1),
    InfoVAE(alpha=0, scale=1),
    InfoVAE(alpha=0, scale=1, kl="analytic"),
    DIP("means", off_diagonal=0, diagonal=0),
    RWS(20),
    RWS(20, insomnia=0.5),
]


QUICK = (IWAE(5, estimator="dreg"),)
"""Those that the fast suite trains; `make test-slow` trains all."""


@pytest.mark.parametrize(
    "objective", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow, id=repr(one)) for one in TIGHT]
)
def test_bound_that_is_tight_reaches_the_likelihoods_maximum(objective: Objective) -> None:
    x = data()
    best = PPCA.fit(x, 2)
    found = PPCA.of(trained(objective, x))
    gap = best.marginal().log_prob(x).mean() - found.marginal().log_prob(x).mean()
    assert 0 <= float(gap) < 0.02
    assert float(found.s2) == pytest.approx(0.5, rel=0.05)
    assert largest_angle(best.w, found.w) < 5


@pytest.mark.slow
@pytest.mark.parametrize("objective", [ELBO(particles=4, beta=3), BetaTC(4, alpha=4, gamma=4)], ids=repr)
def test_bound_that_is_not_tight_does_not(objective: Objective) -> None:
    x = data()
    gap = PPCA.fit(x, 2).marginal().log_prob(x) - PPCA.of(trained(objective, x)).marginal().log_prob(x)
    assert float(gap.mean()) > 0.04


@pytest.mark.parametrize("beta", [pytest.param(0.5, marks=pytest.mark.slow), 3.0])
def test_beta_acts_as_noise(beta: float) -> None:
    x, guide = data(), pv.MultivariateNormal(scale_tril="per_feature")  # which lets axes turn freely
    found = PPCA.of(trained(ELBO(estimator="stl", beta=beta), x, scale=math.sqrt(0.5), guide=guide))
    lengths = torch.linalg.svdvals(found.w)
    expected = [math.sqrt(max(value - beta * 0.5, 0)) for value in EIGENVALUES[:2]]
    assert lengths.tolist() == pytest.approx(expected, abs=0.05)


def rates(vae: pv.VAE, x: Tensor) -> Tensor:
    """KL per latent, in closed form."""
    objective = ELBO(kl="analytic")
    return objective.summary(objective.draw(vae.model, vae.guide, x=x))["kl_z"]


@pytest.mark.slow
def test_target_rate_is_met() -> None:
    """Unconstrained, the rate is half the log of both signal-to-noise ratios, 1.73 nats."""
    x = data()
    free = float(rates(trained(ELBO(particles=4), x), x).sum())
    assert free == pytest.approx(0.5 * (math.log(8) + math.log(4)), abs=0.05)
    for objective in (
        ELBO(particles=4, kl="analytic", beta=GECO(rate=1.0, speed=0.01)),
        Capacity(1.0, gamma=20, particles=4, kl="analytic"),
        Capacity(Linear(0, 1, 100), gamma=20, particles=4),
    ):
        assert float(rates(trained(objective, x, steps=800), x).sum()) == pytest.approx(1.0, abs=0.05), objective


@pytest.mark.slow
def test_target_distortion_is_met() -> None:
    x = data()
    vae = trained(ELBO(particles=4, beta=GECO(distortion=5.2, speed=0.01)), x, scale=1.0, steps=800)
    objective = ELBO(particles=1000)
    distortion = -objective.draw(vae.model, vae.guide, x=x).log_likelihood.mean()
    assert float(distortion.detach()) == pytest.approx(5.2, abs=0.05)


@pytest.mark.slow
def test_free_bits_keep_a_latent_that_the_elbo_would_drop() -> None:
    """With noise 3 the second axis, of variance 2, is not worth its KL."""
    x = data()
    dropped = rates(trained(ELBO(particles=4, kl="analytic"), x, scale=math.sqrt(3)), x)
    kept = rates(trained(ELBO(particles=4, kl="analytic", free_bits=0.2), x, scale=math.sqrt(3)), x)
    together = rates(trained(ELBO(particles=4, kl="analytic", free_bits=0.4, groups=1), x, scale=math.sqrt(3)), x)
    assert float(dropped.min()) < 0.01
    assert float(dropped.max()) == pytest.approx(0.5 * math.log(4 / 3), abs=0.03)
    assert float(kept.min()) == pytest.approx(0.2, abs=0.03)
    assert float(together.sum()) == pytest.approx(0.4, abs=0.03)
