"""Evidence by importance sampling, against evidence that is exact."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_stats.base import array_stats
from helpers.cases import FAMILIES, HeadedNetwork, seeded
from helpers.exact_models import MODEL, Chain, estimate, exact, pyro_pair, rows, truth
from helpers.family_pairs import PAIR_OF_EACH_GUIDE, PRIORS, guide_for, rows_for, small_vae
from helpers.oracles import PPCA
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.criticism.methods import LogWeights, importance

# The number, its error, k-hat


def test_at_the_exact_posterior_every_weight_is_the_evidence() -> None:
    x = rows(30)
    found = estimate(exact(), x, draws=100, batch_size=7, draws_at_once=13)
    torch.testing.assert_close(found.pointwise, truth(x), rtol=0, atol=1e-10)
    assert float(found.mcse.max()) < 1e-10
    assert bool((found.khat == 0).all())
    assert found.warning == ""
    assert found.mean == pytest.approx(float(truth(x).mean()), abs=1e-10)
    assert found.se == pytest.approx(float(truth(x).std()) / math.sqrt(30), abs=1e-9)
    in_float32 = estimate(exact().float(), x, draws=100)
    torch.testing.assert_close(in_float32.pointwise, truth(x), rtol=0, atol=2e-5)
    assert bool((in_float32.khat == 0).all())  # what rounding leaves is no tail


@pytest.mark.parametrize("proposal", ["guide", "defensive"])
@pytest.mark.parametrize("spread", [0.8, 1.5])
def test_evidence_is_exact_within_its_errors(proposal: Any, spread: float) -> None:
    x = rows(60)
    found = estimate(exact(spread=spread), x, draws=2000, proposal=proposal, seed=5)
    scores = (found.pointwise - truth(x)) / found.mcse
    assert float(scores.abs().max()) < 4
    assert 0.7 < float(scores.square().mean()) < 1.4
    assert float(found.khat.max()) < found.threshold
    assert found.mean == pytest.approx(float(truth(x).mean()), abs=4 * found.mean_mcse)
    assert found.warning == ""


@pytest.mark.parametrize("proposal", ["guide", "defensive"])
@pytest.mark.parametrize(("draws", "repeats"), [(24, 4000), (500, 500)])
def test_stated_errors_cover(proposal: Any, draws: int, repeats: int) -> None:
    """Rows that are all one row are repeats."""
    row = rows(1)
    found = estimate(exact(spread=1.6), row.expand(repeats, -1), draws=draws, proposal=proposal)
    off = found.pointwise - truth(row)
    assert float(off.std()) == pytest.approx(float(found.mcse.square().mean().sqrt()), rel=0.1)
    scores = (off + found.mcse.square() / 2) / found.mcse
    for level, share in ((1.0, 0.683), (2.0, 0.954)):
        assert float((scores.abs() < level).double().mean()) == pytest.approx(share, abs=0.05)
    assert float(off.mean()) == pytest.approx(found.bias, abs=4 * found.mean_mcse)
    if draws == 24:
        assert found.bias < -4 * found.mean_mcse  # so that the bias is there to be seen


@pytest.mark.parametrize(("ratio", "k", "tolerance"), [(0.7, 0.29, 0.03), (0.2, 0.72, 0.06)])
def test_khat_of_gaussians_is_that_of_the_reference(ratio: float, k: float, tolerance: float) -> None:
    """REFERENCE.md: the variance of the proposal over that of the posterior; the mean of 20 runs."""
    model = PPCA.random(3, 1, s2=1.0)
    vae = exact(model, spread=math.sqrt(ratio))
    found = estimate(vae, rows(1, model).expand(20, -1), draws=100_000, batch_size=4)
    assert float(found.khat.mean()) == pytest.approx(k, abs=tolerance)


def test_narrow_guide_is_named_and_a_defensive_proposal_mends_it() -> None:
    model = PPCA.random(5, 2, s2=10.0)  # a posterior that the prior is not much wider than
    x = rows(40, model)
    narrow = estimate(exact(model, spread=0.2), x, draws=1000)
    assert bool(((narrow.pointwise - truth(x, model)).abs() > 4 * narrow.mcse).any())  # its errors are wrong indeed
    assert float(narrow.unreliable.double().mean()) > 0.8
    for words in (f"in {int(narrow.unreliable.sum())} of 40 rows", "too narrow", "proposal='defensive'", "StudentT"):
        assert words in narrow.warning
        assert words in repr(narrow)
    mended = estimate(exact(model, spread=0.2), x, draws=4000, proposal="defensive")
    assert float(((mended.pointwise - truth(x, model)) / mended.mcse).abs().max()) < 4
    assert float(mended.unreliable.double().mean()) < 0.1


@pytest.mark.parametrize(
    ("log_weights", "k"),
    [
        (torch.zeros(100), 0.0),
        (torch.cat([torch.zeros(1), torch.full((99,), -900.0)]), math.inf),
        (torch.cat([torch.zeros(50), torch.full((50,), -1.0)]), 0.0),
        (torch.full((100,), -math.inf), math.inf),
        (torch.randn(24), math.nan),
    ],
    ids=["equal", "one alone", "bounded", "none", "few"],
)
def test_khat_of_odd_weights(log_weights: Tensor, k: float) -> None:
    assert float(LogWeights(log_weights.double()[:, None], (len(log_weights),), 1e-16).pareto_k()) == pytest.approx(
        k, nan_ok=True
    )


@pytest.mark.parametrize("draws", [25, 225, 226, 255, 257, 1000, 5003, 40_000])
def test_khat_is_that_which_arviz_gives_for_all_draws(draws: int) -> None:
    log_weights = 1.3 * torch.randn(draws, 3, dtype=torch.float64) - 90
    expected = [float(array_stats.psislw(-row)[1]) for row in log_weights.T.numpy()]
    assert LogWeights(log_weights, (draws,), 1e-16).pareto_k().tolist() == pytest.approx(expected, rel=1e-12)


# Every prior, guide, program


@pytest.mark.parametrize(
    ("prior", "guide"),
    [  # a prior with point masses has none under a guide with a density
        (prior, guide)
        for prior, guide in dict.fromkeys([*((prior, guide_for(prior)) for prior in PRIORS), *PAIR_OF_EACH_GUIDE])
        if not FAMILIES[prior].masses
    ],
)
def test_proposals_agree_with_draws_from_the_prior(prior: str, guide: str) -> None:
    vae = small_vae(
        prior=FAMILIES[prior].family, guide=FAMILIES[guide].family, likelihood=pv.Normal(scale=6.0)
    ).double()
    x = rows_for("Normal")[:4].double()
    vae.initialize(x)
    with torch.no_grad():
        log_likelihood = vae.decode(vae.prior().sample((10_000, 1))).log_prob(x)
    plainly, error = LogWeights(log_likelihood, (len(log_likelihood),), 0.0).estimate()
    assert float(error.max()) < 0.02
    guided, mended = (
        estimate(vae, x, draws=draws, proposal=proposal, draws_at_once=250)
        for proposal, draws in (("guide", 100), ("defensive", 1000))
    )
    scores = [(found.pointwise - plainly) / found.mcse.hypot(error) for found in (guided, mended)]
    assert float(scores[0].max()) < 4  # it lies below, where the guide of an untrained model reaches too little
    assert bool((mended.khat < 0.5).any())
    assert float(scores[1][mended.khat < 0.5].abs().max()) < 4


def test_gamma_and_poisson_are_negative_binomial() -> None:
    """Of z ~ Gamma(3, 1/2), x|z ~ Poisson(z): x ~ NegativeBinomial(3, 1 / 1.5), the guide too wide."""

    model = pyro_pair(lambda z: dist.Poisson(z), dist.Gamma(3.0, 0.5), lambda x: dist.Gamma(3.0 + 0.9 * x, 1.4))
    x = torch.arange(12.0, dtype=torch.float64)
    exactly = dist.GammaPoisson(3.0, 0.5).log_prob(x)
    for proposal in ("guide", "defensive"):
        found = estimate(model, x, draws=2000, proposal=proposal)
        assert float(((found.pointwise - exactly) / found.mcse).abs().max()) < 4


@pytest.mark.parametrize("at_once", [1, 300])
@pytest.mark.parametrize("proposal", ["guide", "defensive"])
def test_users_own_hierarchy_is_weighed_too(proposal: Any, at_once: int) -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(torch.zeros(4).double(), 2 + torch.eye(4).double())
    draws = 60 if at_once == 1 else 2000
    found = estimate(Chain(), x, draws=draws, proposal=proposal, draws_at_once=at_once)
    assert float(((found.pointwise - marginal.log_prob(x)) / found.mcse).abs().max()) < 4


# Rows: masks, sizes, binarisation, pixels, seeds


def test_masked_rows_have_the_evidence_of_what_is_observed() -> None:
    x = rows(40)
    mask = torch.rand(40, 5) < 0.6
    mask[0], mask[1] = True, False
    exactly = []
    for row, seen in zip(x, mask, strict=True):
        part = PPCA(MODEL.w[seen], MODEL.mu[seen], MODEL.s2)
        exactly.append(float(part.marginal().log_prob(row[seen])) if bool(seen.any()) else 0.0)
    given = {"x": torch.where(mask, x, math.nan), "mask": mask}
    found = estimate(exact(spread=1.8), given, draws=4000, proposal="defensive", batch_size=9)
    assert float(((found.pointwise - torch.tensor(exactly)) / found.mcse.clamp(min=1e-12)).abs().max()) < 4
    assert abs(float(found.pointwise[1])) < 0.2  # of nothing observed


def test_size_factors_reach_both_programs() -> None:
    vae = pv.VAE((3,), 2, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(5,))).double()
    x, size = torch.tensor([[3.0, 1.0, 0.0]]).double(), torch.tensor([1.0, 2.0]).double()
    given = {"x": torch.cat([x, 2 * x]), "size_factor": size}
    found = estimate(vae, given, draws=2000)
    with torch.no_grad():
        z = torch.randn(200_000, 2).double()
        for n in range(2):
            log_likelihood = vae.decode(z, size_factor=size[n].expand(len(z))).log_prob(given["x"][n])
            exactly = float(log_likelihood.logsumexp(0)) - math.log(len(z))
            assert float(found.pointwise[n]) == pytest.approx(exactly, abs=4 * float(found.mcse[n]) + 0.02)


def test_dynamic_rows_are_drawn_once_by_the_seed() -> None:
    grey = pv.data.Rows({"x": torch.rand(20, 6, generator=seeded(7))}, dynamic=True)
    seen: list[Tensor] = []
    vae = pv.VAE((6,), 2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(5,)))
    check = vae.check
    vae.check = lambda batch: (seen.append(batch["x"]), check(batch))[1]  # type: ignore[method-assign, func-returns-value]
    first = estimate(vae, grey, draws=40)
    other = estimate(vae, grey, draws=90, batch_size=3, proposal="defensive")
    assert torch.equal(seen[0], seen[1])
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    same = estimate(vae, seen[0], draws=90, proposal="defensive")
    for found in (first, other):
        assert float(((found.pointwise - same.pointwise) / found.mcse.hypot(same.mcse)).abs().max()) < 4.5
    estimate(vae, grey, draws=40, seed=1)
    assert not torch.equal(seen[0], seen[-1])


def test_bits_per_dimension_is_arithmetic() -> None:
    pixels = pv.VAE((2, 3), 2, likelihood=pv.DiscretizedLogistic(bins=4, components=2), encoder=pv.MLP(hidden=(5,)))
    x = torch.randint(4, (7, 2, 3)).float()
    found = estimate(pixels, x, draws=30)
    assert found.bits_per_dim == -found.mean / (6 * math.log(2))
    assert f"{found.bits_per_dim:.4f} bits per dimension" in repr(found)
    mask = torch.ones(7, 2, 3, dtype=torch.bool)
    mask[:, 0, 0], mask[0] = False, True
    masked = estimate(pixels, {"x": x, "mask": mask}, draws=30)
    assert masked.bits_per_dim == pytest.approx(-float(masked.pointwise.sum()) / (36 * math.log(2)), rel=1e-12)
    assert estimate(exact(), rows(3), draws=30).bits_per_dim is None


def test_evidence_of_unnormalised_likelihood_is_labelled() -> None:
    vae = pv.VAE((4,), 2, likelihood=pv.Bernoulli(grey=True), encoder=pv.MLP(hidden=(5,)))
    shown = repr(estimate(vae, torch.rand(5, 4), draws=30))
    assert "not a density" in shown
    assert "log p(x)" not in shown


def test_same_seed_gives_the_same_numbers_and_leaves_everything_as_it_was() -> None:
    vae, x = exact(spread=1.5).train(), rows(9)
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in vae.state_dict().items()}
    first = estimate(vae, x, draws=30, proposal="defensive", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert not list(pyro.get_param_store())
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    torch.manual_seed(99)
    again = estimate(vae, x, draws=30, proposal="defensive", seed=3)
    assert torch.equal(first.pointwise, again.pointwise)
    assert not torch.equal(first.pointwise, estimate(vae, x, draws=30, proposal="defensive", seed=4).pointwise)
    assert first.pointwise.dtype == torch.float64 == estimate(exact().float(), x, draws=5).pointwise.dtype


def test_dropout_is_off() -> None:
    class Noisy(HeadedNetwork):
        def forward(self, rows: Tensor) -> Any:
            assert not self.training
            return super().forward(rows)

    encoder = Noisy({"loc": torch.zeros(2), "scale": torch.zeros(2)})
    vae = pv.VAE((3,), 2, encoder=encoder, decoder=pv.MLP(hidden=(4,)))
    encoder.training = True
    estimate(vae, torch.randn(4, 3), draws=5)
    assert encoder.training


# Memory


@pytest.mark.parametrize("proposal", ["guide", "defensive"])
def test_memory_grows_neither_with_draws_nor_with_rows(proposal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(nn.Module):
        largest = 0

        def forward(self, z: Tensor) -> Tensor:
            Counting.largest = max(Counting.largest, z.shape[:-1].numel())
            return z

    vae = pv.VAE((2,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(4,)), decoder=Counting())

    def largest(n: int, **options: Any) -> int:
        Counting.largest = 0
        estimate(vae, torch.zeros(n, 2), proposal=proposal, **options)
        return Counting.largest

    assert largest(20, draws=50, batch_size=10, draws_at_once=7) == 70
    assert largest(40, draws=150, batch_size=10, draws_at_once=7) == 70
    monkeypatch.setattr(importance, "MAX_ELEMENTS_WEIGHED", 5 * 4 * importance.MIN_WIDTH)
    room = 18 if proposal == "defensive" else 20  # of 54 draws from the guide, in chunks without a rest
    assert largest(8, draws=60, batch_size=4) == largest(8, draws=120, batch_size=4) == room
    assert largest(3, draws=60, batch_size=1) == room
    assert largest(8, draws=7, batch_size=4) == (20 if proposal == "defensive" else 14)  # 4 rows of 5, or 2 of 7
