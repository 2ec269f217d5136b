"""The KL of the history is summed from its own terms: large log-likelihoods leave no rounding in it."""

import pytest
import torch
from helpers.fitting import fit
from torch.distributions import Normal, kl_divergence

import pyro_vae as pv
from pyro_vae.objectives import OBJECTIVES, Objective
from pyro_vae.training.loss import Loss

SCALES = (1.0, 0.01, 0.001)
ANALYTIC = [name for name, kind in OBJECTIVES.items() if "kl" in kind.__dataclass_fields__]


def large(scale: float) -> tuple[pv.VAE, torch.Tensor]:
    """A model of as many values as a CIFAR picture has, whose log-likelihood is of up to 1e10 nats."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 1, generator=generator) @ torch.randn(1, 3072, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = pv.VAE((3072,), 2, encoder=pv.MLP(hidden=(16,)), likelihood=pv.Normal(scale=scale))
    x = x + torch.randn(64, 3072, generator=generator)
    return vae.initialize(x), x


def exact(vae: pv.VAE, x: torch.Tensor) -> torch.Tensor:
    posterior = vae.encode(x)
    means, scales = posterior.mean.double(), posterior.stddev.double()
    return kl_divergence(Normal(means, scales), Normal(torch.zeros_like(means), 1.0)).sum(-1)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ANALYTIC)
def test_kl_in_closed_form_is_exact_at_every_size_of_the_likelihood(name: str, scale: float) -> None:
    vae, x = large(scale)
    objective: Objective = OBJECTIVES[name](kl="analytic")
    parts = Loss(vae, objective).parts({"x": x})
    torch.testing.assert_close(parts["kl"].double(), exact(vae, x).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts["kl"], parts["kl_z"].sum(), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        _, logged = Loss(vae, objective)({"x": x})
    torch.testing.assert_close(logged["kl"].double(), exact(vae, x).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_sampled_kl_is_the_sum_of_its_latents(name: str, scale: float) -> None:
    vae, x = large(scale)
    parts = Loss(vae, OBJECTIVES[name](), rows=64).parts({"x": x})
    torch.testing.assert_close(parts["kl"], parts["kl_z"].sum(), rtol=1e-4, atol=1e-5)


def test_capacity_holds_the_exact_kl() -> None:
    vae, x = large(0.001)
    objective = pv.objectives.Capacity(capacity=0.0, gamma=1e9, kl="analytic")
    with torch.no_grad():
        particles = objective.draw(vae.model, vae.guide, x)
        held = (particles.log_likelihood.mean(0) - objective.bound(particles)).double().mean() / 1e9
    torch.testing.assert_close(held, exact(vae, x).mean(), rtol=1e-3, atol=1e-4)


def test_callback_on_the_kl_acts_on_the_kl() -> None:
    x = torch.poisson(torch.full((128, 3), 1e7), generator=torch.Generator().manual_seed(0))
    vae = pv.VAE((3,), 2, encoder=pv.MLP(hidden=(16,)), likelihood=pv.Poisson())
    history = fit(vae, x, epochs=2, validation=x, objective=pv.objectives.ELBO(kl="analytic"))
    assert history.last["validation_kl"] == pytest.approx(float(exact(vae, x).mean()), rel=1e-4)
    sampled = fit(vae, x, epochs=1, optimizer=pv.Adam(1e-12), callbacks=[lambda at: at.record["kl"] < 1e-9])
    assert not sampled.stopped
