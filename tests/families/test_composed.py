"""Mixtures, and priors that depend on the model: what they compute, against sums written out by hand."""

import copy
import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from helpers import cases
from helpers.cases import Place
from torch import Tensor

import pyro_vae as pv
from pyro_vae.families import Family
from pyro_vae.families.conditional import Conditional
from pyro_vae.objectives import ELBO
from pyro_vae.training.loss import Loss

BLOBS = torch.tensor([[-10.0, 0.0, 5.0], [0.0, 10.0, 5.0], [10.0, -10.0, 5.0]])


def small(event: tuple[int, ...] = (3,), **arguments: Any) -> pv.VAE:
    return pv.VAE(event, 2, **{"encoder": pv.MLP(hidden=(5,), activation="tanh"), **arguments})


def blobs(count: int = 40) -> Tensor:
    """Three well separated clusters: 3, 2 and 1 in 6 of 6 * count rows."""
    centres = BLOBS.repeat_interleave(torch.tensor([3 * count, 2 * count, count]), 0)
    rows = centres + 0.5 * torch.randn(centres.shape, generator=cases.seeded())
    return rows[torch.randperm(len(rows), generator=cases.seeded(1))]


def fit(vae: Any, x: Any, **arguments: Any) -> pv.History:
    return pv.fit(vae, x, **{"epochs": 2, "batch_size": 20, "progress": False, **arguments})


def in_double(family: Family, event: tuple[int, ...] = (2,), role: str = "prior") -> Conditional:
    with cases.in_float64():
        return Place(role, event, None if role == "prior" else (2,)).build(family)


# ---- mixtures


@pytest.mark.parametrize("of", ["events", "elements"])
@pytest.mark.parametrize(
    "part", [pv.Normal(), pv.Laplace(scale="learned"), pv.Gamma(), pv.MultivariateNormal()], ids=repr
)
def test_mixture_is_the_sum_of_its_parts(part: Family, of: Any) -> None:
    vector = part.event_ranks == (1,)
    for event in ((3,),) if vector else cases.EVENTS:
        if vector and of == "elements":
            continue  # of vectors, the element is the event
        conditional = in_double(pv.Mixture(part, 4, of), event, "likelihood")
        context = torch.randn(5, 4, 2, dtype=torch.float64, generator=cases.seeded())
        x = 0.1 + torch.rand(4, *event, dtype=torch.float64, generator=cases.seeded())
        values = conditional.values(context)
        shares = values.pop("weights").softmax(-1)
        total = torch.zeros(5, 4, dtype=torch.float64)
        if of == "events":
            for k in range(4):
                single = {name: value.movedim(2, 0)[k] for name, value in values.items() if value.ndim > 2 + len(event)}
                shared = {name: value[k] for name, value in values.items() if name not in single}
                each = part.distribution(**single, **shared, validate_args=False).log_prob(x)
                total = total + shares[..., k] * each.reshape(5, 4, -1).sum(-1).exp()
            expected = total.log()
        else:
            each = part.distribution(**values, validate_args=False).log_prob(x.unsqueeze(-1))
            expected = (shares * each.exp()).sum(-1).log().reshape(5, 4, -1).sum(-1)
        torch.testing.assert_close(conditional(context).log_prob(x), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("latents", [1, 2, 3])
def test_guide_mixture_has_the_gradient_of_its_moments(latents: int) -> None:
    """Pathwise, through weights, locations and scales, where the component drawn is no smooth function.

    The fourth moments tell scales apart; the products, the places of components across the line between two.
    """
    conditional = in_double(pv.Mixture(pv.Normal(), components=3), (latents,))
    with torch.no_grad():
        for name, constant in conditional.constants.items():
            width = 0.4 if name == "scale" else 1.0
            constant.copy_(width * torch.randn(constant.shape, generator=cases.seeded(1)))
    weights, values = list(conditional.constants.values()), conditional.values()
    assert set(conditional.constants) == {"weights", "loc", "scale"}
    share, loc, variance = values["weights"].softmax(-1), values["loc"], values["scale"].square()
    fourth = loc**4 + 6 * loc.square() * variance + 3 * variance.square()
    exact = (share @ (loc + loc.square() + variance + 0.1 * fourth)).sum() + (share * loc.prod(-1)).sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(exact, weights, retain_graph=True)])
    groups = []
    for _ in range(50):
        z = conditional().rsample((2000,))
        estimate = (z + z.square() + 0.1 * z**4).sum(-1).mean() + z.prod(-1).mean()
        groups.append(torch.cat([g.flatten() for g in torch.autograd.grad(estimate, weights)]))
    found = torch.stack(groups)
    error = found.std(0) / 50**0.5
    assert bool(((error > 0) & (error < 0.1 * expected.abs().max())).all())  # known well enough to be judged
    assert bool(((found.mean(0) - expected).abs() < 5 * error).all())


def test_components_start_on_clusters_and_priors_apart() -> None:
    x = blobs()
    vae = small(likelihood=pv.Mixture(pv.Normal(), components=3, weights="per_feature"))
    vae.initialize(x)
    with torch.no_grad():
        flat = {name: value[0] for name, value in vae.likelihood.values(torch.zeros(1, 2)).items() if name == "loc"}
        raw = vae.likelihood.shift + vae.likelihood.unit * vae.likelihood.get_buffer("offset_loc")
    order = raw[:, 0].argsort()
    torch.testing.assert_close(raw[order], BLOBS, rtol=0, atol=0.3)
    torch.testing.assert_close(vae.likelihood.trained_value("weights").exp()[order], torch.tensor([3.0, 2, 1]) / 6)
    assert flat["loc"].shape == (3, 3)
    for prior in (pv.Mixture(pv.Normal(), 5), pv.Mixture(pv.MultivariateNormal(), 5)):
        loc = small(prior=prior).initialize(x).prior.trained_value("loc").detach()
        assert float(torch.pdist(loc).min()) > 0.05


def test_elements_start_from_their_lowest_values_to_their_highest() -> None:
    vae = small(likelihood=pv.Mixture(pv.Normal(), 3, "elements")).initialize(blobs())
    shift, unit = vae.likelihood.shift[:, None], vae.likelihood.unit
    loc = shift + (unit[:, None] if unit.ndim else unit) * vae.likelihood.get_buffer("offset_loc")
    assert loc.shape == (3, 3)
    assert bool((loc.diff(dim=-1) > 0).all())
    torch.testing.assert_close(loc.mean(-1), blobs().mean(0))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (pv.Mixture(), r"Mixture and Mixture\(.* both have a parameter 'weights'"),
        (pv.Flow(), r"Flow\(.* has networks of its own, so Mixture cannot be made of it"),
        (pv.Aggregate(), r"can|Aggregate"),
    ],
    ids=["mixture", "flow", "aggregate"],
)
@pytest.mark.parametrize("role", ["prior", "likelihood", "guide"])
def test_mixture_of_other_than_families_is_refused(part: Family, message: str, role: str) -> None:
    with pytest.raises(pv.InputError, match=message):
        small(**{role: pv.Mixture(part)})


# ---- VampPrior


def vamp(**arguments: Any) -> pv.VAE:
    return small(prior=pv.VampPrior(components=4, weights="per_feature"), **arguments)


def test_vampprior_is_the_mixture_of_posteriors_at_its_inputs() -> None:
    with cases.in_float64():
        vae = vamp()
    with torch.no_grad():
        vae.prior.constants["weights"].copy_(torch.tensor([0.3, -1.0, 2.0, 0.0]))
    z, inputs = torch.randn(6, 5, 2, dtype=torch.float64), vae.prior.distribution.inputs
    parts = torch.stack([vae.encode(u[None]).log_prob(z) for u in inputs], -1)
    log_weights = vae.prior.constants["weights"].log_softmax(-1)
    torch.testing.assert_close(vae.prior().log_prob(z), torch.logsumexp(log_weights + parts, -1))
    vae.prior().log_prob(z).sum().backward()
    for name, weight in (*vae.prior.named_parameters(), *vae.posterior.named_parameters()):
        assert weight.grad is not None, name
        assert bool(weight.grad.any()), name


@pytest.mark.parametrize("rows", [50, 3])
def test_pseudo_inputs_start_at_rows(rows: int) -> None:
    x = torch.randn(rows, 3)
    inputs = vamp().initialize(x).prior.distribution.in_data_unit()
    match = torch.isclose(inputs[:, None], x, rtol=0, atol=1e-6).all(-1)
    assert match.sum(1).tolist() == [1] * 4
    assert len(match.int().argmax(1).unique()) == min(rows, 4)


def test_vampprior_holds_no_weight_of_the_guide() -> None:
    vae = vamp().initialize(torch.randn(20, 3))
    own = {"inputs", "loc", "scale"}  # the pseudo-inputs, and the unit that they are in
    assert set(vae.prior.state_dict()) == {"initialized", "constants.weights", *(f"distribution.{n}" for n in own)}
    trained = Loss(vae, ELBO()).weights({"x": torch.randn(2, 3)})
    assert len({id(weight) for weight in trained.values()}) == len(trained) == len(list(vae.parameters()))
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO())
    svi.step(torch.randn(5, 3))
    names = [name for name in pyro.get_param_store() if ".prior" in name]
    assert len(names) == 2
    assert len(pyro.get_param_store()) == len(list(vae.parameters()))


def test_vampprior_follows_its_own_copy_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.plots._run_figures.write", lambda *arguments: None)
    vae = vamp()
    fit(vae, torch.randn(40, 3), run=tmp_path / "run")
    z = torch.randn(5, 2)
    expected = vae.prior().log_prob(z).detach()
    for other in (copy.deepcopy(vae), pv.load(tmp_path / "run"), vae.replace(likelihood=pv.Laplace())):
        assert other.prior.distribution._guide[0] is other.posterior
        assert torch.equal(other.prior().log_prob(z), expected)
        with torch.no_grad():
            next(iter(other.posterior.parameters())).add_(1.0)
        assert not torch.equal(other.prior().log_prob(z), expected)
    assert torch.equal(vae.prior().log_prob(z), expected)


def test_pseudo_inputs_of_counts_may_go_below_zero() -> None:
    """There an encoder's log(1 + x) has no value, and training goes wherever the gradient leads."""
    vae = vamp(likelihood=pv.Poisson()).initialize(torch.randint(4, (30, 3)).float())
    for value in (-5.0, 0.0):
        with torch.no_grad():
            vae.prior.distribution.inputs.fill_(value)
        vae.zero_grad()
        vae.prior().log_prob(torch.randn(5, 2)).sum().backward()
        gradient = vae.prior.distribution.inputs.grad
        assert bool(torch.isfinite(gradient).all() & (gradient != 0).all())
    x = torch.arange(5.0)
    torch.testing.assert_close(vae.posterior.inputs.view(x), x.log1p(), rtol=0, atol=0)


@pytest.mark.parametrize("family", [pv.VampPrior(), pv.Aggregate()], ids=["VampPrior", "Aggregate"])
@pytest.mark.parametrize("role", ["likelihood", "guide"])
def test_family_that_depends_on_the_guide_is_a_prior(family: Family, role: str) -> None:
    with pytest.raises(
        pv.InputError, match=rf"^{role}: {type(family).__name__} is .* so it can only be a prior: write"
    ):
        small(**{role: family})


# ---- Aggregate

TWO = (
    torch.randn(200, 3, generator=cases.seeded())
    + torch.tensor([4.0, -4.0, 4.0]) * (torch.arange(200) % 2 * 2 - 1)[:, None]
)
FEW = pv.Mixture(pv.MultivariateNormal(), components=3)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.plots._run_figures.write", lambda *arguments: None)


def two_stages() -> tuple[pv.VAE, pv.VAE]:
    """A model under N(0, I), and one with equal weights whose prior is fitted afterwards."""
    plain = small(encoder=pv.MLP(hidden=()))
    return plain, plain.replace(prior=pv.Aggregate(FEW))


def test_fit_trains_under_the_base_and_then_fits_the_density(tmp_path: Path, quick: None) -> None:
    plain, vae = two_stages()
    options = {"epochs": 10, "optimizer": pv.Adam(2e-2)}
    stages: Any = vae.prior.distribution
    assert not stages.fitted
    z = torch.randn(9, 2)
    assert torch.equal(vae.prior().log_prob(z), plain.prior().log_prob(z))
    under_base = fit(plain, TWO, **options)
    history = fit(vae, TWO, run=tmp_path / "run", **options)
    assert history["loss"].tolist() == under_base["loss"].tolist()
    for part in ("posterior", "likelihood"):
        assert cases.same(getattr(plain, part).state_dict(), getattr(vae, part).state_dict())
    assert bool(stages.fitted)
    torch.manual_seed(0)
    encoded = vae.encode(TWO).sample()
    gain = vae.prior().log_prob(encoded).mean() - stages.base().log_prob(encoded).mean()
    assert float(gain.detach()) > 0.1
    assert torch.equal(vae.prior().log_prob(z), stages.density().log_prob(z))
    for other in (pv.load(tmp_path / "run"), copy.deepcopy(vae)):
        assert bool(other.prior.distribution.fitted)
        assert torch.equal(other.prior().log_prob(z), vae.prior().log_prob(z))
        torch.manual_seed(1)
        drawn = other.sample(3)
        torch.manual_seed(1)
        assert torch.equal(drawn, vae.sample(3))


@pytest.mark.parametrize("family", [FEW, pv.Flow("realnvp", 1, (6,))], ids=["mixture", "flow"])
def test_aggregate_leaves_the_model_and_the_random_state_alone(family: Family) -> None:
    vae = small(encoder=pv.MLP(hidden=()), prior=pv.Laplace())
    fit(vae, TWO, epochs=5, optimizer=pv.Adam(2e-2))
    before, modes = copy.deepcopy(vae.state_dict()), [part.training for part in vae.modules()]
    found = []
    for seed in (0, 5):  # of the global generator, which nothing here depends on
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found.append(pv.aggregate(vae, TWO, family, epochs=5))
        assert torch.equal(torch.get_rng_state(), state)
    better, again = found
    assert cases.same(vae.state_dict(), before)
    assert [part.training for part in vae.modules()] == modes
    assert vae.declaration.prior == pv.Laplace()
    assert better.declaration.prior == pv.Aggregate(family, base=pv.Laplace())
    assert cases.same(better.state_dict(), again.state_dict())
    for part in ("posterior", "likelihood"):
        assert cases.same(getattr(vae, part).state_dict(), getattr(better, part).state_dict())
    z = vae.encode(TWO).sample()
    once_more = pv.aggregate(better, TWO, family, epochs=1)
    assert once_more.declaration.prior == better.declaration.prior
    with torch.no_grad():
        scores = [float(model.prior().log_prob(z).mean()) for model in (vae, better, once_more)]
    assert scores[0] < min(scores[1:])


def test_aggregate_takes_incomplete_rows_and_refuses_others() -> None:
    vae = small().initialize(TWO)
    mask = torch.rand(TWO.shape, generator=cases.seeded()) < 0.7
    gaps = torch.where(mask, TWO, math.nan)
    better = pv.aggregate(vae, {"x": gaps, "mask": mask}, FEW, epochs=1)
    assert bool(torch.isfinite(better.sample(5)).all())
    with pytest.raises(pv.InputError, match="not finite"):
        pv.aggregate(vae, gaps, FEW, epochs=1)
    with pytest.raises(pv.InputError, match=r"^prior: Gamma\(.* over the same set"):
        pv.aggregate(vae, TWO, pv.Gamma(), epochs=1)
