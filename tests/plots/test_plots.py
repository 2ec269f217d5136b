"""Pictures: what they show is what was computed; they are drawn for every kind of event."""

import numpy as np
import pytest
import torch
from helpers.pictures import rendered
from matplotlib.collections import EllipseCollection

import pyro_vae as pv
from pyro_vae.plots.samples import image_grid
from pyro_vae.training import History

EVENTS = [(), (1,), (4,), (40,), (6, 5), (1, 6, 5), (3, 6, 5)]


def model(event_shape: tuple[int, ...], latent_dim: int = 2, **words: object) -> pv.VAE:
    return pv.VAE(event_shape, latent_dim, encoder=pv.MLP(hidden=(4,)), **words)


@pytest.mark.parametrize("event_shape", EVENTS, ids=str)
def test_draws_and_reconstructions_of_every_kind_of_event(event_shape: tuple[int, ...]) -> None:
    x = torch.rand(70, *event_shape)
    vae = model(event_shape).initialize(x)
    for picture in (pv.plots.prior_predictive(vae, x), pv.plots.reconstructions(vae, x)):
        assert rendered(picture).std() > 0
        titled = [axes.get_title(loc="left") for axes in picture.axes]
        assert all(titled)


def test_images_without_means_are_shown_as_draws_alone() -> None:
    x = torch.randint(3, (40, 1, 4, 4)).float()
    vae = model((1, 4, 4), likelihood=pv.Categorical(classes=3)).initialize(x)
    assert len(pv.plots.prior_predictive(vae, x).axes) == 2
    assert len(pv.plots.prior_predictive(vae.replace(likelihood=pv.Normal()), x).axes) == 3


def test_grid_puts_each_image_where_it_belongs() -> None:
    x = torch.arange(6.0).reshape(6, 1, 1).expand(6, 2, 2)
    shown = image_grid(x, columns=3).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown[::3, ::3], [[0, 0.2, 0.4], [0.6, 0.8, 1.0]], atol=1e-6)
    beside = image_grid(x[3:], x[:3], columns=2).axes[0].images[0].get_array()
    np.testing.assert_allclose(beside[::3, ::3], [[0, 0.5], [1, 1], [1, 1], [1, 1]], atol=1e-6)


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
@pytest.mark.parametrize("guide", [pv.Normal(), pv.MultivariateNormal()], ids=str)
def test_latent_picture_shows_the_posteriors(latent_dim: int, guide: pv.families.Family) -> None:
    x, labels = torch.randn(50, 4), torch.arange(50) % 3
    vae = model((4,), latent_dim, guide=guide)
    picture = pv.plots.latent(vae, x, labels)
    axes = picture.axes[0]
    assert "KL from aggregate posterior to prior" in axes.get_title(loc="left")
    (ellipses,) = [c for c in axes.collections if isinstance(c, EllipseCollection)]
    assert len(ellipses.get_offsets()) == 50
    assert {text.get_text() for text in axes.get_legend().get_texts()} >= {"0", "1", "2"}
    rendered(picture)
    rendered(pv.plots.latent(vae, x))


def test_latent_ellipses_are_the_posteriors_own() -> None:
    """A guide with known location and scale: the ellipse's centre and its axes, one standard deviation long."""
    vae = pv.VAE((2,), 2, guide=pv.Normal(scale=[0.5, 2.0]), encoder=pv.MLP(()))
    with torch.no_grad():
        head = vae.posterior.network.heads["loc"]
        head.weight.copy_(torch.eye(2))
        head.bias.zero_()
    x = torch.tensor([[0.0, 0.0], [1.0, -1.0], [3.0, 2.0]])
    (ellipses,) = [c for c in pv.plots.latent(vae, x).axes[0].collections if isinstance(c, EllipseCollection)]
    np.testing.assert_allclose(ellipses.get_offsets(), x, atol=0.6)
    np.testing.assert_allclose(
        np.sort([ellipses.get_widths(), ellipses.get_heights()], axis=0).mean(1), [1, 4], rtol=0.2
    )


@pytest.mark.parametrize("epochs", [1, 2, 30])
@pytest.mark.parametrize("held", [False, True])
def test_training_shows_each_column(epochs: int, held: bool) -> None:
    columns = ("loss", "log_likelihood", "kl")
    record = {name: float(i) for i, name in enumerate(columns)}
    if held:
        record |= {f"validation_{name}": value + 0.5 for name, value in record.items()}
    history = History([{"epoch": epoch, "seconds": 1.0, **record} for epoch in range(1, epochs + 1)])
    picture = pv.plots.training(history)
    for i, axes in enumerate(picture.axes):
        assert [line.get_ydata()[0] for line in axes.lines] == ([i, i + 0.5] if held else [i])
        assert axes.get_xlabel() == "epoch"
    assert picture.axes[0].get_ylabel() == "nats per row"
    rendered(picture)


def test_training_says_where_a_likelihood_is_none() -> None:
    history = History(
        [{"epoch": 1, "seconds": 1.0, "loss": 1.0, "log_likelihood": 0.0, "kl": 1.0}], caveat="no density"
    )
    picture = pv.plots.training(history)
    assert picture.axes[1].get_title(loc="left") == "minus cross-entropy"
    assert "no density" in [text.get_text() for text in picture.texts]
