"""Pictures: what they show is what was computed; they are drawn for every kind of event."""

import dataclasses

import numpy as np
import pandas
import pytest
import torch
from helpers.pictures import readable, rendered
from matplotlib import colormaps
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.path import Path

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


def held_by_contours(vae: pv.VAE) -> list[float]:
    """The shares of draws of the prior that lie within its contours, ascending."""
    axes = pv.plots.latent(vae, torch.rand(30, 4)).axes[0]
    drawn = vae.prior().sample((100_000,)).detach().numpy()
    paths = [path for found in axes.collections if isinstance(found, ContourSet) for path in found.get_paths()]
    contours = [path.to_polygons(closed_only=False) for path in paths]
    contours = contours or [[line.get_xydata()] for line in axes.lines if line.get_ls() == "--"]
    inside = [sum(Path(part).contains_points(drawn) for part in parts) % 2 for parts in contours]
    return sorted(float(each.mean()) for each in inside)


PRIORS = [
    (pv.Normal([0.0, 1.0], [1.0, 3.0]), pv.Normal()),
    (pv.MultivariateNormal(), pv.Normal()),
    (pv.Mixture(pv.Normal(), components=3), pv.Normal()),
    (pv.Gamma(2, 1), pv.Gamma()),
    (pv.Cauchy(0, 1), pv.Cauchy()),
    (pv.Flow("nsf"), pv.Normal()),
]


@pytest.mark.parametrize(("prior", "guide"), PRIORS, ids=lambda family: type(family).__name__)
def test_contours_of_the_prior_hold_what_they_say(prior: pv.families.Family, guide: pv.families.Family) -> None:
    vae = model((4,), prior=prior, guide=guide).initialize(torch.rand(30, 4))
    with torch.no_grad():
        assert held_by_contours(vae) == pytest.approx([0.5, 0.9, 0.99], abs=0.013)


def test_contours_of_a_gaussian_are_exact_circles() -> None:
    axes = pv.plots.latent(model((4,)), torch.rand(30, 4)).axes[0]
    circles = [line for line in axes.lines if line.get_ls() == "--"]
    radii = [np.hypot(*line.get_xydata().T) for line in circles]
    wanted = np.sqrt(-2 * np.log([0.5, 0.1, 0.01]))
    np.testing.assert_allclose(radii, np.broadcast_to(wanted[:, None], np.shape(radii)))


def drawn_labels(labels: object) -> tuple[np.ndarray, dict[str, str], Figure]:
    """Colours of the rows' ellipses, those of the legend by label, and the picture."""
    picture = pv.plots.latent(model((4,)), torch.rand(60, 4), labels)
    (ellipses,) = [c for c in picture.axes[0].collections if isinstance(c, EllipseCollection)]
    handles = picture.axes[0].get_legend().legend_handles
    return ellipses.get_facecolors()[:, :3], {each.get_label(): each.get_color() for each in handles[1:]}, picture


WORDS = ["cat", "dog", "bird"] * 20


@pytest.mark.parametrize(
    "labels",
    [WORDS, np.array(WORDS), np.array(WORDS, object), pandas.Series(WORDS), pandas.Series(WORDS).astype("category")],
    ids=["list", "array", "objects", "series", "categories"],
)
def test_labels_may_be_words(labels: object) -> None:
    rows, legend, picture = drawn_labels(labels)
    assert set(legend) == {"cat", "dog", "bird"}
    np.testing.assert_allclose(rows, [to_rgb(legend[word]) for word in WORDS])
    readable(picture)


@pytest.mark.parametrize("labels", [torch.arange(60) % 3 > 0, (torch.arange(60) % 3).float()], ids=["bool", "float"])
def test_labels_may_be_truths_and_numbers_of_classes(labels: torch.Tensor) -> None:
    rows, legend, _ = drawn_labels(labels)
    written = [str(bool(each)) if labels.dtype == torch.bool else f"{each:g}" for each in labels.tolist()]
    assert set(legend) == set(written)
    np.testing.assert_allclose(rows, [to_rgb(legend[word]) for word in written])


def test_classes_beyond_ten_share_a_colour_and_are_counted() -> None:
    labels = torch.cat([torch.arange(30), torch.arange(10, 20).repeat(3)])
    rows, legend, picture = drawn_labels(labels)
    assert list(legend) == [*map(str, range(10, 20)), "20 other classes"]
    assert len(set(legend.values())) == 11
    wanted = [legend.get(str(label), legend["20 other classes"]) for label in labels.tolist()]
    np.testing.assert_allclose(rows, [to_rgb(colour) for colour in wanted])
    readable(picture)


def test_continuous_labels_have_a_colour_bar() -> None:
    labels = torch.linspace(-1, 3, 60)
    labels[7] = float("nan")
    rows, legend, picture = drawn_labels(labels)
    assert legend == {}
    (bar,) = picture.axes[1:]
    assert bar.get_ylim() == pytest.approx((-1, 3))
    assert bar.get_ylabel() == "label"
    known = [at for at in range(60) if at != 7]
    np.testing.assert_allclose(rows[known], colormaps["cividis"]((labels[known].numpy() + 1) / 4)[:, :3], atol=0.02)
    np.testing.assert_allclose(rows[7], to_rgb("#bbbbbb"))
    readable(picture)


@pytest.mark.parametrize("labels", [torch.zeros(59), torch.zeros(60, 3), ["a"], 3, torch.zeros(400)])
def test_wrong_number_of_labels_is_refused(labels: object) -> None:
    with pytest.raises(pv.InputError, match=r"labels have shape .* x has 60 rows: give one label for each row"):
        pv.plots.latent(model((4,)), torch.rand(60, 4), labels)


def test_latent_picture_shows_the_estimates_it_is_given() -> None:
    vae, x = model((4,), 3), torch.randn(80, 4)
    usage = pv.criticism.latents(vae, x, progress=False)
    usage = dataclasses.replace(usage, spread=torch.tensor([0.1, 3.0, 2.0]))
    axes = pv.plots.latent(vae, x, usage=usage).axes[0]
    assert f"prior: {usage.surgery.aggregate:.2f} nats" in axes.get_title(loc="left")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latent 1", "latent 2")


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
