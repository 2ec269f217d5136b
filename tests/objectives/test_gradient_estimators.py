"""Estimators of gradients: without bias by exact integration, without noise where theory says so."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.cases import FAMILIES, over_families
from helpers.oracles import PPCA, linear
from helpers.programs import ESTIMATED, PAIRS, PROGRAMS, loss_and_gradient, vae_of
from torch import Tensor

import pyro_vae as pv
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.site import SiteSpec
from pyro_vae.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, Objective, Renyi

APART = ("stl", "dreg")
CHOICES = [ESTIMATED[name](estimator=estimator) for name in ESTIMATED for estimator in ("plain", *APART)]
over_choices = pytest.mark.parametrize("objective", CHOICES, ids=lambda o: f"{type(o).__name__}-{o.estimator}")


def made_of(noise: Tensor) -> type[dist.Normal]:
    """A Gaussian whose draws are made of given noise, (K, N)."""

    class Given(dist.Normal):
        def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
            return self.loc + self.scale * noise

    return Given


X, SLOPE, LOC, SCALE = 0.8, 0.8, -0.2, 0.9


@dataclass
class PerRow:
    """z ~ N(0, 1), x | z ~ N(b z, 1), q = N(m, s), every parameter with a copy per row: a gradient for each row."""

    slope: Tensor
    loc: Tensor
    log_scale: Tensor
    normal: type[dist.Normal] = dist.Normal

    @classmethod
    def of(cls, rows: int, normal: type[dist.Normal] = dist.Normal) -> "PerRow":
        values = (
            torch.full((rows,), v, dtype=torch.float64, requires_grad=True) for v in (SLOPE, LOC, math.log(SCALE))
        )
        return cls(*values, normal)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(self.slope * z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.normal(self.loc, self.log_scale.exp()))

    def gradients(self, objective: Objective) -> Tensor:
        """Of slope, location and log scale, (3, rows)."""
        x = torch.full_like(self.loc, X).detach()
        bound = objective.bound(objective.draw(self.model, self.guide, x))
        return torch.stack(torch.autograd.grad(bound.sum(), (self.slope, self.loc, self.log_scale)))


def integrated(objective: Objective, order: int) -> Tensor:
    """The expectation of a gradient over the noise of all particles, (3,), by Gauss and Hermite's rule."""
    nodes, weights = (torch.tensor(a) for a in np.polynomial.hermite_e.hermegauss(order))
    k = objective.particles
    noise = torch.cartesian_prod(*[nodes] * k).reshape(-1, k).T
    mass = torch.cartesian_prod(*[weights / weights.sum()] * k).reshape(-1, k).prod(1)
    return PerRow.of(len(mass), made_of(noise)).gradients(objective) @ mass


INTEGRATED = {
    "ELBO": ({"particles": 2}, 20),
    "IWAE": ({"particles": 3}, 24),
    "Renyi": ({"particles": 3, "alpha": 0.4}, 24),
    "MIWAE": ({"particles": 4, "groups": 2}, 14),
    "PIWAE": ({"particles": 4, "groups": 2}, 14),
    "CIWAE": ({"particles": 3, "beta": 0.3}, 24),
}


@pytest.mark.parametrize("name", ESTIMATED)
def test_expected_gradient_is_exactly_that_of_the_plain_estimator(name: str) -> None:
    arguments, order = INTEGRATED[name]
    plain, stl, dreg = (integrated(ESTIMATED[name](**arguments, estimator=e), order) for e in ("plain", *APART))
    print(f"{name}: plain {plain.tolist()}, bias of stl {(stl - plain).tolist()}, of dreg {(dreg - plain).tolist()}")
    torch.testing.assert_close(dreg, plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(stl[0], plain[0], rtol=0, atol=1e-10)  # the model's
    if name == "ELBO":
        torch.testing.assert_close(stl, plain, rtol=0, atol=1e-10)
        x, b, m, s = X, SLOPE, LOC, SCALE  # of E_q[log p(x, z)] + H(q), in closed form
        exact = [(x - b * m) * m - b * s**2, (x - b * m) * b - m, 1 - s**2 * (1 + b**2)]
        torch.testing.assert_close(plain, torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-10)
    else:
        assert float((stl - plain)[1:].abs().min()) > 1e-3  # as their docstrings say


@pytest.mark.parametrize("name", ESTIMATED)
def test_gradient_of_drawn_particles_agrees_with_the_integral(name: str) -> None:
    arguments, order = INTEGRATED[name]
    exact = integrated(ESTIMATED[name](**arguments), order)
    for estimator in ("plain", "dreg"):
        found = PerRow.of(10000).gradients(ESTIMATED[name](**arguments, estimator=estimator))
        errors = found.std(1) / math.sqrt(found.shape[1])
        assert bool(((found.mean(1) - exact).abs() < 5 * errors).all())
        assert float(errors.max()) < 0.03


def test_signal_to_noise_falls_plain_and_rises_doubly_reparameterised() -> None:
    ratios: dict[str, list[float]] = {"plain": [], "dreg": []}
    sizes = (8, 32, 128)
    for k in sizes:
        noise = {}
        for estimator in ratios:
            found = PerRow.of(4000).gradients(IWAE(k, estimator))[1]
            noise[estimator] = float(found.std())
        signal = abs(float(found.mean()))  # DReG's, for both have one mean, and this is the clear one
        for estimator in ratios:
            ratios[estimator].append(signal / noise[estimator])
        if k >= 32:
            assert noise["dreg"] < noise["plain"] / 2
    slopes = {name: float(np.polyfit(np.log(sizes), np.log(values), 1)[0]) for name, values in ratios.items()}
    print(slopes)
    assert slopes["plain"] == pytest.approx(-0.5, abs=0.15)
    assert slopes["dreg"] == pytest.approx(0.5, abs=0.15)


def test_at_50_particles_dreg_has_the_smaller_variance() -> None:
    plain, dreg = (PerRow.of(4000).gradients(IWAE(50, e)).var(1) for e in ("plain", "dreg"))
    assert bool((dreg[1:] < plain[1:] / 10).all())
    assert float(dreg[0]) == pytest.approx(float(plain[0]), rel=0.3)  # the model's gradient is the same


EXACT = {
    "full covariance": (pv.MultivariateNormal(), PPCA.random(6, 3)),
    "diagonal": (pv.Normal(), PPCA.random(6, 3).rotated()),
}


@pytest.mark.parametrize("name", EXACT)
@over_choices
def test_at_the_exact_posterior_a_path_carries_no_noise(objective: Objective, name: str) -> None:
    guide, model = EXACT[name]
    vae, x = model.put_into(linear(6, 3, guide)), torch.randn(7, 6, dtype=torch.float64)
    _, gradient = loss_and_gradient(objective, vae, x)
    largest = max(float(g.abs().max()) for name, g in gradient.items() if name.startswith("posterior"))
    if objective.estimator == "plain":
        assert largest > 0.1
    else:
        assert largest < 1e-10
    assert all(float(g.abs().max()) > 0.1 for name, g in gradient.items() if name.startswith("likelihood"))


class TwoLevels:
    """top -> z -> x, and its exact posterior, z | x and top | z, with parameters for each."""

    def __init__(self) -> None:
        values = (2 / 3, math.sqrt(2 / 3), 1 / 2, math.sqrt(1 / 2))
        self.weights = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(pyro.sample("top", dist.Normal(torch.zeros_like(x), 1.0)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        a, s, b, t = self.weights
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(a * x, s))
            pyro.sample("top", dist.Normal(b * z, t))


@over_choices
def test_gradient_is_zero_where_one_latent_of_the_guide_depends_on_another(objective: Objective) -> None:
    pair, x = TwoLevels(), torch.randn(7, dtype=torch.float64)
    objective.loss_and_grads(pair.model, pair.guide, x)
    largest = max(float(weight.grad.abs()) for weight in pair.weights)
    assert largest < 1e-10 if objective.estimator != "plain" else largest > 0.1


# The same estimators written by hand


@pytest.mark.parametrize("objective", [ELBO(3, estimator="stl"), IWAE(5, "dreg"), IWAE(5, "stl")], ids=repr)
def test_gradient_equals_detached_parameters_with_a_scaled_gradient(objective: Objective) -> None:
    vae, x = vae_of(pv.Normal(), pv.Normal()).double(), torch.randn(6, 3).double()
    loss, gradient = loss_and_gradient(objective, vae, x)
    vae.zero_grad()
    pyro.set_rng_seed(1)
    drawn = objective.draw(vae.model, vae.guide, x).latents["z"].value.detach()
    q = vae.posterior(x).base_dist
    z = q.loc + q.scale * ((drawn - q.loc) / q.scale).detach()
    log_q = dist.Normal(q.loc.detach(), q.scale.detach()).to_event(1).log_prob(z)
    weights = vae.prior().log_prob(z) + vae.likelihood(z).log_prob(x) - log_q
    share = torch.softmax(weights.detach(), 0)
    bound = weights.mean(0) if isinstance(objective, ELBO) else weights.logsumexp(0) - math.log(5)
    if objective.estimator == "dreg":
        z.register_hook(lambda slope: share[..., None] * slope)
    (-bound.sum()).backward()
    assert loss == pytest.approx(-float(bound.detach().sum()), rel=1e-12)
    expected = {name: weight.grad for name, weight in vae.named_parameters()}
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


class OfFamily:
    """A guide of one family, and a model that any of its draws may be put into."""

    event = (3,)

    def __init__(self, family: pv.families.Family) -> None:
        self.q = Conditional(
            family, SiteSpec("guide", self.event, (4,), pv.MLP(hidden=(5,), activation="tanh"))
        ).double()

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.event).to(x), 3.0, validate_args=False).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True) * torch.ones_like(x), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q(x))

    def gradient(self, objective: Objective, x: Tensor) -> dict[str, Tensor]:
        self.q.zero_grad()
        pyro.set_rng_seed(1)
        objective.loss_and_grads(self.model, self.guide, x)
        return {n: torch.zeros_like(w) if w.grad is None else w.grad.clone() for n, w in self.q.named_parameters()}


@over_families("guide")
def test_sticking_the_landing_omits_only_the_score_for_every_family(name: str) -> None:
    pair, x, k = OfFamily(FAMILIES[name].family), torch.randn(5, 4).double(), 3
    plain, stl = (pair.gradient(ELBO(k, estimator=e), x) for e in ("plain", "stl"))
    pyro.set_rng_seed(1)
    z = ELBO(k).draw(pair.model, pair.guide, x).latents["z"].value.detach()
    pair.q.zero_grad()
    (pair.q(x).expand((k, 5)).log_prob(z).sum() / k).backward()
    for key, weight in pair.q.named_parameters():
        score = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(plain[key] - stl[key], score, rtol=1e-6, atol=1e-8, msg=key)
    assert any(float(g.abs().max()) > 1e-8 for g in stl.values())


# Programs of every shape, and what must not change


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_value_is_the_same_for_programs_of_every_shape(program: type) -> None:
    pair, x = program(), torch.randn(6, 3)
    for particles in (1, 4):
        for made in (IWAE, Renyi):
            losses = []
            for estimator in ("plain", *APART):
                pyro.set_rng_seed(1)
                objective: Any = made(particles=particles, estimator=estimator)
                losses.append(objective.loss(pair.model, pair.guide, x))
            assert losses[1:] == pytest.approx(2 * losses[:1], rel=1e-6)


def test_plate_more_is_summed_like_as_many_more_rows() -> None:
    x, weight = torch.randn(2, 6, 3, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def plates(rows: Tensor) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        for dim in range(1 - rows.ndim, 0):
            stack.enter_context(pyro.plate(f"plate{dim}", rows.shape[dim - 1], dim=dim))
        return stack

    def model(rows: Tensor) -> None:
        with plates(rows):
            z = pyro.sample("z", dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=rows)

    def guide(rows: Tensor) -> None:
        with plates(rows):
            pyro.sample("z", dist.Normal(weight * rows, weight.sqrt()).to_event(1))

    for particles in (1, 4):
        slopes = []
        for rows in (x, x.flatten(0, 1)):  # the same draws, for they are made in the same order
            pyro.set_rng_seed(1)
            loss = ELBO(particles, estimator="stl").differentiable_loss(model, guide, rows)
            slopes.append(torch.autograd.grad(loss, weight)[0])
        torch.testing.assert_close(slopes[0], slopes[1])
        assert float(slopes[0].abs()) > 0.1


@pytest.mark.parametrize("objective", [IWAE(4, "dreg"), ELBO(4, estimator="stl"), PIWAE(4, 2)], ids=repr)
def test_resting_encoder_or_decoder_stays_out_of_it(objective: Objective) -> None:
    vae, x = vae_of(pv.Normal(0, 1), pv.Normal()).double(), torch.randn(6, 3).double()
    _, whole = loss_and_gradient(objective, vae, x)
    vae.eval()  # or Pyro warns of what rests
    for resting in ("posterior", "likelihood"):
        getattr(vae, resting).requires_grad_(False)
        vae.zero_grad()
        pyro.set_rng_seed(1)
        objective.loss_and_grads(vae.model, vae.guide, x)
        for name, weight in vae.named_parameters():
            if name.startswith(resting):
                assert weight.grad is None
            else:
                torch.testing.assert_close(weight.grad, whole[name])
        vae.requires_grad_(True)


@over_choices
def test_hot_path_waits_for_nothing(objective: Objective, no_sync: Iterator[None]) -> None:
    prior, guide, _ = PAIRS["normal, correlated"]
    vae, x = vae_of(prior, guide), torch.randn(6, 3)
    loss = objective.differentiable_loss(vae.model, vae.guide, x)
    loss.backward()
    objective.summary(objective.draw(vae.model, vae.guide, x))
    with pytest.raises(AssertionError, match="waited"):
        float(loss)


def test_bound_is_a_function_of_its_record() -> None:
    vae, x = vae_of(pv.Normal(0, 1), pv.Normal()).double(), torch.randn(6, 3).double()
    objectives = [IWAE(4, "dreg"), MIWAE(4, 2, "stl"), PIWAE(4, 2), CIWAE(4, 0.3, "dreg")]
    drawn = objectives[0].draw(vae.model, vae.guide, x)
    weights = list(vae.parameters())
    alone = [torch.autograd.grad(o.bound(drawn).sum(), weights, retain_graph=True) for o in objectives]
    bounds = [o.bound(drawn).sum() for o in objectives]
    together = torch.autograd.grad(sum(bounds), weights)
    torch.testing.assert_close(together, tuple(sum(gradients) for gradients in zip(*alone, strict=True)))
