"""Bounds of many particles against Pyro's, against each other, and against exact evidence."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.oracles import PPCA, linear
from helpers.programs import ESTIMATED, PAIRS, PROGRAMS, Toy, TwoPlates, loss_and_gradient, vae_of
from pyro.infer import RenyiELBO
from torch import Tensor

import pyro_vae as pv
from pyro_vae.objectives import CIWAE, ELBO, IWAE, MIWAE, OBJECTIVES, PIWAE, Objective, Renyi
from pyro_vae.objectives.importance import ImportanceObjective

ALPHAS = (-1.0, 0.0, 0.5, 0.95, 2.0)
# Every objective, and every estimator with some of them: tests/test_gradient_estimators.py asks all of all.
CHOICES = [ESTIMATED[name](estimator=e) for name, e in zip(ESTIMATED, 2 * ["stl", "dreg", "plain"], strict=False)]
over_choices = pytest.mark.parametrize("objective", CHOICES, ids=lambda o: f"{type(o).__name__}-{o.estimator}")


def pyro_renyi(alpha: float, particles: int, nesting: int = 1) -> RenyiELBO:
    return RenyiELBO(alpha=alpha, num_particles=particles, vectorize_particles=True, max_plate_nesting=nesting)


# Pyro has the same bounds, without other estimators


@pytest.mark.parametrize("pair", ["normal, normal", "normal, correlated", "student, normal", "laplace, laplace"])
def test_value_and_gradient_equal_pyros(pair: str) -> None:
    prior, guide, _ = PAIRS[pair]
    vae, x = vae_of(prior, guide).double(), torch.randn(6, 3).double()
    for alpha, particles in [(alpha, k) for alpha in ALPHAS for k in (2, 5)]:
        theirs, their_gradient = loss_and_gradient(pyro_renyi(alpha, particles), vae, x)
        for ours in (Renyi(alpha, particles), *([IWAE(particles)] if alpha == 0 else [])):
            loss, gradient = loss_and_gradient(ours, vae, x)
            assert loss == pytest.approx(theirs, rel=1e-10)
            assert all(g.abs().max() > 0 for g in gradient.values())
            torch.testing.assert_close(gradient, their_gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p is not TwoPlates], ids=lambda p: p.__name__)
def test_value_of_own_programs_equals_pyros(program: type) -> None:
    """But for two latents a row, that Pyro weighs one by one and we by the row."""
    pair, x, losses = program(), torch.randn(6, 3), []
    for elbo in (Renyi(0.3, 4), pyro_renyi(0.3, 4, pair.nesting)):
        pyro.set_rng_seed(1)
        losses.append(elbo.loss(pair.model, pair.guide, x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# The bounds are one another's special cases


@pytest.mark.parametrize("estimator", ["plain", "stl", "dreg"])
def test_special_cases_agree_in_value_and_gradient(estimator: str) -> None:
    vae, x = vae_of(pv.Normal(), pv.MultivariateNormal()).double(), torch.randn(6, 3).double()
    made: dict[str, Any] = {"particles": 4, "estimator": estimator}
    elbo, iwae = ELBO(**made), IWAE(**made)
    cases = [
        (Renyi(1, **made), elbo, 1e-12),
        (Renyi(0, **made), iwae, 1e-12),
        *((Renyi(1 + step, **made), elbo, 100 * abs(step)) for step in (1e-5, -1e-5, 1e-13)),
        (MIWAE(groups=4, **made), elbo, 1e-12),
        (MIWAE(groups=1, **made), iwae, 1e-12),
        (PIWAE(groups=1, **made), iwae, 1e-12),
        (CIWAE(beta=1, **made), elbo, 1e-12),
        (CIWAE(beta=0, **made), iwae, 1e-12),
        (IWAE(1, estimator), ELBO(1, estimator=estimator), 1e-12),
    ]
    for one, other, tolerance in cases:
        (loss, gradient), (expected, expected_gradient) = (loss_and_gradient(o, vae, x) for o in (one, other))
        assert loss == pytest.approx(expected, rel=tolerance), one
        torch.testing.assert_close(gradient, expected_gradient, rtol=tolerance, atol=tolerance, msg=str(one))


def test_model_of_piwae_is_trained_by_iwae_and_its_guide_by_miwae() -> None:
    vae, x = vae_of(pv.Normal(), pv.Normal()).double(), torch.randn(6, 3).double()
    for estimator in ("plain", "stl", "dreg"):
        piwae, iwae, miwae = (
            loss_and_gradient(o, vae, x) for o in (PIWAE(6, 3, estimator), IWAE(6, estimator), MIWAE(6, 3, estimator))
        )
        assert piwae[0] == pytest.approx(iwae[0], rel=1e-12)
        for name, gradient in piwae[1].items():
            source, wrong = (miwae, iwae) if name.startswith("posterior") else (iwae, miwae)
            torch.testing.assert_close(gradient, source[1][name], rtol=1e-10, atol=1e-12)
            assert not torch.allclose(gradient, wrong[1][name], rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [-30.0, 0.0, 0.5, 0.91, 0.999, 1 - 1e-6, 1.0, 1 + 1e-6, 1.05, 30.0])
def test_log_weights_of_any_size_give_a_finite_bound_and_gradient(alpha: float, dtype: torch.dtype) -> None:
    weights = torch.tensor([[-1e4, 0.0], [3e4, -1e-3], [2e4, 2e-3]], dtype=dtype, requires_grad=True)
    found = Renyi(alpha, 3).combine(weights)
    (gradient,) = torch.autograd.grad(found.bound.sum(), weights)
    assert bool(found.bound.isfinite().all())
    torch.testing.assert_close(gradient.sum(0), torch.ones(2, dtype=dtype))
    torch.testing.assert_close(gradient, found.first, rtol=1e-3, atol=1e-6)
    powers = (1 - alpha) * weights.detach().double()
    if abs(1 - alpha) > 1e-5:
        expected = (torch.logsumexp(powers, 0) - math.log(3)) / (1 - alpha)
        torch.testing.assert_close(found.bound.double(), expected, rtol=1e-6, atol=1e-5 if dtype.itemsize < 8 else 1e-8)


def test_bound_knows_its_derivatives() -> None:
    weights = torch.randn(4, 3, dtype=torch.float64)
    for objective in OBJECTIVES.values():
        if not issubclass(objective, ImportanceObjective):
            continue
        combine = objective(particles=4).combine
        for row in weights.T:
            first = torch.autograd.functional.jacobian(lambda w, combine=combine: combine(w[:, None]).bound, row)
            second = torch.autograd.functional.hessian(lambda w, combine=combine: combine(w[:, None]).bound, row)
            found = combine(row[:, None])
            torch.testing.assert_close(found.first[:, 0], first[0])
            torch.testing.assert_close(found.second[:, 0], second.diagonal())


# Exact evidence


def test_bound_rises_with_its_particles_to_the_evidence() -> None:
    """On probabilistic PCA, whose posterior is correlated, with a diagonal guide too wide and off its mean."""
    model = PPCA.random(4, 2, s2=1.0, seed=3)
    vae = linear(4, 2, pv.Normal(scale=1.5)).double()
    exact = model.put_into(linear(4, 2))
    vae.likelihood.load_state_dict(exact.likelihood.state_dict())
    with torch.no_grad():
        vae.posterior.network.heads["loc"].weight.copy_(0.9 * exact.posterior.network.heads["loc"].weight)
        vae.posterior.network.heads["loc"].bias.copy_(exact.posterior.network.heads["loc"].bias)
    x = model.marginal().sample((2,)).repeat_interleave(1000, 0)
    evidence = model.marginal().log_prob(x)
    with torch.no_grad():
        drawn = IWAE(256).draw(vae.model, vae.guide, x)
        gaps = {k: evidence - MIWAE(256, 256 // k).bound(drawn) for k in (1, 4, 16, 64, 256)}
    means = {k: (float(gap.mean()), float(gap.std()) / math.sqrt(len(gap))) for k, gap in gaps.items()}
    print({k: f"{mean:.4f} +- {error:.4f}" for k, (mean, error) in means.items()})
    for tight, loose in zip(list(gaps.values())[1:], list(gaps.values())[:-1], strict=True):
        assert bool((tight < loose).all())  # of the same draws a mean of logarithms is the lower one, row by row
    assert all(mean > -4 * error for mean, error in means.values())
    assert means[1][0] > 1
    assert means[256][0] < 0.02


@pytest.mark.parametrize(
    ("objective", "gap", "rows"),
    [(IWAE(5), 0.087, 20000), (IWAE(50), 0.009, 6000), (Renyi(0.5, 4000), 0.206193, 60)],
    ids=repr,
)
def test_gaps_of_the_gaussian_toy_are_those_of_the_reference(objective: Objective, gap: float, rows: int) -> None:
    toy, x = Toy(torch.randn(20).double()), torch.randn(1, 20).double()
    with torch.no_grad():
        x = x.expand(rows, 20)
        found = toy.gaps(objective.bound(objective.draw(toy.model, toy.guide, x)), x)
    error = float(found.std()) / math.sqrt(rows)
    print(f"{objective}: {found.mean():.5f} +- {error:.5f}")
    assert error < 0.004
    assert float(found.mean()) == pytest.approx(gap, abs=0.002 + 3 * error)  # of the reference, simulated too


@pytest.mark.parametrize("particles", [1, 3])
@over_choices
def test_parts_are_those_of_the_elbo_at_the_same_draws(objective: Objective, particles: int) -> None:
    vae, x = vae_of(pv.Normal(), pv.Normal()).double(), torch.randn(6, 3).double()
    made = type(objective)(particles=particles, estimator=objective.estimator, **_one_group(objective))
    found = []
    for each in (made, ELBO(particles)):
        pyro.set_rng_seed(1)
        drawn = each.draw(vae.model, vae.guide, x)
        found.append(each.summary(drawn))
        assert each.bound(drawn).shape == (6,)
    torch.testing.assert_close(found[0], found[1])


def _one_group(objective: Objective) -> dict[str, int]:
    return {"groups": 1} if hasattr(objective, "groups") else {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((MIWAE, {"particles": 6, "groups": 4}), r"MIWAE.groups = 4 does not divide .* write, for example, MIWAE\("),
        ((PIWAE, {"particles": 6, "groups": 4}), "PIWAE.groups = 4 does not divide"),
        ((CIWAE, {"beta": 1.2}), r"CIWAE.beta = 1.2 has to be in \[0, 1\]"),
        ((Renyi, {"alpha": math.inf}), "a finite number"),
        ((IWAE, {"estimator": "score"}), "unknown value of IWAE.estimator"),
        ((ELBO, {"kl": "analytic", "estimator": "stl"}), "leave one of the two out"),
    ],
    ids=repr,
)
def test_wrong_options_are_refused(arguments: tuple[type[Objective], dict[str, Any]], sentence: str) -> None:
    with pytest.raises(pv.InputError, match=sentence):
        arguments[0](**arguments[1])


def test_density_of_its_own_draws_only_has_no_other_estimator() -> None:
    planar = dist.transforms.planar(2)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [planar]))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    assert math.isfinite(IWAE(3).loss(model, guide, torch.randn(4, 2)))
    with pytest.raises(pv.InputError, match=r"at 'z', .* own draws only.* take estimator='plain'"):
        IWAE(3, "dreg").loss(model, guide, torch.randn(4, 2))
