"""Bidirectional Monte Carlo: the true evidence between its bounds, and faults that widen them."""

import math
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.exact_models import MODEL, Chain, annealed, exact, pyro_pair, truth
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.criticism import AIS, BDMC, bdmc
from pyro_vae.criticism.methods.annealing import SimulatedRows


def sandwich(vae: Any, rows: int = 100, *, x: Any = None, given: Any = None, seed: int = 0, **options: Any) -> BDMC:
    method = AIS(**{"leapfrog": 4, "chains": 8, **options})
    return bdmc(vae, rows, x=x, method=method, seed=seed, batch_size=rows, progress=False, **(given or {}))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[SimulatedRows]:
    """What the calls of a test drew, batch by batch."""
    kept: list[SimulatedRows] = []
    of = SimulatedRows.of
    monkeypatch.setattr(SimulatedRows, "of", lambda *given: (kept.append(of(*given)), kept[-1])[1])
    return kept


def score(values: Tensor) -> float:
    """How many standard errors the mean of some values is from 0."""
    return float(values.mean() / values.std()) * math.sqrt(len(values))


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_true_evidence_lies_between(start: Any, drawn: list[SimulatedRows]) -> None:
    found = sandwich(exact(spread=4.0), 300, temperatures=3, start=start)
    exactly = truth(drawn[0].batch["x"])
    assert score(exactly - found.lower) > 3  # so few temperatures that both gaps can be seen
    assert score(found.upper - exactly) > 3
    assert found.mean_lower < float(exactly.mean()) < found.mean_upper


@pytest.mark.parametrize(("start", "temperatures"), [("prior", 6), pytest.param("guide", 2, marks=pytest.mark.slow)])
def test_forward_and_reverse_weights_are_unbiased_for_few_temperatures(
    start: Any, temperatures: int, drawn: list[SimulatedRows]
) -> None:
    found = sandwich(exact(spread=1.3), 1000, temperatures=temperatures, start=start)
    exactly = truth(drawn[0].batch["x"])
    assert abs(score((found.lower - exactly).exp() - 1)) < 4
    assert abs(score((exactly - found.upper).exp() - 1)) < 4  # the mean of 1 / w' is 1 / p(x)


@pytest.mark.slow
def test_gap_closes_as_temperatures_grow() -> None:
    gaps = [sandwich(exact(), 100, temperatures=count) for count in (2, 10, 100)]
    assert gaps[0].gap > 2 * gaps[1].gap > 4 * abs(gaps[2].gap)
    assert gaps[0].gap - 4 * gaps[0].gap_se > 0
    assert gaps[2].error_bound < 0.1
    assert gaps[2].warning == ""
    assert "temperatures=20" in gaps[0].warning


def test_chains_that_do_not_move_leave_a_wide_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    moving = sandwich(exact(), 50, temperatures=60)
    monkeypatch.setattr(torch, "rand_like", lambda tensor: torch.full_like(tensor, 0.999999))
    still = sandwich(exact(), 50, temperatures=60)
    assert moving.error_bound < 0.2
    assert still.gap - 4 * still.gap_se > moving.error_bound
    assert still.warning


def test_transitions_that_accept_everything_break_the_sandwich(
    drawn: list[SimulatedRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_vae.criticism.methods.hmc.torch.rand_like", torch.zeros_like)
    found = sandwich(exact(), 300, temperatures=30, acceptance=0.3)
    exactly = truth(drawn[0].batch["x"])
    off = [abs(score((found.lower - exactly).exp() - 1)), abs(score((exactly - found.upper).exp() - 1))]
    assert max(off) > 6


def test_users_own_hierarchy_is_drawn_anew_from_rows_of_its_shape() -> None:
    found = sandwich(Chain(), 60, x=torch.full((60, 4), 99.0).double(), temperatures=40)
    assert len(found) == 60
    mean = float(
        torch.distributions.MultivariateNormal(torch.zeros(4).double(), 2 + torch.eye(4).double()).entropy()
    )  # of the model, not of rows that are 99
    assert found.mean_lower == pytest.approx(-mean, abs=4 * math.sqrt(2 / 60) + 0.1)
    assert abs(found.gap) < 4 * found.gap_se + 0.1


@pytest.mark.slow
def test_sizes_and_masks_are_drawn_with() -> None:
    counts = pv.VAE((3,), 2, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(5,))).double()
    size = torch.tensor([0.1, 50.0]).double().repeat(30)
    found = sandwich(counts, 60, given={"size_factor": size}, temperatures=30)
    assert float(found.lower[size < 1].mean()) > float(found.lower[size > 1].mean()) + 5  # 50 times the counts
    assert found.gap < 0.5
    mask = torch.tensor([[True, False, True, True, False]]).expand(40, -1)
    masked = sandwich(exact(), 40, given={"mask": mask}, temperatures=40)
    marginal = torch.distributions.MultivariateNormal(
        MODEL.mu[mask[0]], MODEL.marginal().covariance_matrix[mask[0]][:, mask[0]]
    )
    expected = -float(marginal.entropy())
    assert masked.mean_lower == pytest.approx(expected, abs=4 * math.sqrt(3 / 2 / 40) + 0.05)


def test_summary_says_what_the_bounds_say() -> None:
    fine = BDMC(torch.tensor([-1.0, -2.0]), torch.tensor([-0.99, -1.97]), torch.tensor([0.6, 0.7]), AIS())
    assert fine.gap == pytest.approx(0.02)
    assert fine.gap_se == pytest.approx(0.01)
    for words in (
        "-1.500 <= log p(x) <= -1.480 nats per row, a gap of 0.02 +- 0.01",
        "AIS with these settings is within 0.04 nats of log p(x), on average over data of the model's own",
        "2 rows, 16 chains for each, annealed from the prior over 1000 temperatures, acceptance 0.65",
    ):
        assert words in repr(fine)
    assert "Warning" not in repr(fine)
    wide = BDMC(torch.tensor([-5.0]), torch.tensor([-1.0]), torch.tensor([0.6]), AIS(temperatures=3))
    assert "may be 4 nats too low" in repr(wide)
    assert "AIS(temperatures=30)" in repr(wide)


def test_same_seed_gives_the_same_numbers_and_leaves_everything_as_it_was() -> None:
    vae = exact().train()
    state = torch.get_rng_state()
    options = {"temperatures": 3, "chains": 2, "leapfrog": 2}
    first = sandwich(vae, 5, seed=3, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert not list(pyro.get_param_store())
    torch.manual_seed(99)
    assert torch.equal(first.upper, sandwich(vae, 5, seed=3, **options).upper)
    assert not torch.equal(first.upper, sandwich(vae, 5, seed=4, **options).upper)


# Wrong input

NORMAL = dist.Normal(0.0, 1.0)


def a_model(prior: Any, second: Any = None) -> SimpleNamespace:
    """A program with one or two latents, its guide the first one's prior."""

    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", prior)
            if second is not None:
                z = pyro.sample("z2", second(z))
            pyro.sample("x", dist.Normal(z.to(x), 1.0), obs=x)

    return SimpleNamespace(model=model, guide=pyro_pair(lambda z: NORMAL, prior, lambda x: prior).guide)


def unplated(x: Tensor) -> None:
    z = pyro.sample("z", NORMAL)
    pyro.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)


def scaled(x: Tensor) -> None:
    with pyro.plate("rows", 100, subsample_size=len(x), dim=-1):
        pyro.sample("x", dist.Normal(pyro.sample("z", NORMAL), 1.0), obs=x)


def auxiliary(x: Tensor) -> None:
    with pyro.plate("rows", len(x), dim=-1):
        a = pyro.sample("a", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(a, 1.0))


class Clamped(dist.Normal):
    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return super().rsample(torch.Size(sample_shape)).clamp(min=0)


PAIR = pyro_pair(lambda z: dist.Normal(z, 1.0), NORMAL, lambda x: dist.Normal(x / 2, 1.0))
LOG_NORMAL = dist.LogNormal(0.0, 1.0)
WRONG: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "discrete": (a_model(dist.Poisson(3.0)), {}, ["'z'", "Poisson", "discrete", "Importance()"]),
    "one point": (a_model(dist.Delta(torch.tensor(1.0))), {}, ["Delta", "one point"]),
    "point mass": (a_model(Clamped(0.0, 1.0)), {}, ["point mass", "repeat"]),
    "support of a latent": (a_model(LOG_NORMAL, lambda z: dist.Uniform(0.0, z)), {}, ["'z2' depends on other latents"]),
    "no latent": (
        SimpleNamespace(model=lambda x: pyro.sample("x", NORMAL, obs=x), guide=lambda x: None),
        {},
        ["no latent"],
    ),
    "nothing observed": (SimpleNamespace(model=PAIR.guide, guide=PAIR.guide), {}, ["no observed site"]),
    "one z for all": (SimpleNamespace(model=unplated, guide=PAIR.guide), {}, ["2 rows as 1", 'pyro.plate("data"']),
    "scaled": (SimpleNamespace(model=scaled, guide=PAIR.guide), {}, ["'z' is scaled"]),
    "auxiliary": (
        SimpleNamespace(model=PAIR.model, guide=auxiliary),
        {"start": "guide"},
        ["'a'", "auxiliary", "start='prior'"],
    ),
    "two supports": (
        pyro_pair(lambda z: dist.Normal(z, 1.0), LOG_NORMAL, lambda x: NORMAL),
        {"start": "guide"},
        ["'z'", "different supports", "start='prior'"],
    ),
    "chains": (PAIR, {"chains": 1}, ["AIS.chains = 1", "at least 2"]),
    "temperatures": (PAIR, {"temperatures": 0}, ["AIS.temperatures = 0"]),
    "acceptance": (PAIR, {"acceptance": 1.0}, ["AIS.acceptance = 1.0", "[0.05, 0.99]"]),
    "start": (PAIR, {"start": "posterior"}, ["'posterior'", "Known: prior, guide"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_bdmc_refuses_models_that_cannot_be_annealed(name: str) -> None:
    programs, options, words = WRONG[name]
    with pytest.raises(pv.InputError) as caught:
        annealed(programs, torch.tensor([0.5, 1.0, 2.0]), **options)
    message = str(caught.value)
    assert not [word for word in words if word not in message], message
    assert message.endswith("."), message


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ((nn.Linear(2, 2),), {}, ["Linear", ".model and .guide"]),
        ((exact(), 0), {}, ["rows = 0", "at least 1"]),
        ((exact(),), {"method": pv.criticism.Importance()}, ["Importance", "AIS(temperatures=1000)"]),
        ((exact(),), {"seed": -1}, ["seed = -1"]),
        ((exact(),), {"size_factor": torch.ones(100)}, ["size_factor", "no size"]),
        ((PAIR,), {}, ["model(rows=N)", "bdmc(programs, x=x)"]),
        ((Chain(),), {"x": torch.zeros(3, 4), "method": AIS(start="guide")}, ["`return x`", "start='prior'"]),
    ],
)
def test_wrong_arguments_of_bdmc_are_sentences(given: Any, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(pv.InputError) as caught:
        bdmc(*given, **{"progress": False, **options})
    message = str(caught.value)
    assert not [word for word in words if word not in message], message
    assert message.endswith("."), message
