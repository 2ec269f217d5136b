"""Refined posteriors, against posteriors that are exact."""

import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from helpers.cases import seeded
from helpers.exact_models import MODEL, Chain, estimate, exact, misled_vae, rows, truth
from helpers.oracles import PPCA, _write
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.criticism import Importance


def refined(vae: Any, x: Any, **options: Any) -> pv.Refined:
    return pv.refine(vae, x, progress=False, **options)


# The posterior that is found


@pytest.mark.parametrize("s2", [pytest.param(4.0, marks=pytest.mark.slow), 0.5])
def test_full_rank_guide_reaches_the_exact_posterior_of_each_row(s2: float) -> None:
    model = PPCA.random(5, 2, s2=s2)
    x, vae = rows(10, model), misled_vae(model=model)
    posterior = model.posterior(x)
    assert float(kl_divergence(vae.encode(x), posterior).mean().detach()) > 1  # a bad encoder indeed
    found = refined(vae, x, steps=150)
    assert float(kl_divergence(found.posterior(), posterior).max()) < 1e-4
    torch.testing.assert_close(found.bound, truth(x, model), rtol=0, atol=0.01)
    assert bool((found.gain > 0).all())
    measured = estimate(found, found.rows, draws=100)
    torch.testing.assert_close(measured.pointwise, truth(x, model), rtol=0, atol=0.01)


def test_diagonal_guide_reaches_the_best_of_its_family() -> None:
    """Of a Gaussian posterior of precision P, the best has its means, and scales 1 / sqrt(P_ii)."""
    x = rows(30)
    posterior = MODEL.posterior(x)
    at = refined(misled_vae(pv.Normal()), x, steps=300, particles=16).posterior()
    scale = posterior.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
    assert float(((at.mean - posterior.mean) / scale).abs().max()) < 0.05
    assert float((at.base_dist.scale / scale).log().abs().max()) < 0.05


@pytest.mark.parametrize(("s2", "dtype"), [(4.0, torch.float64), (0.01, torch.float32)])
def test_at_the_exact_posterior_nothing_changes(s2: float, dtype: torch.dtype) -> None:
    model = PPCA.random(5, 2, s2=s2)
    x, posterior = rows(20, model), model.posterior(rows(1, model))
    vae = misled_vae(model=model)
    weight = torch.linalg.inv(model.m) @ model.w.T
    _write(vae.posterior, "loc", -weight @ model.mu, weight)
    _write(vae.posterior, "scale_tril", posterior.scale_tril[0])
    found, x = refined(vae.to(dtype), x.to(dtype), steps=50), x.to(dtype)
    at, was = (MultivariateNormal(q.mean.double(), q.covariance_matrix.double()) for q in _both(found, vae, x))
    assert float(kl_divergence(at, was).max()) < 1e-8
    assert float(found.gain.max()) < 1e-8


def test_guide_near_the_posterior_comes_no_further_from_it() -> None:
    """Adam with a small eps makes a step of any gradient, and would end a thousandth of a nat away."""
    vae, x = misled_vae(), rows(20)
    weight = torch.linalg.inv(MODEL.m) @ MODEL.w.T
    _write(vae.posterior, "loc", -weight @ MODEL.mu, weight)
    _write(vae.posterior, "scale_tril", 1.001 * MODEL.posterior(x).scale_tril[0])
    assert float(kl_divergence(refined(vae, x, steps=60).posterior(), MODEL.posterior(x)).max()) < 5e-6


def _both(found: pv.Refined, vae: pv.VAE, x: Tensor) -> tuple[Any, Any]:
    with torch.no_grad():
        return found.posterior(), vae.encode(x)


def test_shared_parameters_stay() -> None:
    vae = exact(spread=1.5)  # scale_tril is one for all rows
    found = refined(vae, rows(5), steps=30)
    assert set(found.raw) == {"loc"}
    torch.testing.assert_close(found.posterior().scale_tril, vae.encode(rows(5)).scale_tril)


GUIDES = {
    "flow": ({}, pv.Flow("maf", transforms=1, hidden=(8,), context=4)),
    "low rank": ({}, pv.LowRankNormal(rank=1)),
    "mixture": ({}, pv.Mixture(pv.Normal(), components=2)),
    "student": ({}, pv.StudentT(df=5)),
    "log-normal": ({"prior": pv.LogNormal(0, 1)}, pv.LogNormal()),
    "vamp": ({"prior": pv.VampPrior(components=4)}, pv.Normal()),
}


@pytest.mark.parametrize("name", GUIDES)
def test_refining_any_guide_gains_and_keeps_its_evidence(name: str) -> None:
    words, guide = GUIDES[name]
    x = 3 * torch.randn(12, 4, generator=seeded(1))
    vae = pv.VAE((4,), 2, likelihood=pv.Normal(scale=1), guide=guide, encoder=pv.MLP(hidden=(6,)), **words)
    vae.initialize(x)
    weights = {key: value.clone() for key, value in vae.state_dict().items()}
    found = refined(vae, x, steps=40)
    assert bool((found.gain >= 0).all())
    assert float(found.gain.mean()) > 0.05
    assert all(torch.equal(value, weights[key]) for key, value in vae.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in vae.parameters())
    measured, plainly = estimate(found, found.rows, draws=500), estimate(vae, x, draws=500)
    assert float(measured.mcse.mean()) < float(plainly.mcse.mean())
    sure = plainly.khat.lt(0.5) & measured.khat.lt(0.5)
    scores = (measured.pointwise - plainly.pointwise) / measured.mcse.hypot(plainly.mcse)
    assert not bool(sure.any()) or float(scores[sure].abs().max()) < 4.5


def test_row_never_gets_worse() -> None:
    x = rows(12)
    found = refined(misled_vae(), x, steps=2, lr=1e6)  # throws every row away
    assert bool((found.gain == 0).all())
    torch.testing.assert_close(found.posterior().mean, misled_vae().encode(x).mean.detach())
    assert "12 rows keep the encoder's values" in repr(found)


# Batches


def test_masks_reach_the_model() -> None:
    x, mask = rows(5), torch.rand(5, 5, generator=seeded(2)) < 0.6
    mask[0], mask[1] = True, False
    found = refined(misled_vae(), {"x": torch.where(mask, x, math.nan), "mask": mask}, steps=200, batch_size=3)
    at = found.posterior()
    for n, seen in enumerate(mask):
        part = PPCA(MODEL.w[seen], MODEL.mu[seen], MODEL.s2)
        exactly = part.posterior(x[n : n + 1, seen])
        mine = MultivariateNormal(at.mean[n : n + 1], at.covariance_matrix[n : n + 1])
        assert float(kl_divergence(mine, exactly)) < 1e-3
        if n > 1:
            assert float(found.bound[n]) == pytest.approx(float(truth(x[n : n + 1, seen], part)), abs=0.02)


def test_size_factors_reach_both_programs() -> None:
    vae = pv.VAE((3,), 2, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(5,))).double()
    given = {"x": torch.tensor([[30.0, 1, 0], [60, 2, 0]]).double(), "size_factor": torch.tensor([1.0, 2.0]).double()}
    at_first = refined(vae, given, steps=1, lr=1e-12).posterior()
    torch.testing.assert_close(at_first.mean, vae.encode(**given).mean, rtol=0, atol=1e-9)
    found = refined(vae, given)
    measured = estimate(found, found.rows, draws=2000)
    plainly = estimate(vae, given, draws=50_000, proposal="defensive")
    assert float(((measured.pointwise - plainly.pointwise) / measured.mcse.hypot(plainly.mcse)).abs().max()) < 4
    assert float(measured.mcse.max()) < float(estimate(vae, given, draws=2000).mcse.max())


def test_rows_are_taken_by_their_numbers() -> None:
    x = rows(9)
    x[5] = x[2]  # twins keep what each has
    found = refined(misled_vae(), x, steps=60, batch_size=5)
    assert len(found) == len(found.rows) == 9
    assert found.rows.tensors["row"].tolist() == list(range(9))
    whole, order = found.posterior().mean, torch.tensor([7, 2, 2, 5])
    assert torch.equal(found.posterior(order).mean, whole[order])
    assert not torch.equal(whole[2], whole[5])
    every, some = (estimate(found, found.rows.batch(part), draws=40) for part in (None, slice(4, 9)))
    assert some.fingerprint == estimate(misled_vae(), x[4:], draws=40).fingerprint
    assert float(((some.pointwise - truth(x[4:])) / some.mcse).abs().max()) < 5
    swapped = {"x": x, "row": torch.arange(9).flip(0)}  # posteriors of other rows
    assert float(estimate(found, swapped, draws=40).pointwise.mean()) < float(every.pointwise.mean()) - 0.5
    assert found.model(row=order).shape == (4, 5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "without 'row'"),
        ({"row": [0, 1, 9]}, "from 0 to 8"),
        ({"row": [0, 1, -1]}, "from 0 to 8"),
        ({"row": [0.0, 1.0, 2.0]}, "int64"),
        ({"row": [0, 1, 2], "mask": torch.ones(3, 4)}, "mask"),
    ],
)
def test_rows_of_no_number_are_refused(given: dict[str, Any], words: str) -> None:
    found = refined(misled_vae(), rows(9), steps=1)
    with pytest.raises(pv.InputError, match=words):
        estimate(found, {"x": rows(3), **given}, draws=40)
    with pytest.raises(pv.InputError, match=r"pv.evidence\(refined, refined.rows\)"):
        found.guide(rows(3))


def test_objectives_and_pyros_tools_take_the_pair() -> None:
    vae, x = misled_vae(), rows(6)
    found = refined(vae, x, steps=200)
    batch, total = found.rows.batch(), float(truth(x).sum())
    drawn = Predictive(found.model, guide=found.guide, num_samples=2000, parallel=True)(**batch)["z"]
    torch.testing.assert_close(drawn.mean(0), MODEL.posterior(x).mean, rtol=0, atol=0.15)
    loss = pv.objectives.ELBO(particles=7).loss(found.model, found.guide, **batch)
    assert loss == pytest.approx(-total, abs=0.05)
    svi = SVI(found.model, found.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO(num_particles=50))
    was = vae.likelihood.network.heads["loc"].weight.clone()
    assert svi.step(**batch) == pytest.approx(-total, abs=0.05)
    assert not torch.equal(vae.likelihood.network.heads["loc"].weight, was)  # the decoder is trained


def test_dynamic_rows_of_one_seed_are_the_same_rows() -> None:
    grey = pv.data.Rows({"x": torch.rand(20, 6, generator=seeded(7))}, dynamic=True)
    vae = pv.VAE((6,), 2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(5,)))
    found = refined(vae, grey, steps=5, seed=3)
    assert not found.rows.dynamic
    assert set(found.rows.x.unique().tolist()) == {0.0, 1.0}
    again = estimate(vae, grey, draws=30, seed=3)
    assert estimate(found, found.rows, draws=30).fingerprint == again.fingerprint


def test_same_seed_gives_the_same_and_leaves_everything_as_it_was() -> None:
    vae, x = misled_vae().train(), rows(9)
    state = torch.get_rng_state()
    first = refined(vae, x, steps=10, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert not list(pyro.get_param_store())
    torch.manual_seed(99)
    assert torch.equal(first.raw["loc"], refined(vae, x, steps=10, seed=3).raw["loc"])
    assert not torch.equal(first.raw["loc"], refined(vae, x, steps=10, seed=4).raw["loc"])


def test_dropout_is_off() -> None:
    class Noisy(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            assert not self.training
            return z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3)

    decoder = Noisy().eval()
    vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(4,)), decoder=decoder)
    decoder.training = True
    refined(vae, torch.randn(4, 3), steps=2)
    assert decoder.training


# As a proposal


def test_evidence_by_the_refined_proposal_is_exact_where_the_guide_fails() -> None:
    x, vae = rows(20), misled_vae(spread=0.3)
    plainly, mended = (estimate(vae, x, draws=1000, proposal=proposal) for proposal in ("guide", "refined"))
    assert float(plainly.unreliable.double().mean()) > 0.5
    assert float(plainly.pointwise.mean()) < float(truth(x).mean()) - 0.1
    assert float((mended.pointwise - truth(x)).abs().max()) < 0.05
    assert float(mended.mcse.mean()) < float(plainly.mcse.mean()) / 10
    method = Importance(2000, "refined", 37, steps=200)
    mended = estimate(misled_vae(pv.Normal(), spread=0.3), x, method=method)
    assert float(((mended.pointwise - truth(x)) / mended.mcse).abs().max()) < 4
    assert float(mended.unreliable.double().mean()) < 0.1
    assert "2000 draws for each from the refined proposal, refined by 200 steps" in repr(mended)
    assert mended.fingerprint == plainly.fingerprint


def test_command_line_refines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "fit --latent_dim 2 --epochs 1 --encoder MLP --encoder.hidden [8] --progress false --run run"
    main(words.split())
    words = "evaluate run --method.proposal refined --method.steps 3 --method.draws 50"
    main([*words.split(), "--progress", "false"])
    out = capsys.readouterr().out
    digits = pv.data.load("digits").test.to(dtype=torch.float32)
    assert repr(estimate(pv.load("run"), digits, method=Importance(50, "refined", steps=3))) in out
    assert "50 draws for each from the refined proposal, refined by 3 steps" in out
    with pytest.raises(SystemExit):
        main([*words.replace("refined", "guide").split()])
    assert "steps = 3 are steps of a refinement" in capsys.readouterr().err


# Wrong input

WRONG: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "own guide": (Chain(), {}, ["Chain", "guide of its own", "pv.VAE"]),
    "steps": (misled_vae(), {"steps": 0}, ["steps = 0", "at least 1"]),
    "particles": (misled_vae(), {"particles": 1.5}, ["particles = 1.5"]),
    "lr": (misled_vae(), {"lr": -1}, ["lr = -1", "above 0"]),
    "batch": (misled_vae(), {"batch_size": True}, ["batch_size = True"]),
    "seed": (misled_vae(), {"seed": -1}, ["seed = -1"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_a_sentence(name: str) -> None:
    vae, options, words = WRONG[name]
    with pytest.raises(pv.InputError) as caught:
        refined(vae, torch.zeros(4, 5), **options)
    assert not [word for word in words if word not in str(caught.value)], caught.value


def test_guide_of_its_own_is_refused_and_so_are_steps_of_nothing() -> None:
    class Own(pv.VAE):
        def guide(self, x: Tensor, **given: Tensor) -> Tensor:
            return super().guide(x, **given)

    with pytest.raises(pv.InputError, match="Own has a guide of its own"):
        refined(Own((5,), 2, encoder=pv.MLP(hidden=())), rows(2))
    with pytest.raises(pv.InputError, match=r"proposal='refined'.*Chain"):
        estimate(Chain(), torch.zeros(3, 4), proposal="refined")
    with pytest.raises(pv.InputError, match=r"steps = 5.*proposal='refined'"):
        Importance(steps=5)


def test_bound_that_is_nan_names_its_row() -> None:
    class Breaks(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.where(torch.arange(z.shape[-2]).unsqueeze(-1) == z.shape[-2] - 1, math.nan, z)

    vae = pv.VAE((2,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(4,)), decoder=Breaks())
    with pytest.raises(FloatingPointError, match="row 2 is not finite"):
        refined(vae, torch.zeros(5, 2), steps=2, batch_size=3)
