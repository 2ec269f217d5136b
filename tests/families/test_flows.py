"""Flows: each kind is a density, drawn and scored by one map, with the gradient of its draws."""

import subprocess
import sys

import pytest
import torch
from helpers import cases
from torch import Tensor

import pyro_vae as pv
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.flow import KINDS
from pyro_vae.families.site import SiteSpec

SLOW = {"unaf", "cnf"}
"""Kinds that integrate or solve an equation for each value."""


def flow(kind: str) -> pv.Flow:
    return pv.Flow(kind, 1 if kind in SLOW else 2, (6,), 3)


def flow_in(role: str, kind: str, dtype: torch.dtype) -> Conditional:
    with cases.default_dtype(dtype):
        torch.manual_seed(0)
        context = (3,) if role == "guide" else None
        return Conditional(flow(kind), SiteSpec(role, (2,), context, pv.MLP(hidden=(4,))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("role", ["prior", "guide"])
@pytest.mark.parametrize("kind", KINDS)
def test_flow_is_a_density_whose_draws_are_its_own(kind: str, role: str, dtype: torch.dtype) -> None:
    conditional = flow_in(role, kind, dtype)
    context = torch.randn(2, 4, 3, dtype=dtype) if role == "guide" else None
    batch = (2, 4) if role == "guide" else ()
    distribution = conditional(context)
    draws = distribution.rsample((5,))
    assert (draws.shape, draws.dtype) == ((5, *batch, 2), dtype)
    cached = distribution.log_prob(draws)
    again = conditional(context).log_prob(draws.detach())
    assert cached.shape == again.shape == (5, *batch)
    torch.testing.assert_close(cached, again, rtol=0, atol=2e-3 if kind == "cnf" else 1e-4)  # an ODE solver's error
    (draws.square().sum() + cached.sum() + again.sum()).backward()
    for name, weight in conditional.named_parameters():
        assert weight.grad is not None, name
        assert bool(torch.isfinite(weight.grad).all()), name
    one = conditional(None if context is None else context[0, :1])
    with torch.no_grad():
        # a spline has kinks: the sum is as good as its step is small
        line = torch.linspace(-10, 10, 61 if kind in SLOW else 301, dtype=dtype)
        grid = torch.cartesian_prod(line, line)
        mass = float(one.log_prob(grid).exp().sum()) * float(line[1] - line[0]) ** 2
        far = one.log_prob(torch.tensor([[100.0, -100.0], [1e3, 1e3]], dtype=dtype))
    assert mass == pytest.approx(1, abs=3e-3)
    assert bool(torch.isfinite(far).all())


@pytest.mark.parametrize("kind", KINDS)
def test_flow_has_the_gradient_of_its_draws(kind: str) -> None:
    """The derivative along one direction of all weights, draws held by their seed, against a difference quotient."""
    conditional = flow_in("guide", kind, torch.float64)
    context = torch.randn(3, 3, dtype=torch.float64)
    direction = [torch.randn_like(weight) for weight in conditional.parameters()]

    def moved(step: float) -> Tensor:
        with torch.no_grad():
            for weight, way in zip(conditional.parameters(), direction, strict=True):
                weight.add_(step * way)
        torch.manual_seed(1)
        return conditional(context).rsample().pow(2).sum()

    grads = torch.autograd.grad(moved(0.0), list(conditional.parameters()))
    slope = float(sum((g * way).sum() for g, way in zip(grads, direction, strict=True)))
    step = 1e-3
    with torch.no_grad():
        quotient = float(moved(step) - moved(-2 * step)) / (2 * step)
    assert slope == pytest.approx(quotient, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_flow_prior_learns(kind: str) -> None:
    x = torch.randn(64, 2, generator=cases.seeded()) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]]) + 3
    vae = pv.VAE((2,), 2, prior=flow(kind), encoder=pv.MLP(hidden=(5,), activation="tanh"))
    history = pv.fit(vae, x, epochs=2, batch_size=16, progress=False, optimizer=pv.Adam(2e-2))
    assert history["loss"][-1] < history["loss"][0] - 0.05


@pytest.mark.parametrize("kind", ["realnvp", "nice"])
def test_coupling_scales_or_does_not(kind: str) -> None:
    conditional = flow_in("prior", kind, torch.float64)
    z = torch.randn(5, 2, dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(conditional.distribution.transform(), row) for row in z])
    volumes = torch.linalg.det(jacobian).abs()
    assert torch.allclose(volumes, torch.ones_like(volumes)) == (kind == "nice")


def test_location_and_scale_are_in_the_unit_of_the_data() -> None:
    with cases.in_float64():
        plain, moved = (
            Conditional(pv.Flow("maf", 1, (6,), loc=loc, scale=scale), SiteSpec("prior", (2,)))
            for loc, scale in ((0, 1), ((10, -10), (100, 0.1)))
        )
    moved.load_state_dict(plain.state_dict())
    torch.manual_seed(1)
    expected = torch.tensor([10, -10]) + torch.tensor([100.0, 0.1], dtype=torch.float64) * plain().sample((5,))
    torch.manual_seed(1)
    torch.testing.assert_close(moved().sample((5,)), expected)


def test_flow_of_one_element_is_refused() -> None:
    with pytest.raises(pv.InputError, match="a flow of one element has nothing to couple"):
        pv.VAE((3,), 1, prior=pv.Flow())
    with pytest.raises(pv.InputError, match="unknown"):
        pv.Flow("naf")


@pytest.mark.parametrize("before", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_flows_leave_the_validation_of_distributions_as_it_was(before: bool) -> None:
    code = """
import torch
from torch.distributions import Distribution
before = {before}
Distribution.set_default_validate_args(before)
import pyro_vae as pv
vae = pv.VAE((2,), 2, prior=pv.Flow("maf", 1, (4,)), encoder=pv.MLP(hidden=(3,)))
vae.prior().sample((2,)), vae.sample(2)
import pyro
after = Distribution._validate_args
assert after == ({before} or {pyros}), after
torch.distributions.Normal(0.0, 1.0)
"""
    pyros = "True"  # Pyro switches validation on at its import, whatever it was
    subprocess.run([sys.executable, "-c", code.format(before=before, pyros=pyros)], check=True)
    assert not cases_validated_in_zuko()


def cases_validated_in_zuko() -> bool:
    """Whether building a flow here changed the flag."""
    before = torch.distributions.Distribution._validate_args
    for kind in KINDS:
        flow_in("prior", kind, torch.float32)
    return torch.distributions.Distribution._validate_args != before
