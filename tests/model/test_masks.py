"""What a mask leaves out has no say: in a density, a model, a guide, a bound, a fit, a picture."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import cases
from helpers.cases import Place
from helpers.oracles import PPCA, linear
from torch import Tensor
from torch.distributions import transform_to

import pyro_vae as pv
from pyro_vae.data.rows import fingerprint
from pyro_vae.families import FAMILIES, Family
from pyro_vae.families.base import Composite
from pyro_vae.model.validation import impute
from pyro_vae.objectives import ELBO
from pyro_vae.runs.folder import RunFolder

LIKELIHOODS = [name for name in FAMILIES if "likelihood" in cases.FAMILIES[name].roles]
ELEMENTWISE = [name for name in LIKELIHOODS if cases.FAMILIES[name].family.event_ranks is None]
VECTORS = [name for name in LIKELIHOODS if name not in ELEMENTWISE]
JUNK = (math.nan, -math.inf, -1e6, 0.5)


def small(likelihood: Family = pv.Normal(scale="learned"), **arguments: Any) -> pv.VAE:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return pv.VAE(
            (3,), 2, **{"likelihood": likelihood, "encoder": pv.MLP(hidden=(4,), activation="tanh"), **arguments}
        )


def some(x: Tensor, share: float = 0.7) -> Tensor:
    """A mask that leaves out 30 % of the values."""
    return torch.rand(x.shape, generator=cases.seeded(2)) < share


def gaps(rows: int = 200) -> dict[str, Tensor]:
    """Correlated rows, NaN where they are not observed."""
    x = torch.randn(rows, 1, generator=cases.seeded()) * torch.tensor([1.0, 2.0, -1.0])
    x = x + 0.3 * torch.randn(rows, 3, generator=cases.seeded(1)) + 4
    mask = some(x)
    return {"x": torch.where(mask, x, math.nan), "mask": mask}


# ---- densities


def by_element(distribution: Any, x: Tensor) -> Tensor:
    """The log density of each element, of a family whose elements are independent."""
    while isinstance(distribution, torch.distributions.Independent):
        distribution = distribution.base_dist
    assert not distribution.event_shape
    return distribution.log_prob(x)


def independent() -> list[Any]:
    """Every declaration of a family of independent elements, and its cases' name."""
    return [
        pytest.param(name, family, id=repr(family))
        for name in ELEMENTWISE
        for family in (
            *cases.FAMILIES[name].declarations,
            *([pv.Mixture(pv.Laplace(), 2, "elements")] * (name == "Laplace")),
        )
        if not (isinstance(family, pv.Mixture) and family.of == "events")
        if cases.fits(family, Place("likelihood", (3,), (2,)))
    ]


@pytest.mark.parametrize(("name", "family"), independent())
def test_masked_density_is_that_of_what_is_observed(name: str, family: Family) -> None:
    for event in cases.EVENTS:
        place = Place("likelihood", event, (2,))
        with cases.in_float64():
            conditional = place.build(family)
        context = place.contexts((5, 4), cases.seeded(), torch.float64)
        x = cases.FAMILIES[name].data(4, event, cases.seeded())
        mask = some(x)
        whole = conditional(context)
        each = by_element(whole, x)
        assert each.shape == (5, 4, *event)
        masked = conditional(context, mask=mask)
        assert (masked.batch_shape, masked.event_shape) == ((5, 4), event)
        expected = torch.where(mask, each, 0).reshape(5, 4, -1).sum(-1)
        junk = torch.where(mask, x.double(), math.nan)
        torch.testing.assert_close(masked.log_prob(junk), expected, rtol=1e-9, atol=1e-9)
        weights = list(conditional.parameters())
        for slope in torch.autograd.grad(masked.log_prob(junk).sum(), weights, allow_unused=True, retain_graph=True):
            assert slope is None or bool(torch.isfinite(slope).all())
        torch.testing.assert_close(conditional(context, mask=mask | True).log_prob(x), whole.log_prob(x))
        draws = masked.sample()
        assert bool(whole.support.check(draws).all())  # what was not observed is drawn all the same
        assert bool(torch.isfinite(draws).all())


@pytest.mark.parametrize("part", [pv.Normal(), pv.Laplace(scale="learned"), pv.Poisson()], ids=repr)
def test_mixture_of_events_shares_its_component_over_what_is_observed(part: Family) -> None:
    for event in cases.EVENTS:
        place = Place("likelihood", event, (2,))
        with cases.in_float64():
            conditional = place.build(pv.Mixture(part, components=3))
        context = place.contexts((5, 4), cases.seeded(), torch.float64)
        x = torch.randint(5, (4, *event), generator=cases.seeded()).double()
        mask = some(x)
        values = conditional.values(context)
        log_weights = values.pop("weights").log_softmax(-1)
        with_components = [tensor.unsqueeze(-1 - len(event)) for tensor in (x, mask)]
        each = part.distribution(**values, validate_args=False).log_prob(with_components[0])
        parts = torch.where(with_components[1], each, 0).reshape(5, 4, 3, -1).sum(-1)
        expected = torch.logsumexp(log_weights + parts, -1)
        torch.testing.assert_close(conditional(context, mask=mask).log_prob(x), expected, rtol=1e-9, atol=1e-9)
        whole = conditional(context).log_prob(x)
        torch.testing.assert_close(conditional(context, mask=mask | True).log_prob(x), whole)


@pytest.mark.parametrize(
    "family",
    [*(cases.FAMILIES[name].family for name in VECTORS), pv.Mixture(pv.MultivariateNormal(), components=2)],
    ids=repr,
)
def test_elements_that_depend_on_each_other_take_no_mask(family: Family) -> None:
    name = next(name for name in FAMILIES if isinstance(getattr(family, "family", family), FAMILIES[name]))
    x = cases.FAMILIES[name].data(4, (3,), cases.seeded()).float()
    vae = small(family)
    vae.check({"x": x})
    with pytest.raises(pv.InputError, match=r"takes no mask: .* Take a family with independent elements"):
        vae.check({"x": x, "mask": some(x)})


def test_every_likelihood_is_under_one_law() -> None:
    assert {*ELEMENTWISE, *VECTORS} == set(LIKELIHOODS)
    assert len(ELEMENTWISE) > len(VECTORS) > 4
    assert issubclass(pv.Mixture, Composite)


# ---- programs


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_that_a_mask_leaves_out_change_nothing(name: str) -> None:
    """Neither starting values, nor the bound, nor a gradient, bit for bit, whatever stands there."""
    x = cases.FAMILIES[name].data(12, (3,), cases.seeded()).float()
    mask = some(x)
    mask[:, 2] &= torch.arange(12) > 12  # a feature that nobody observed
    seen = []
    for junk in JUNK:
        vae = small(cases.FAMILIES[name].family)
        batch = {"x": torch.where(mask, x, junk), "mask": mask}
        torch.manual_seed(0)
        vae.initialize(**batch)
        loss = ELBO(particles=2).differentiable_loss(vae.model, vae.guide, **batch)
        loss.backward()
        gradients = {f"gradient of {key}": weight.grad for key, weight in vae.named_parameters()}
        seen.append({"loss": loss.detach(), **gradients, **vae.state_dict()})
        assert all(bool(torch.isfinite(value).all()) for value in seen[-1].values())
        assert any(
            bool(gradient.any()) for key, gradient in gradients.items() if key.startswith("gradient of posterior")
        )
    assert all(cases.same(seen[0], other) for other in seen[1:])


def test_mask_that_leaves_nothing_out_changes_nothing() -> None:
    x = torch.randn(12, 3, generator=cases.seeded())
    losses = []
    for given in ({}, {"mask": torch.ones(12, 3, dtype=torch.bool)}):
        vae = small().initialize(x, **given)
        torch.manual_seed(0)
        losses.append(ELBO().differentiable_loss(vae.model, vae.guide, x, **given))
    torch.testing.assert_close(*losses)
    torch.manual_seed(0)
    less = ELBO().differentiable_loss(vae.model, vae.guide, x, mask=some(x))
    assert float(less.detach()) < float(losses[0].detach())  # and one that does, does


def test_encoder_takes_what_is_missing_for_average() -> None:
    batch = gaps()
    vae = small().initialize(**batch)
    average = torch.where(batch["mask"], batch["x"], vae.posterior.inputs.loc)
    expected = vae.encode(average).base_dist
    found = vae.encode(batch["x"], mask=batch["mask"]).base_dist
    torch.testing.assert_close(found.loc, expected.loc)
    torch.testing.assert_close(found.scale, expected.scale)
    observed = torch.stack([column[seen].mean() for column, seen in zip(batch["x"].T, batch["mask"].T, strict=True)])
    torch.testing.assert_close(vae.posterior.inputs.loc, observed, rtol=0, atol=0.2)


def test_replicate_is_whole() -> None:
    batch = gaps()
    vae = small().initialize(**batch)
    for mean in (False, True):
        assert bool(torch.isfinite(vae.reconstruct(**batch, mean=mean)).all())
    torch.manual_seed(0)
    replicates = torch.stack([vae.reconstruct(**batch) for _ in range(5)])
    assert float(replicates.std(0).min()) > 0  # drawn everywhere, observed or not


def test_gaps_are_filled_with_observed_values_of_the_same_element_in_turn() -> None:
    x = torch.arange(24.0).reshape(8, 3)
    mask = torch.ones(8, 3, dtype=torch.bool)
    mask[::2, 0], mask[:, 1] = False, False
    filled = impute(torch.where(mask, x, math.nan), mask, -1.0)
    assert torch.equal(filled[mask], x[mask])
    assert filled[:, 1].tolist() == [-1.0] * 8
    assert filled[:, 0].sort().values.tolist() == [3.0, 3.0, 9.0, 9.0, 15.0, 15.0, 21.0, 21.0]


# ---- the bound, against the exact marginal


def test_bound_of_a_masked_linear_model_lies_below_the_marginal_and_tightens_to_it() -> None:
    oracle = PPCA.random(5, 2, s2=2.0).rotated()
    vae = oracle.put_into(linear(5, 2, pv.Normal(scale="per_feature")))
    with torch.no_grad():  # wider than any posterior, so that weights have a variance
        scale = transform_to(vae.posterior.slots["scale"].constraint).inv(torch.tensor(1.0, dtype=torch.float64))
        vae.posterior.constants["scale"].copy_(scale)
    marginal = oracle.marginal()
    x = marginal.sample((40,))
    mask = some(x)
    exact = torch.stack(
        [
            torch.distributions.MultivariateNormal(marginal.loc[m], marginal.covariance_matrix[m][:, m]).log_prob(
                row[m]
            )
            if m.any()
            else row.new_zeros(())
            for row, m in zip(x, mask, strict=True)
        ]
    )
    with torch.no_grad():
        particles = ELBO(particles=2000).draw(vae.model, vae.guide, torch.where(mask, x, math.nan), mask=mask)
    log_weights = particles.log_weights
    assert log_weights.shape == (2000, 40)
    bound, error = log_weights.mean(0), log_weights.std(0) / 2000**0.5
    assert bool((bound < exact + 5 * error).all())
    weights = (log_weights - exact).exp()
    assert bool(((weights.mean(0) - 1).abs() < 5 * weights.std(0) / 2000**0.5).all())
    assert float(weights.mean(0).log().abs().mean()) < 0.03 < float((exact - bound).min())


# ---- fits and runs


def test_fit_to_incomplete_rows_lowers_its_loss() -> None:
    held = {name: value[:50] for name, value in gaps(250).items()}
    history = pv.fit(
        small(), gaps(250), validation=held, epochs=8, batch_size=25, progress=False, optimizer=pv.Adam(1e-2)
    )
    assert history["loss"][-1] < history["loss"][0] - 0.3
    assert history["validation_log_likelihood"][-1] > history["validation_log_likelihood"][0]


def test_missing_value_is_drawn_from_what_is_known_of_its_row() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 1) * torch.tensor([1.0, 2.0, -1.0]) + 0.1 * torch.randn(400, 3)
    mask = torch.ones(400, 3, dtype=torch.bool)
    mask[:200, 1] = False
    vae = pv.VAE((3,), 1, encoder=pv.MLP(hidden=(16,)))
    batch = {"x": torch.where(mask, x, math.nan), "mask": mask}
    pv.fit(vae, batch, epochs=15, batch_size=50, progress=False, optimizer=pv.Adam(2e-2))
    imputed = vae.reconstruct(**batch, mean=True)[:200, 1]
    assert float(torch.corrcoef(torch.stack([imputed, x[:200, 1]]))[0, 1]) > 0.9


def trials() -> dict[str, Tensor]:
    """Successes of each row's own number of trials, some of them not observed."""
    size = torch.randint(2, 9, (40,), generator=cases.seeded()).float()
    x = torch.binomial(size[:, None].expand(40, 3), torch.tensor(0.6), generator=cases.seeded())
    return {"x": x, "mask": some(x), "size_factor": size}


def pixels() -> dict[str, Tensor]:
    x = torch.rand(40, 1, 4, 4, generator=cases.seeded())
    return {"x": torch.where(some(x), x, math.nan), "mask": some(x)}


RUNS: dict[str, tuple[Callable[[], pv.VAE], Callable[[], dict[str, Tensor]]]] = {
    "vectors": (small, gaps),
    "images": (lambda: pv.VAE((1, 4, 4), 2, encoder=pv.MLP(hidden=(4,))), pixels),
    "trials": (lambda: small(pv.Binomial(1)), trials),
}


@pytest.mark.parametrize("name", RUNS)
def test_run_on_incomplete_rows_draws_its_pictures_and_loads(pictures: None, name: str, tmp_path: Path) -> None:
    make, data = RUNS[name]
    vae, batch = make(), data()
    pv.fit(vae, batch, epochs=1, progress=False, run=tmp_path / "run")
    pictures = {"training.png", "draws.png", "reconstructions.png", "latent.png"}
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == pictures
    again = pv.load(tmp_path / "run")
    assert cases.same(again.state_dict(), vae.state_dict())
    losses = []
    for model in (vae, again):
        torch.manual_seed(0)
        losses.append(ELBO().loss(model.model, model.guide, **batch))
    assert losses[0] == losses[1]
    recorded = RunFolder(tmp_path / "run").spec()["fingerprint"]
    assert recorded == fingerprint(data()["x"])
    assert recorded != fingerprint(impute(batch["x"], batch["mask"], 0.0) + 1)


def test_pictures_show_what_was_observed() -> None:
    batch = gaps()
    mask = batch["mask"]
    x = impute(batch["x"], mask, 0.0)
    vae = small().initialize(**batch)
    lines = pv.plots.reconstructions(vae, x, mask=mask).axes[0].lines
    for feature in range(3):
        shown = torch.as_tensor(lines[feature].get_xdata())
        seen = x[mask[:, feature], feature]
        torch.testing.assert_close(shown.float(), (seen - x[:, feature].mean()) / x[:, feature].std())
    posterior = vae.encode(x, mask=mask).mean.detach()
    torch.manual_seed(0)
    axes = pv.plots.latent(vae, x, mask=mask).axes[0]
    order = vae.encode(x, mask=mask).mean.var(0).argsort(descending=True).sort().values
    centres = torch.as_tensor(axes.collections[0].get_offsets()).float()
    torch.testing.assert_close(centres, posterior[:, order][: len(centres)], rtol=0, atol=0.5)


def test_picture_of_draws_takes_the_size_factors_of_its_rows() -> None:
    batch = trials()
    size = torch.full((40,), 1000.0)
    vae = small(pv.Binomial(1)).initialize(**batch)
    axes = pv.plots.prior_predictive(vae, batch["x"], size_factor=size).axes[0]
    medians = [line.get_ydata() for line in axes.lines]
    assert min(medians[1]) > 100 > max(medians[0])
