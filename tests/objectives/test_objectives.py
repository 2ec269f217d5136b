"""The ELBO against Pyro's own estimators, against closed forms, and against programs of every shape."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.programs import (
    CHOSEN,
    PAIRS,
    PROGRAMS,
    PYRO,
    Auxiliary,
    Masked,
    Plain,
    PlateOfSome,
    Scaled,
    Subsampled,
    Toy,
    TwoPlates,
    loss_and_gradient,
    normal,
    pyro_elbo,
    vae_of,
)
from pyro.infer import SVI
from torch import Tensor

import pyro_vae as pv
from pyro_vae.objectives import ELBO

ESTIMATORS = [(name, kl) for name, (*_, closed) in PAIRS.items() for kl in PYRO if closed or kl == "sampled"]


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize(("pair", "kl"), ESTIMATORS, ids=[f"{name}, {kl}" for name, kl in ESTIMATORS])
def test_value_and_gradient_equal_pyros(pair: str, kl: str, particles: int) -> None:
    prior, guide, _ = PAIRS[pair]
    vae, x = vae_of(prior, guide).double(), torch.randn(6, 3).double()
    ours, our_gradient = loss_and_gradient(ELBO(particles=particles, kl=kl), vae, x)
    theirs, their_gradient = loss_and_gradient(pyro_elbo(kl, particles), vae, x)
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert all(gradient.abs().max() > 0 for gradient in our_gradient.values())
    for name, gradient in our_gradient.items():
        torch.testing.assert_close(gradient, their_gradient[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("pair", [name for name, (*_, closed) in PAIRS.items() if not closed])
def test_analytic_kl_is_refused_without_a_closed_form(pair: str) -> None:
    prior, guide, _ = PAIRS[pair]
    vae = vae_of(prior, guide)
    with pytest.raises(pv.InputError, match=r"no closed form of the KL from \w+ to \w+ at site 'z': take kl='sampled'"):
        ELBO(kl="analytic").loss(vae.model, vae.guide, torch.randn(6, 3))
    with pytest.raises(pv.InputError, match="no closed form"):
        pv.fit(vae, torch.randn(6, 3), objective=ELBO(kl="analytic"), progress=False)


def test_svi_takes_an_objective_and_reaches_the_weights_of_pyros() -> None:
    x, paths = torch.randn(8, 3).double(), []
    for loss in (ELBO(), pyro_elbo("sampled", 1)):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        vae = vae_of(pv.Normal(0, 1), pv.Normal()).double()
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), loss=loss)
        paths.append([*(svi.step(x) for _ in range(20)), svi.evaluate_loss(x)])
    assert paths[0] == pytest.approx(paths[1], rel=1e-9)
    assert paths[0][-1] < paths[0][0]


@pytest.mark.parametrize("name", CHOSEN)
def test_objective_called_with_the_programs_is_a_module_of_its_loss(name: str) -> None:
    vae, x, objective = vae_of(pv.Normal(0, 1), pv.Normal()), torch.randn(6, 3), CHOSEN[name]
    pyro.set_rng_seed(1)
    loss = objective(vae.model, vae.guide)(x)
    loss.backward()
    pyro.set_rng_seed(1)
    assert float(loss.detach()) == objective.loss(vae.model, vae.guide, x)
    assert all(weight.grad is not None for weight in vae.parameters())


# What the bound is made of


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("kl", PYRO)
def test_parts_add_up(kl: str, particles: int) -> None:
    vae, x = vae_of(pv.Normal(), pv.Normal()).double(), torch.randn(6, 3).double()
    objective = ELBO(particles=particles, kl=kl)
    drawn = objective.draw(vae.model, vae.guide, x)
    parts = objective.summary(drawn)
    assert list(parts) == ["log_likelihood", "kl", "kl_z"]
    assert not any(part.requires_grad for part in parts.values())
    torch.testing.assert_close(parts["log_likelihood"] - parts["kl"], objective.bound(drawn).mean())
    torch.testing.assert_close(parts["kl_z"].sum(), parts["kl"])
    assert parts["kl_z"].shape == (2,)
    assert drawn.log_weights.shape == drawn.log_likelihood.shape == (particles, 6)


def test_analytic_kl_per_latent_is_the_textbooks() -> None:
    vae, x = vae_of(pv.Normal(0, 1), pv.Normal()).double(), torch.randn(6, 3).double()
    objective = ELBO(particles=3, kl="analytic")
    q = vae.encode(x).base_dist
    textbook = (q.loc**2 + q.scale**2 - 1 - 2 * q.scale.log()) / 2
    torch.testing.assert_close(
        objective.summary(objective.draw(vae.model, vae.guide, x))["kl_z"], textbook.mean(0).detach()
    )


@pytest.mark.parametrize(
    ("prior", "guide"), [(pv.Normal(0, 1), pv.MultivariateNormal()), (pv.MultivariateNormal(), pv.Normal())]
)
def test_kl_that_does_not_split_over_latents_is_not_split(prior: pv.families.Family, guide: pv.families.Family) -> None:
    vae, x, objective = vae_of(prior, guide), torch.randn(6, 3), ELBO()
    assert list(objective.summary(objective.draw(vae.model, vae.guide, x))) == ["log_likelihood", "kl"]


# Programs that are no VAE


@pytest.mark.parametrize("kl", PYRO)
@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_value_of_own_programs_equals_pyros(program: type, particles: int, kl: str) -> None:
    pair, x, losses = program(), torch.randn(6, 3), []
    if program is Auxiliary and kl == "analytic":
        with pytest.raises(pv.InputError, match="site 'shift' of the guide is auxiliary"):
            ELBO(particles=particles, kl=kl).loss(pair.model, pair.guide, x)
        return
    for elbo in (ELBO(particles=particles, kl=kl), pyro_elbo(kl, particles, pair.nesting)):
        pyro.set_rng_seed(1)
        losses.append(elbo.loss(pair.model, pair.guide, x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("kl", PYRO)
@pytest.mark.parametrize("program", [Plain, Scaled, Masked, Subsampled, TwoPlates, PlateOfSome])
def test_kl_per_latent_counts_scales_masks_and_plates(program: type, kl: str) -> None:
    pair, objective = program(), ELBO(particles=3, kl=kl)
    parts = objective.summary(objective.draw(pair.model, pair.guide, torch.randn(6, 3)))
    assert parts["kl_z"].shape == (3,)
    torch.testing.assert_close(parts["kl_z"].sum(), parts["kl"])


def test_programs_of_one_object_may_have_different_plates() -> None:
    class Both:
        one_model, one_guide = Plain.model, Plain.guide
        two_model, two_guide = TwoPlates.model, TwoPlates.guide

    pair, x, elbo = Both(), torch.randn(6, 3), ELBO(particles=3)
    for model, guide, nesting in ((pair.one_model, pair.one_guide, 1), (pair.two_model, pair.two_guide, 2)):
        pyro.set_rng_seed(1)
        loss = elbo.loss(model, guide, x)
        pyro.set_rng_seed(1)
        assert loss == pytest.approx(pyro_elbo("sampled", 3, nesting).loss(model, guide, x), rel=1e-5)


# Programs that do not fit each other


def only_z(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", normal(0.0))


def draws_x(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", normal(0.0))
        pyro.sample("x", normal(0.0))


def draws_more(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", normal(0.0))
        pyro.sample("extra", normal(0.0))


def binary_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1))
        pyro.sample("x", normal(z), obs=x)


def binary_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1))


@pytest.mark.parametrize(
    ("model", "guide", "sentence"),
    [
        (Plain().model, lambda x: None, "the model has a latent site 'z' that the guide does not draw"),
        (Plain().model, draws_more, "the guide draws a site 'extra' that the model does not have"),
        (Plain().model, draws_x, "the guide draws 'x', which the model observes"),
        (only_z, only_z, "the model observes nothing"),
        (binary_model, binary_guide, "at 'z', Bernoulli, cannot be reparameterised"),
        (lambda x: None, lambda x: None, "the model observes nothing"),
    ],
    ids=["missing in the guide", "unknown to the model", "observed", "no data", "binary guide", "no sites"],
)
def test_programs_that_do_not_match_are_refused(model: Callable, guide: Callable, sentence: str) -> None:
    with pytest.raises(pv.InputError, match=sentence):
        ELBO().loss(model, guide, torch.randn(6, 3))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"particles": 0}, "at least 1"),
        ({"particles": 2.5}, "integer"),
        ({"kl": "exact"}, "unknown value of ELBO.kl"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(pv.InputError, match=sentence):
        ELBO(**arguments)


# The Gaussian toy of REFERENCE.md: z ~ N(mu, I_20), x|z ~ N(z, I), q = N((x + mu)/2, 2/3 I)


class TwoPoints(dist.Normal):
    """Draws loc + scale and loc - scale by turns: they integrate every parabola exactly."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        signs = 1.0 - 2.0 * (torch.arange(self.batch_shape[0], dtype=self.loc.dtype) % 2)
        return self.loc + self.scale * signs[:, None, None]


GAP = 0.456513


@pytest.mark.parametrize("kl", PYRO)
def test_gap_of_the_gaussian_toy_is_exact(kl: str) -> None:
    toy, x = Toy(torch.randn(20).double(), TwoPoints), torch.randn(4, 20).double()
    objective = ELBO(particles=2, kl=kl)
    bound = objective.bound(objective.draw(toy.model, toy.guide, x))
    torch.testing.assert_close(toy.gaps(bound, x), torch.full((4,), GAP).double(), rtol=0, atol=5e-7)


@pytest.mark.parametrize("kl", PYRO)
def test_gap_of_the_gaussian_toy_is_met_by_monte_carlo(kl: str) -> None:
    toy, x = Toy(torch.randn(20).double()), torch.randn(20, 20).double()
    objective = ELBO(particles=1000, kl=kl)
    estimates = toy.gaps(objective.bound(objective.draw(toy.model, toy.guide, x)), x)
    error = float(estimates.std()) / math.sqrt(len(estimates))
    assert float(estimates.mean()) == pytest.approx(GAP, abs=4 * error)
    assert error < 0.05


# Nothing waits for the device


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize(("pair", "kl"), ESTIMATORS, ids=[f"{name}, {kl}" for name, kl in ESTIMATORS])
def test_hot_path_waits_for_nothing(pair: str, kl: str, particles: int, no_sync: None) -> None:
    prior, guide, _ = PAIRS[pair]
    vae, x, objective = vae_of(prior, guide), torch.randn(6, 3), ELBO(particles=particles, kl=kl)
    loss = objective.differentiable_loss(vae.model, vae.guide, x)
    loss.backward()
    objective.summary(objective.draw(vae.model, vae.guide, x))
    with pytest.raises(AssertionError, match="waited"):
        float(loss)
