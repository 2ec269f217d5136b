"""The pictures of a latent space: they show what the guide and the decoder say, for every kind of event and prior."""

import numpy as np
import pytest
import torch
from helpers.exact_models import exact, rows
from helpers.pictures import labelled, readable
from scipy.stats import norm

import pyro_vae as pv
from pyro_vae.plots import aggregate_posterior, interpolations, manifold, traversals

EVENTS = [(), (1,), (4,), (30,), (1, 6, 5), (3, 6, 5)]
PRIORS = [
    (pv.Normal(0, 1), pv.Normal()),
    (pv.Mixture(pv.Normal(), components=3), pv.Normal()),
    (pv.Cauchy(0, 1), pv.Cauchy()),
    (pv.Gamma(2, 1), pv.Gamma()),
    (pv.Dirichlet(1.0), pv.Dirichlet()),
    (pv.Flow("nsf"), pv.Normal()),
]


def model(event: tuple[int, ...] = (4,), latent_dim: int = 2, **words: object) -> pv.VAE:
    return pv.VAE(event, latent_dim, encoder=pv.MLP(hidden=(4,)), **words)


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_picture_of_any_event_can_be_read(event) -> None:
    x = torch.rand(20, *event)
    vae = model(event).initialize(x)
    for picture in (traversals(vae, x), interpolations(vae, x), manifold(vae, side=5)):
        readable(picture)
        labelled(picture)


@pytest.mark.parametrize("latent_dim", [1, 40])
def test_picture_of_any_number_of_latents_can_be_read(latent_dim) -> None:
    x = torch.rand(20, 1, 4, 4)
    vae = model((1, 4, 4), latent_dim)
    for draw, most in ((aggregate_posterior, 30), (traversals, 9)):
        picture = draw(vae, x)
        readable(picture)
        labelled(picture)
        shown = len(picture.axes) if draw is aggregate_posterior else len(picture.axes[0].get_yticks())
        assert shown == min(latent_dim, most)
        assert (f"{most} of {latent_dim} latents" in picture.get_suptitle().replace("\n", " ")) == (latent_dim > most)


@pytest.mark.parametrize(("prior", "guide"), PRIORS, ids=lambda family: type(family).__name__)
def test_latent_figures_accept_any_prior(prior, guide) -> None:
    x = torch.rand(30, 4)
    vae = model(prior=prior, guide=guide).initialize(x)
    readable(aggregate_posterior(vae, x))
    traversals(vae, x)
    interpolations(vae, x)


def test_likelihood_without_a_mean_is_shown_by_draws() -> None:
    x = torch.randint(3, (20, 1, 4, 4)).float()
    vae = model((1, 4, 4), likelihood=pv.Categorical(classes=3)).initialize(x)
    for picture in (traversals(vae, x), interpolations(vae, x), manifold(vae, side=3)):
        assert picture.get_suptitle().startswith("Draws of p(x|z)")
    assert traversals(model(), torch.rand(5, 4)).get_suptitle().startswith("Means of p(x|z)")


def test_size_factors_and_masks_are_taken() -> None:
    x = torch.poisson(torch.full((20, 4), 3.0))
    given = {"size_factor": torch.full((20,), 2.0), "mask": torch.rand(20, 4) > 0.3}
    vae = model(likelihood=pv.Poisson()).initialize(x, **given)
    for draw in (aggregate_posterior, traversals, interpolations):
        draw(vae, x, **given)


def test_global_random_state_is_left_alone() -> None:
    x, vae = torch.rand(20, 4), model()
    vae.train()
    state = torch.get_rng_state()
    first = [traversals(vae, x), aggregate_posterior(vae, x), interpolations(vae, x), manifold(vae)]
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    torch.manual_seed(7)
    again = traversals(vae, x)
    np.testing.assert_array_equal(first[0].axes[0].lines[3].get_ydata(), again.axes[0].lines[3].get_ydata())


# ---- what is shown is what the model says --------------------------------------------------------------------------


def test_aggregate_of_the_exact_posterior_is_the_prior() -> None:
    x = rows(1500)
    close = aggregate_posterior(exact(), x)
    for axes in close.axes:
        ours, prior = (patch.get_data() for patch in axes.patches)
        width = np.diff(prior.edges)
        assert (ours.values * width).sum() == pytest.approx(1, abs=0.02)
        share = np.diff(norm.cdf(prior.edges))
        error = np.sqrt(share / 20_000)
        assert (abs(prior.values * width - share) < 5 * error).all()
        assert float(axes.get_title(loc="left").split()[-1]) < 0.05
    wide = aggregate_posterior(exact(spread=3.0), x)
    assert all(float(axes.get_title(loc="left").split()[-1]) > 0.1 for axes in wide.axes)


def test_traversal_moves_one_latent_from_the_posterior_mean() -> None:
    vae, x = exact(), rows(10)
    picture = traversals(vae, x, row=3, steps=5)
    z = vae.encode(x[3]).mean
    levels = torch.tensor([0.01, 0.25, 0.5, 0.75, 0.99], dtype=torch.float64)
    for latent, axes in enumerate(picture.axes[:2]):
        for line, at in zip(axes.lines, torch.distributions.Normal(0.0, 1.0).icdf(levels), strict=True):
            moved = z.clone()
            moved[latent] = at
            wanted = vae.decode(moved).mean.detach()
            np.testing.assert_allclose(line.get_ydata(), wanted, atol=0.2)  # quantiles are of 20,000 draws
    steps = [line.get_ydata() for line in picture.axes[0].lines]
    assert np.abs(steps[0] - steps[-1]).max() > 0.5


def test_line_between_rows_ends_at_their_posterior_means() -> None:
    vae, x = exact(), rows(10)
    picture = interpolations(vae, x, [(4, 7)], steps=3)
    axes = picture.axes[0]
    ends = vae.decode(vae.encode(x[[4, 7]]).mean).mean.detach().numpy()
    first, middle, last, *data = [line.get_ydata() for line in axes.lines]
    np.testing.assert_allclose([first, middle, last], [ends[0], ends.mean(0), ends[1]], atol=1e-9)
    np.testing.assert_allclose(data, x[[4, 7]])


def test_interpolation_of_images_has_the_data_at_its_ends() -> None:
    x = torch.rand(6, 1, 6, 5)
    vae = model((1, 6, 5)).initialize(x)
    axes = interpolations(vae, x, [(1, 5)], steps=4).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["data", "0", "0.33", "0.67", "1", "data"]
    shown = np.asarray(axes.images[0].get_array())
    for corner, row in ((0, 1), (5 * 6, 5)):
        image = x[row, 0].numpy()
        tile = shown[:6, corner : corner + 5]
        assert np.corrcoef(tile.ravel(), image.ravel())[0, 1] == pytest.approx(1, abs=1e-5)


def test_manifold_is_the_plane_of_two_latents() -> None:
    vae = exact()
    picture = manifold(vae, side=4)
    levels = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)
    at = torch.distributions.Normal(0.0, 1.0).icdf(levels)
    z = torch.stack(torch.meshgrid(at, at.flip(0), indexing="xy"), -1)
    wanted = vae.decode(z).mean.detach().numpy()
    for feature, axes in enumerate(picture.axes):
        np.testing.assert_allclose(axes.images[0].get_array(), wanted[..., feature], atol=0.1)
    assert len(picture.axes) == 5


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_manifold_of_three_latents_is_refused() -> None:
    with pytest.raises(pv.InputError, match=r"has 3: write pv\.plots\.traversals\(vae, x\)"):
        manifold(model(latent_dim=3))


@pytest.mark.parametrize("draw", [aggregate_posterior, traversals, interpolations], ids=lambda draw: draw.__name__)
def test_wrong_rows_and_models_are_refused(draw) -> None:
    with pytest.raises(pv.InputError, match="this picture is of a VAE"):
        draw(torch.nn.Linear(4, 2), torch.rand(5, 4))
    with pytest.raises(pv.InputError, match=r"\(N, 4\)|\(4,\)"):
        draw(model(), torch.rand(5, 3))
    with pytest.raises(pv.InputError, match="cannot be used as rows"):
        draw(model(), object())


def test_rows_that_are_not_there_are_refused() -> None:
    x, vae = torch.rand(5, 4), model()
    with pytest.raises(pv.InputError, match="row 5 is not there: x has 5 rows, from 0 to 4"):
        traversals(vae, x, row=5)
    with pytest.raises(pv.InputError, match="row 9 is not there"):
        interpolations(vae, x, [(0, 9)])
    with pytest.raises(pv.InputError, match=r"pairs=\[\(0, 1\), \(2, 3\)\]"):
        interpolations(vae, x, [])
    with pytest.raises(pv.InputError, match="steps = 1"):
        traversals(vae, x, steps=1)
    with pytest.raises(pv.InputError, match="side = 0"):
        manifold(vae, side=0)
