"""Annealed importance sampling, against evidence that is exact."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.cases import FAMILIES
from helpers.exact_models import MODEL, Chain, annealed, estimate, exact, pyro_pair, rows, truth
from helpers.family_pairs import PRIORS, guide_for, rows_for, small_vae
from helpers.oracles import PPCA
from torch import Tensor

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.criticism import AIS
from pyro_vae.criticism.methods import LogWeights, annealing, hmc


def by_quadrature(pair_prior: Any, likelihood: Any, x: Tensor, low: float, high: float) -> Tensor:
    """Log p(x) of a model with one latent number, by a fine grid."""
    z = torch.linspace(low, high, 200_001, dtype=torch.float64)[1:-1, None]
    return (pair_prior.log_prob(z) + likelihood(z).log_prob(x)).logsumexp(0) + math.log((high - low) / 200_000)


# The number


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_ppca_is_within_a_twentieth_of_a_nat(start: Any) -> None:
    x = rows(10)
    found = annealed(exact(spread=1.5), x, chains=100, temperatures=120, start=start)
    assert abs(found.mean - float(truth(x).mean())) < 0.05
    assert float((found.pointwise - truth(x)).abs().max()) < 0.1
    assert float(((found.pointwise - truth(x)) / found.mcse).abs().max()) < 4
    assert float(found.acceptance.mean()) == pytest.approx(0.65, abs=0.05)
    assert float((found.acceptance - 0.65).abs().max()) < 0.1  # in each row
    assert found.warning == ""


@pytest.mark.slow
@pytest.mark.parametrize("start", ["prior", "guide"])
def test_ppca_as_by_default_is_within_a_twentieth_of_a_nat(start: Any) -> None:
    x = rows(100)
    found = estimate(exact(spread=1.5), x, method=AIS(start=start))
    assert abs(found.mean - float(truth(x).mean())) < 0.05
    assert float((found.pointwise - truth(x)).abs().max()) < 0.15  # 16 chains


@pytest.mark.parametrize(("start", "temperatures"), [("prior", 4), ("guide", 2)])
def test_weights_are_unbiased_however_few_temperatures(start: Any, temperatures: int) -> None:
    """Rows that are all one row are repeats."""
    row, repeats = rows(1), 2000
    options = {"chains": 4, "temperatures": temperatures, "start": start, "leapfrog": 3, "batch_size": repeats}
    found = annealed(exact(spread=1.3), row.expand(repeats, -1), **options)
    relative = (found.pointwise - truth(row)).exp()
    error = float(relative.std()) / math.sqrt(repeats)
    assert 0.002 < error < 0.05
    assert float(relative.mean()) == pytest.approx(1, abs=4 * error)


def test_guide_at_the_posterior_is_exact_and_its_network_runs_once() -> None:
    x, vae, runs = rows(10), exact(), []
    vae.posterior.register_forward_hook(lambda *_: runs.append(1))
    found = annealed(vae, x, chains=4, temperatures=10, start="guide")
    torch.testing.assert_close(found.pointwise, truth(x), rtol=0, atol=1e-9)
    assert len(runs) < 10  # some dry runs, the pilot and the run; not 6 in each of 60 transitions


@pytest.mark.slow
def test_narrow_posterior_is_reached() -> None:
    model = PPCA.random(5, 2, s2=0.01)  # where the prior's step size is far too long
    x = rows(10, model)
    found = annealed(exact(model), x, chains=100, temperatures=150)
    assert float(found.acceptance.mean()) == pytest.approx(0.65, abs=0.07)
    assert abs(found.mean - float(truth(x, model).mean())) < 0.1


def test_annealing_finds_the_mode_that_the_guide_misses() -> None:
    def likelihood(z: Tensor) -> Any:
        return dist.Normal(z.square(), 0.5)

    prior = dist.Normal(0.0, 1.0)
    one_sided = pyro_pair(likelihood, prior, lambda x: dist.Normal(x.sqrt(), 0.3))
    x = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    exactly = by_quadrature(prior, likelihood, x, -6, 6)
    missed = estimate(one_sided, x, draws=4000)
    torch.testing.assert_close(missed.pointwise, exactly - math.log(2), rtol=0, atol=0.06)
    assert missed.warning == ""  # and nothing says so
    found = annealed(one_sided, x, chains=400, temperatures=60)
    assert float(((found.pointwise - exactly) / found.mcse).abs().max()) < 4
    assert float(found.mcse.max()) < math.log(2) / 4  # which tells one mode from two


# Hamiltonian transitions


def skewed(u: Tensor) -> tuple[Tensor, Tensor]:
    """Of a normal number and the log of a Gamma(2, 1): b + s is their log density, b that of the first."""
    first, second = u.unbind(-1)
    return -first.square() / 2, 2 * second - second.exp()


def moments_after(steps: float, transitions: int = 10) -> tuple[Tensor, Tensor]:
    """How far, in standard errors, moments are from those of exact draws; and the mean chance to move."""
    exact_draws = torch.distributions.Gamma(torch.tensor(2.0).double(), 1.0).sample((4_000, 2))
    u = torch.stack([torch.randn(4_000, 2).double(), exact_draws.log()], -1)
    for _ in range(transitions):
        u, slope, chance = hmc.transition(skewed, u, 1.0, torch.full((2,), steps).double(), 3)
    torch.testing.assert_close(slope, skewed(u)[1])
    first, second = u[..., 0].flatten(), u[..., 1].exp().flatten()
    terms = torch.stack(
        [first, first.square() - 1, second - 2, second.square() - 6, second.reciprocal().sqrt() - 0.886227]
    )
    return terms.mean(1) / terms.std(1) * math.sqrt(len(first)), chance.mean()


def test_transitions_leave_the_target_as_it_is() -> None:
    off, chance = moments_after(1.0)
    assert 0.4 < float(chance) < 0.9  # steps so long that it matters what is rejected
    assert float(off.abs().max()) < 4


@pytest.mark.parametrize("fault", ["everything is accepted", "momentum is forgotten"])
def test_wrong_transitions_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "everything is accepted":
        monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    else:  # its energy is left out of the acceptance
        monkeypatch.setattr(Tensor, "square", lambda tensor: tensor * 0 if tensor.ndim == 3 else tensor**2)
    off, _ = moments_after(1.0)
    assert float(off.abs().max()) > 10


def test_proposal_that_is_not_finite_is_rejected() -> None:
    def cliff(u: Tensor) -> tuple[Tensor, Tensor]:
        u = u.squeeze(-1)
        return torch.zeros_like(u), torch.where(u > 0, -u, -math.inf) + 0 * u.log()

    u = torch.rand(1000, 1, 1)
    for _ in range(20):
        u, slope, chance = hmc.transition(cliff, u, 1.0, torch.ones(1), 4)
        assert bool(chance.isfinite().all() & slope.isfinite().all() & (u > 0).all())
    assert float(u.mean()) == pytest.approx(1, abs=0.15)


# Every prior, hierarchy, row

PLAIN = {"LogNormal", "Beta", "Mixture", "Dirichlet", "Gamma"}


@pytest.mark.parametrize(
    "prior",
    [
        pytest.param(name, marks=[] if name in PLAIN else pytest.mark.slow)
        for name in PRIORS
        if not FAMILIES[name].masses
    ],
)
def test_annealing_agrees_with_draws_from_every_prior(prior: str) -> None:
    vae = small_vae(
        prior=FAMILIES[prior].family, guide=FAMILIES[guide_for(prior)].family, likelihood=pv.Normal(scale=6.0)
    ).double()
    x = rows_for("Normal")[:4].double()
    vae.initialize(x)
    with torch.no_grad():
        log_likelihood = vae.decode(vae.prior().sample((20_000, 1))).log_prob(x)
    plainly, error = LogWeights(log_likelihood, (len(log_likelihood),), 0.0).estimate()
    assert float(error.max()) < 0.02
    found = annealed(vae, x, chains=200, temperatures=10, leapfrog=3)
    assert float(((found.pointwise - plainly) / found.mcse.hypot(error)).abs().max()) < 4


@pytest.mark.parametrize(
    ("prior", "low", "high"),
    [
        (dist.LogNormal(0.0, 1.0), 0, 40),
        (dist.Beta(2.0, 3.0), 0, 1),
        (dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.tensor([-3.0, 3.0]), 0.5)), -8, 8),
    ],
    ids=["LogNormal", "Beta", "Mixture"],
)
def test_priors_of_any_support_agree_with_quadrature(prior: Any, low: float, high: float) -> None:
    def likelihood(z: Tensor) -> Any:
        return dist.Normal(z, 0.3)

    pair = pyro_pair(likelihood, prior, lambda x: prior)
    x = torch.tensor([0.2, 0.7, 2.5], dtype=torch.float64)
    found = annealed(pair, x, chains=400, temperatures=60)
    assert float((found.pointwise - by_quadrature(prior, likelihood, x, low, high)).abs().max()) < 0.1
    assert float(((found.pointwise - by_quadrature(prior, likelihood, x, low, high)) / found.mcse).abs().max()) < 4


@pytest.mark.parametrize("start", ["prior", pytest.param("guide", marks=pytest.mark.slow)])
def test_users_own_hierarchy_is_annealed(start: Any) -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(torch.zeros(4).double(), 2 + torch.eye(4).double())
    found = annealed(Chain(), x, chains=300, temperatures=40, start=start)
    assert float(((found.pointwise - marginal.log_prob(x)) / found.mcse).abs().max()) < 4
    assert float(found.mcse.max()) < 0.05


@pytest.mark.slow
def test_latents_in_a_plate_of_their_own_are_moved() -> None:
    class Columns:
        """One latent for each of three columns of a row: x_nc ~ N(0, 2)."""

        def model(self, x: Tensor) -> None:
            with pyro.plate("columns", 3, dim=-2), pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1) / math.sqrt(2), 1.0), obs=x.T)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("columns", 3, dim=-2), pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal((x.T / 3).unsqueeze(-1), torch.ones(2).double()).to_event(1))

    x = torch.randn(5, 3).double()
    exactly = dist.Normal(0.0, math.sqrt(2)).log_prob(x).sum(1)
    for start in ("prior", "guide"):
        found = annealed(Columns(), x, chains=300, temperatures=20, start=start)
        assert float(((found.pointwise - exactly) / found.mcse).abs().max()) < 4


@pytest.mark.slow
def test_masked_rows_have_the_evidence_of_what_is_observed() -> None:
    x = rows(20)
    mask = torch.rand(20, 5) < 0.6
    mask[0], mask[1] = True, False
    exactly = []
    for row, seen in zip(x, mask, strict=True):
        part = PPCA(MODEL.w[seen], MODEL.mu[seen], MODEL.s2)
        exactly.append(float(part.marginal().log_prob(row[seen])) if bool(seen.any()) else 0.0)
    given = {"x": torch.where(mask, x, math.nan), "mask": mask}
    found = annealed(exact(spread=1.8), given, chains=200, temperatures=40, batch_size=9)
    assert float((found.pointwise - torch.tensor(exactly)).abs().max()) < 0.15
    assert abs(float(found.pointwise[1])) < 1e-9  # of nothing observed


def test_size_factors_and_dynamic_rows_are_heeded() -> None:
    counts = pv.VAE((3,), 2, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(5,))).double()
    x = torch.tensor([[3.0, 1.0, 0.0]]).double()
    given = {"x": torch.cat([x, 2 * x]), "size_factor": torch.tensor([1.0, 2.0]).double()}
    grey = pv.data.Rows({"x": torch.rand(20, 6)}, dynamic=True)
    binary = pv.VAE((6,), 2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(5,)))
    for vae, data in ((counts, given), (binary, grey)):
        found = annealed(vae, data, chains=200, temperatures=10, leapfrog=3)
        plainly = estimate(vae, data, draws=4000)  # dynamic rows are the same by the same seed
        assert float(((found.pointwise - plainly.pointwise) / found.mcse.hypot(plainly.mcse)).abs().max()) < 4


# What is said, and what is left as it was


@pytest.mark.slow
def test_too_few_temperatures_are_named_and_few_chains_are_no_fault() -> None:
    model = PPCA.random(30, 5, s2=0.05)
    hasty = annealed(exact(model), rows(10, model), temperatures=5)
    for words in ("of 10 rows few chains have most of the weight", "AIS(temperatures=50)", "pv.criticism.bdmc"):
        assert words in hasty.warning
        assert words in repr(hasty)
    fine = annealed(exact(), rows(10), temperatures=40)
    assert fine.warning == ""
    assert "k-hat" not in repr(fine)
    assert "16 chains for each, annealed from the prior over 40 temperatures, acceptance 0." in repr(fine)
    assert "nan" not in repr(fine)
    assert "largest k-hat" in repr(annealed(exact(), rows(2), chains=50, temperatures=3, leapfrog=1))
    assert "too few temperatures" not in repr(estimate(exact(), rows(3), draws=5))


def test_same_seed_gives_the_same_numbers_and_leaves_everything_as_it_was() -> None:
    vae, x = exact(spread=1.5).train(), rows(5)
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in vae.state_dict().items()}
    options = {"chains": 4, "temperatures": 5, "leapfrog": 2}
    first = annealed(vae, x, seed=3, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert not list(pyro.get_param_store())
    assert dist.is_validation_enabled()
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    assert all(weight.grad is None for weight in vae.parameters())
    torch.manual_seed(99)
    assert torch.equal(first.pointwise, annealed(vae, x, seed=3, **options).pointwise)
    assert not torch.equal(first.pointwise, annealed(vae, x, seed=4, **options).pointwise)


def test_memory_does_not_grow_with_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    x, vae, seen = rows(4), exact(spread=1.2), []
    vae.likelihood.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[:-1].numel()))
    monkeypatch.setattr(annealing, "MAX_ELEMENTS", 4 * 60 * annealing.MIN_WIDTH)
    monkeypatch.setattr("pyro_vae.criticism.methods.joint.DRAWS", 100)
    found = annealed(vae, x, chains=150, temperatures=15, leapfrog=3)
    assert max(seen) == 4 * 60
    assert found.draws == 150
    assert float(((found.pointwise - truth(x)) / found.mcse).abs().max()) < 4


def test_command_line_anneals(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "fit --latent_dim 2 --epochs 1 --encoder MLP --encoder.hidden [8] --progress false --run run"
    main(words.split())
    words = "evaluate run --method AIS --method.temperatures 3 --method.leapfrog 2 --method.chains 3 --to e.csv"
    main(words.split())
    assert "3 chains for each, annealed from the prior over 3 temperatures" in capsys.readouterr().out
