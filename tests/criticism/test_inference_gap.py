"""The inference gap, against gaps in closed form; each part has a model that is wrong in that part alone."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from helpers.exact_models import MODEL, estimate, exact, misled_vae, rows, truth
from helpers.oracles import PPCA
from helpers.pictures import rendered
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

import pyro_vae as pv
from pyro_vae.criticism import AIS, Importance, InferenceGap, inference_gap

SQUARE = torch.tensor([[4.0, 2.8], [2.8, 4.0]]).double()

TILTED = PPCA(torch.linalg.qr(MODEL.w)[0] @ torch.linalg.cholesky(SQUARE).T, MODEL.mu, MODEL.s2)
"""A model whose posterior has latents correlated by -0.35: of no diagonal guide, but its weights have a variance."""


def measured(vae: Any, x: Any, **options: Any) -> InferenceGap:
    return inference_gap(vae, x, progress=False, **options)


def of_the_family(model: PPCA = TILTED) -> float:
    """KL of the best diagonal Gaussian to N(m, S): 1/2 (sum log (S^-1)_ii + log det S)."""
    covariance = model.s2 * torch.linalg.inv(model.m)
    return 0.5 * float(torch.linalg.inv(covariance).diagonal().log().sum() + torch.logdet(covariance))


def of_the_encoder(vae: pv.VAE, x: Tensor, model: PPCA = TILTED) -> Tensor:
    """KL of what the encoder says to the exact posterior, less the family's part, in closed form."""
    with torch.no_grad():
        at = vae.encode(x)
        at = at if isinstance(at, MultivariateNormal) else MultivariateNormal(at.mean, at.variance.diag_embed())
    return kl_divergence(at, model.posterior(x))


def test_bad_encoder_and_a_poor_family_each_pay_their_part() -> None:
    x, vae = rows(20, TILTED), misled_vae(pv.Normal(), TILTED)
    gap = measured(vae, x, draws=2000, steps=200, particles=16)
    family = of_the_family()
    assert family == pytest.approx(-0.5 * math.log(1 - 0.35**2))
    assert float(gap.approximation.mean()) == pytest.approx(family, abs=0.01)
    assert float(((gap.approximation - family) / gap.approximation_mcse).abs().max()) < 4.5
    exactly = of_the_encoder(vae, x) - family
    assert float(((gap.amortisation - exactly) / gap.amortisation_mcse.hypot(torch.tensor(0.002))).abs().max()) < 4.5
    assert float(((gap.total - exactly - family) / gap.total_mcse).abs().max()) < 4.5
    torch.testing.assert_close(gap.total, gap.approximation + gap.amortisation)
    torch.testing.assert_close(gap.evidence.pointwise, truth(x, TILTED), rtol=0, atol=0.1)
    assert gap.warning == ""


def test_stated_errors_cover() -> None:
    """Rows that are all one row are repeats, each refined to the same posterior; 300 tell their mean to 0.03 nats."""
    x, vae = rows(1, TILTED).expand(300, -1), misled_vae(pv.Normal(), TILTED)
    gap = measured(vae, x, draws=300, steps=200, batch_size=300, seed=3)
    pairs = {
        "approximation": (gap.approximation, gap.approximation_mcse, of_the_family()),
        "total": (gap.total, gap.total_mcse, float(of_the_encoder(vae, x[:1])[0])),
        "amortisation": (
            gap.amortisation,
            gap.amortisation_mcse,
            float(of_the_encoder(vae, x[:1])[0]) - of_the_family(),
        ),
    }
    for name, (found, error, exactly) in pairs.items():
        assert float(found.std()) == pytest.approx(float(error.square().mean().sqrt()), rel=0.15), name
        assert float(found.mean()) == pytest.approx(exactly, abs=4 * float(found.std()) / math.sqrt(300)), name


def test_bad_encoder_alone_is_named() -> None:
    x, vae = rows(30, TILTED), misled_vae(model=TILTED)
    gap = measured(vae, x)
    assert abs(float(gap.approximation.mean())) < 0.01
    assert float(gap.amortisation.mean()) == pytest.approx(float(of_the_encoder(vae, x).mean()), rel=0.05)
    for words in ("the encoder costs most (100%)", "pv.refine(vae, x)", "200 steps"):
        assert words in repr(gap)


def test_poor_family_alone_is_named() -> None:
    model = TILTED
    vae = misled_vae(pv.Normal(), model)
    x, precision = rows(20, model), torch.linalg.inv(model.s2 * torch.linalg.inv(model.m))
    with torch.no_grad():  # an encoder that is the best diagonal one: linear means, one scale for all
        weight = torch.linalg.inv(model.m) @ model.w.T
        vae.posterior.network.heads["loc"].weight.copy_(weight)
        vae.posterior.network.heads["loc"].bias.copy_(-weight @ model.mu)
        vae.posterior.network.heads["scale"].bias.copy_(
            vae.posterior._transforms["scale"].inv(precision.diagonal().rsqrt())
        )
    gap = measured(vae, x, steps=100)
    assert abs(float(gap.amortisation.mean())) < 0.01
    assert float(gap.approximation.mean()) == pytest.approx(of_the_family(model), abs=0.01)
    assert "the family of the guide costs most" in gap.advice
    assert "pv.MultivariateNormal() or pv.Flow()" in gap.advice


def test_shared_parameter_counts_as_family() -> None:
    gap = measured(exact(spread=2.0), rows(20), steps=200)
    assert "let the network compute scale_tril" in gap.advice
    assert float(gap.amortisation.abs().max()) < 0.05


def test_gap_is_zero_at_the_exact_posterior() -> None:
    gap = measured(exact(), rows(20), draws=100, steps=50, batch_size=10)
    for part in (gap.approximation, gap.amortisation, gap.total):
        assert float(part.abs().max()) < 1e-8
    assert gap.negligible
    assert "nothing to change" in repr(gap)


def test_another_method_may_measure_log_p() -> None:
    x, method = rows(6), AIS(temperatures=50, chains=20, leapfrog=5)
    gap = measured(misled_vae(), x, draws=200, method=method)
    assert float((gap.evidence.pointwise - truth(x)).abs().max()) < 0.3
    assert gap.evidence.method == method
    assert float(gap.approximation.abs().mean()) < 0.2


def test_too_narrow_a_guide_is_warned_of() -> None:
    early = measured(misled_vae(spread=0.2), rows(12), steps=1)
    assert early.warning == f"{early.evidence.warning[:-1]}. The approximation gap is then too small"
    assert early.warning in repr(early)


def test_gap_evidence_equals_that_of_the_refined_proposal() -> None:
    x = rows(5)
    found = measured(misled_vae(), x, draws=50, steps=5).evidence
    other = estimate(misled_vae(), x, method=Importance(50, "refined", steps=5))
    assert found.method == other.method
    assert (found.fingerprint, found.measure) == (other.fingerprint, other.measure)


def test_everything_is_left_as_it_was_and_a_seed_gives_the_same() -> None:
    vae, x = misled_vae().train(), rows(5)
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    state = torch.get_rng_state()
    first, again = (measured(vae, x, draws=50, steps=5, seed=2) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    assert torch.equal(first.total, again.total)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 1}, "draws = 1"),
        ({"method": "AIS"}, "'AIS' is not a method: write method=pv.criticism.AIS"),
        ({"lr": 0}, "lr = 0"),
        ({"steps": 0}, "steps"),
    ],
)
def test_wrong_input_is_a_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(pv.InputError, match=words):
        measured(misled_vae(), rows(3), **options)
    with pytest.raises(pv.InputError, match="guide of its own"):
        measured(object(), rows(3))


def test_picture_shows_both_parts_of_each_row() -> None:
    gap = measured(misled_vae(pv.Normal()), rows(12), draws=50, steps=20)
    picture = pv.plots.inference_gap(gap)
    assert rendered(picture).std() > 0
    left, right = picture.axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx(
        [gap.parts["approximation"][0], gap.parts["amortisation"][0]]
    )
    order = gap.total.argsort()
    lower, upper = (steps.get_data() for steps in right.patches)
    assert lower.values.tolist() == pytest.approx(gap.approximation[order].tolist())
    assert (upper.values - upper.baseline).tolist() == pytest.approx(gap.amortisation[order].tolist())
    assert rendered(pv.plots.inference_gap(measured(misled_vae(), rows(1), draws=50, steps=5))).std() > 0


def test_gap_figure_cuts_off_an_outlying_row() -> None:
    gap = measured(misled_vae(pv.Normal()), rows(40), draws=50, steps=5)
    far = gap.amortised.clone()
    far[3] -= 1000
    picture = pv.plots.inference_gap(dataclasses.replace(gap, amortised=far))
    right = picture.axes[1]
    assert right.get_ylim()[1] < 3 * float(gap.total.max())
    assert "1 row is cut off: up to 10" in right.get_xlabel()
    assert "cut off" not in pv.plots.inference_gap(gap).axes[1].get_xlabel()
