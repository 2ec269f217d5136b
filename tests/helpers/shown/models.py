"""Laws of pictures of models and of training."""

import numpy as np
import torch
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from scipy.stats import ks_2samp, norm

from helpers.shown.base import Array, World, grey, head, key, law, same, tiles, title
from pyro_vae import plots
from pyro_vae.criticism.session import evaluation


@law
def training(world: World) -> None:
    history = world.results.history
    picture = plots.training(history)
    panels = {title(axes): axes for axes in picture.axes if axes.axison}
    wanted = {"minus the bound": "loss", "log-likelihood": "log_likelihood", "KL from guide to prior": "kl"}
    assert list(panels)[:3] == list(wanted)
    splits = key(picture.axes[0])
    for name, column in wanted.items():
        for split, prefix in (("training", ""), ("validation", "validation_")):
            (line,) = [line for line in panels[name].lines if to_hex(line.get_color()) == splits[split]]
            same(line.get_xdata(), history["epoch"])
            same(line.get_ydata(), history[prefix + column])
            assert line.get_linestyle() == {"training": "-", "validation": "--"}[split]
    assert panels["minus the bound"].get_ylabel() == "nats per row"


@law
def prior_predictive(world: World) -> None:
    with evaluation(world.vae, 0):
        drawn = world.vae.sample(2000)
    (axes,) = plots.prior_predictive(world.vae, world.x).axes
    for line, values in zip(axes.lines, (world.x, drawn), strict=True):
        levels = np.quantile(values.detach().double().numpy(), [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        same(line.get_ydata(), levels[2], 1e-5)
        assert line.get_label() == ("data" if values is world.x else "draws")
        colour = to_hex(line.get_markeredgecolor())
        bars = {part.get_linewidths()[0]: part for part in axes.collections if to_hex(part.get_color()[0]) == colour}
        for width, ends in ((1, levels[[0, 4]]), (4, levels[[1, 3]])):
            same([segment[:, 1] for segment in bars[width].get_segments()], ends.T, 1e-5)
    vae, x, _ = world.images
    with evaluation(vae, 0):
        wanted = {
            "data": x[:64],
            "draws: z ~ p(z), x ~ p(x|z)": vae.sample(64),
            "means of p(x|z), z ~ p(z)": vae.sample(64, mean=True),
        }
    _grids(plots.prior_predictive(vae, x), wanted, 8, x)


@law
def reconstructions(world: World) -> None:
    with evaluation(world.vae, 0):
        drawn = world.vae.reconstruct(world.x)
    (axes,) = plots.reconstructions(world.vae, world.x).axes
    mean, spread = world.x.mean(0), world.x.std(0)
    for feature, line in enumerate(axes.lines[:4]):
        assert line.get_label() == f"feature {feature}"
        same(line.get_xdata(), ((world.x - mean) / spread)[:, feature], 1e-5)
        same(line.get_ydata(), ((drawn - mean) / spread)[:, feature].detach(), 1e-5)
    assert axes.get_xlabel().startswith("original")
    assert axes.get_ylabel().startswith("replicate")
    vae, x, _ = world.images
    with evaluation(vae, 0):
        wanted = {
            "originals": x[:12],
            "replicates: z ~ q(z|x), x' ~ p(x|z)": vae.reconstruct(x[:12]),
            "means of p(x|z), z ~ q(z|x)": vae.reconstruct(x[:12], mean=True),
        }
    _grids(plots.reconstructions(vae, x), wanted, 12, x)


def _grids(picture: Figure, wanted: dict[str, torch.Tensor], columns: int, scale: torch.Tensor) -> None:
    assert [axes.get_title(loc="left") for axes in picture.axes] == list(wanted)
    for axes, images in zip(picture.axes, wanted.values(), strict=True):
        same(tiles(axes, columns, (6, 5)), grey(images.detach(), scale), 1e-5)


@law
def image_grid(world: World) -> None:
    _, x, _ = world.images
    same(tiles(plots.image_grid(x[:8], columns=4).axes[0], 4, (6, 5)), grey(x[:8], x[:8]), 1e-5)
    both = tiles(plots.image_grid(x[:4], x[4:8], columns=4).axes[0], 4, (6, 5))
    same(both, grey(torch.cat([x[4:8], x[:4]]), x[4:8]), 1e-5)


@law
def latent(world: World) -> None:
    usage, labels = world.results.latents, world.results.rows.labels
    picture = plots.latent(world.vae, labels=labels, usage=usage, **world.given())
    axes = picture.axes[0]
    first, second = sorted(np.argsort(-usage.spread.numpy())[:2])
    assert (axes.get_xlabel(), axes.get_ylabel()) == (f"latent {first}", f"latent {second}")
    posterior = world.vae.encode(world.x)
    mean, scale = (part.detach().numpy()[:, [first, second]] for part in (posterior.mean, posterior.stddev))
    (ellipses,) = [part for part in axes.collections if isinstance(part, EllipseCollection)]
    assert abs(ellipses.get_offsets() - mean).max() < 6 * scale.max() / 16  # means of 256 draws
    across, up = _extents(ellipses)
    same(np.stack([across, up], 1) / (2 * scale), np.ones((len(mean), 2)), 0.15)
    assert labels is not None
    classes = {text: colour for text, colour in key(axes).items() if not text.startswith("prior")}
    wanted = [classes[str(int(label))] for label in labels]
    assert [to_hex(colour) for colour in ellipses.get_facecolors()] == wanted
    circles = [line for line in axes.lines if line.get_ls() == "--"]
    radii = [np.hypot(*line.get_xydata().T).mean() for line in circles]
    same(1 - np.exp(-np.square(radii) / 2), [0.5, 0.9, 0.99], 1e-6)
    kl = usage.surgery
    assert f"prior: {'at most ' * kl.saturated}{kl.aggregate:.2f} nats" in title(axes)
    parts = f"{kl.mean:.2f} = {kl.information:.2f} information + {kl.aggregate:.2f}; {kl.rows} rows"
    assert f"(mean KL per row {parts})" in title(axes)


def _extents(ellipses: EllipseCollection) -> tuple[Array, Array]:
    """Full widths and heights of the boxes around ellipses."""
    width, height, angle = ellipses.get_widths(), ellipses.get_heights(), np.deg2rad(ellipses.get_angles())
    across = np.hypot(width * np.cos(angle), height * np.sin(angle))
    return across, np.hypot(width * np.sin(angle), height * np.cos(angle))


@law
def aggregate_posterior(world: World) -> None:
    with evaluation(world.vae, 0):
        z = world.vae.encode(world.x).sample((10,)).flatten(0, 1).numpy()
        prior = world.vae.prior().sample((20_000,)).numpy()
    picture = plots.aggregate_posterior(world.vae, world.x)
    assert set(key(picture)) == {"aggregate posterior", "prior"}
    distances = []
    for latent, axes in enumerate(picture.axes):
        distances.append(ks_2samp(z[:, latent], prior[:, latent]).statistic)
        assert title(axes) == f"latent {latent}: {distances[-1]:.2f}"
        for patch in axes.patches:
            heights, edges, _ = patch.get_data()
            values = (z if patch.get_fill() else prior)[:, latent]
            same(heights * np.diff(edges) * len(values), np.histogram(values, edges)[0], 1e-6)
    assert f"the largest {max(distances):.2f}." in head(picture)
    assert f"for {len(world.x)} rows" in head(picture)


@law
def traversals(world: World) -> None:
    vae, x = world.vae, world.x
    with evaluation(vae, 0):
        means, levels = vae.encode(x).mean, np.array([0.01, 0.25, 0.5, 0.75, 0.99])
    row = int((means - means[0]).norm(dim=-1).argmax())  # far from the first
    picture = plots.traversals(vae, x, row=row, steps=5)
    with evaluation(vae, 0):
        start = means[row]
        for latent, axes in enumerate(picture.axes[:3]):
            assert title(axes) == f"latent {latent}"
            for level, line in zip(levels, axes.lines, strict=True):
                z = start.clone()
                z[latent] = float(norm.ppf(level))
                ends = vae.decode(torch.stack([z, start])).mean
                slack = 0.1 * float(abs(vae.decode(z + torch.eye(3)[latent]).mean - ends[0]).max()) + 1e-3
                assert np.abs(line.get_ydata() - ends[0].numpy()).max() < slack  # quantiles of 20,000 draws
        brightness = [np.mean(line.get_color()[:2]) for line in picture.axes[0].lines]
    assert brightness == sorted(brightness)
    assert f"posterior mean of row {row}" in head(picture)


@law
def interpolations(world: World) -> None:
    vae, x = world.vae, world.x
    picture = plots.interpolations(vae, x, [(4, 7)], steps=3)
    with evaluation(vae, 0):
        one, other = vae.encode(x[[4, 7]]).mean
        wanted = vae.decode(torch.stack([one, (one + other) / 2, other])).mean
    first, *_ = picture.axes
    same([line.get_ydata() for line in first.lines[:3]], wanted, 1e-5)
    same([line.get_ydata() for line in first.lines[3:]], x[[4, 7]], 1e-5)
    assert title(first) == "rows 4, 7"
    assert [line.get_ls() for line in first.lines] == ["-", "-", "-", ":", ":"]


@law
def manifold(world: World) -> None:
    vae, _, _ = world.images
    axes = plots.manifold(vae, side=3).axes[0]
    at = norm.ppf([1 / 6, 1 / 2, 5 / 6])
    z = torch.tensor([[[across, up] for across in at] for up in at[::-1]]).float()
    with evaluation(vae, 0):
        images = vae.decode(z.flatten(0, 1)).mean
    same(tiles(axes, 3, (6, 5)), grey(images, images), 0.1)
    found = tiles(axes, 3, (6, 5)).reshape(3, 3, -1)
    close = grey(images, images).reshape(3, 3, -1)
    assert np.abs(found - close).mean() < 0.3 * np.abs(found - close[::-1]).mean()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.83", "0.5", "0.17"]
    assert axes.get_xlabel().startswith("latent 0")


@law
def graph(world: World) -> None:
    (axes,) = plots.graph(world.vae, world.x[:2]).axes
    nodes = {text.get_text(): text.xy for text in axes.texts}
    shaded = {tuple(p.center): to_hex(p.get_facecolor()) != "#ffffff" for p in axes.patches if isinstance(p, Circle)}
    assert shaded == {nodes["z"]: False, nodes["x"]: True}
    arrows = [(*map(tuple, p._posA_posB), p.get_linestyle()) for p in axes.patches if isinstance(p, FancyArrowPatch)]
    assert {((a, b), style) for a, b, style in arrows} == {
        ((nodes["z"], nodes["x"]), "-"),
        ((nodes["x"], nodes["z"]), "--"),
    }
