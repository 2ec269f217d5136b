"""Figures of draws and reconstructions: grids of images, intervals and scatter of vectors."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError
from pyro_vae.criticism.session import evaluation
from pyro_vae.data.images import is_image
from pyro_vae.model.vae import VAE
from pyro_vae.plots._layout import FEATURES
from pyro_vae.plots._style import COLOURS, INK, array, figure, tidy

SCATTER_FEATURES, SCATTER_ROWS = 6, 500
"""Maximum numbers of features and rows in the scatter of replicates."""


@explained
def prior_predictive(vae: VAE, x: Any, *, side: int = 8, seed: int = 0, **given: Any) -> Figure:
    """Figure of draws from the model beside data.

    Images: data, draws x ~ p(x|z) with z ~ p(z), and the decoder's means at other z. Vectors: the 50 % and 90 %
    intervals of data and of draws, by feature.

    Args:
        vae: the model.
        x: data (N, *event_shape), as for `fit`, for comparison.
        side: the number of images on a side of a grid.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows: draws take their size factors from them, in turn.
    """
    given = vae.as_batch(x, **given)
    x = given.pop("x")
    image = is_image(tuple(x.shape[1:]))
    count = side**2 if image else 2000
    sizes: dict[str, Any] = {
        name: given[name][torch.arange(count) % len(given[name])] for name in ("size_factor",) if name in given
    }
    with evaluation(vae, seed):
        drawn = vae.sample(count, **sizes)
        if not image:
            return _draw_intervals(x, drawn)
        grids = {"data": x[:count], "draws: z ~ p(z), x ~ p(x|z)": drawn}
        with contextlib.suppress(InputError):  # a likelihood without a mean
            grids["means of p(x|z), z ~ p(z)"] = vae.sample(count, mean=True, **sizes)
    picture = figure(7.4 / len(grids), 7.0)
    _draw_grids(picture.subplots(1, len(grids)), grids, side, x)
    return picture


@explained
def reconstructions(vae: VAE, x: Any, *, count: int = 12, seed: int = 0, **given: Any) -> Figure:
    """Figure of rows beside their replicates, z ~ q(z|x), x' ~ p(x|z).

    Images: originals, draws and means in three rows. Vectors: replicate against original, in a colour for each feature
    and in units of its standard deviation.

    Args:
        vae: the model.
        x: rows (N, *event_shape), as for `fit`.
        count: the number of images.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows; missing values of vectors, by `mask`, are not shown.
    """
    given = vae.as_batch(x, **given)
    x = given.pop("x")
    image = is_image(tuple(x.shape[1:]))
    count = count if image else SCATTER_ROWS
    shown, given = x[:count], {name: value[:count] for name, value in given.items()}
    with evaluation(vae, seed):
        drawn = vae.reconstruct(shown, **given)
        if not image:
            return _draw_scatter(shown, drawn, given.get("mask"))
        grids = {"originals": shown, "replicates: z ~ q(z|x), x' ~ p(x|z)": drawn}
        with contextlib.suppress(InputError):  # a likelihood without a mean
            grids["means of p(x|z), z ~ q(z|x)"] = vae.reconstruct(shown, mean=True, **given)
    picture = figure(0.85 * len(grids))
    _draw_grids(picture.subplots(len(grids), 1), grids, count, x)
    return picture


@explained
def image_grid(x: Tensor, beside: Tensor | None = None, *, columns: int = 8) -> Figure:
    """Figure of images in a grid; other images, if given, are each above its own.

    Args:
        x: images (N, H, W) or (N, C, H, W).
        beside: as many other images.
        columns: images in a line.
    """
    scale = x if beside is None else beside
    if beside is not None:  # lines of both in turn, the last ones filled with white
        white = scale.max().expand(-len(x) % columns, *x.shape[1:])
        both = [torch.cat([images, white]).unflatten(0, (-1, columns)) for images in (beside, x)]
        x = torch.stack(both, dim=1).flatten(0, 2)
    lines = -(-len(x) // columns)
    picture = figure(max(0.8 * lines, 0.8), 0.8 * columns)
    show_grid(picture.subplots(), x, columns, scale)
    return picture


def show_grid(axes: Axes, images: Tensor, columns: int, scale: Tensor) -> None:
    """Draw images (M, H, W) or (M, C, H, W) in lines, the last one filled with white.

    The lowest value of `scale` is black, and the highest one white.
    """
    low, high = float(scale.min()), float(scale.max())
    if images.ndim == 3:
        images = images.unsqueeze(1)
    images = ((images.float() - low) / (high - low or 1.0)).clamp(0, 1)
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    padded = torch.ones(rows * columns, channels, height + 1, width + 1)
    padded[:count, :, :height, :width] = images.cpu()
    sheet = padded.reshape(rows, columns, channels, height + 1, width + 1).permute(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    axes.imshow(array(sheet.squeeze(-1)), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def _draw_grids(panels: Iterable[Axes], grids: Mapping[str, Tensor], columns: int, scale: Tensor) -> None:
    """Draw images by title."""
    for axes, (title, images) in zip(panels, grids.items(), strict=True):
        show_grid(axes, images, columns, scale)
        axes.set_title(title, fontsize=9, loc="left", color=INK)


def _draw_intervals(x: Tensor, replicates: Tensor) -> Figure:
    x, replicates = x.reshape(len(x), -1), replicates.reshape(len(replicates), -1)
    shown = min(x.shape[1], FEATURES)
    picture = figure(3.2)
    axes = picture.subplots()
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    for offset, colour, label, rows in ((-0.15, COLOURS[0], "data", x), (0.15, COLOURS[1], "draws", replicates)):
        low, q1, median, q3, high = array(torch.quantile(rows[:, :shown].double().cpu(), levels, dim=0))
        at = torch.arange(shown).numpy() + offset
        axes.vlines(at, low, high, color=colour, lw=1)
        axes.vlines(at, q1, q3, color=colour, lw=4)
        axes.plot(at, median, "o", color="white", mec=colour, ms=4, label=label)
    note = "" if shown == x.shape[1] else f", the first {shown} of {x.shape[1]} features"
    tidy(axes, title=f"median, 50 % and 90 % intervals{note}", xlabel="feature", ylabel="value")
    axes.legend(frameon=False, fontsize=8)
    return picture


def _draw_scatter(x: Tensor, replicates: Tensor, mask: Tensor | None) -> Figure:
    known = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    x, replicates, known = (tensor.reshape(len(x), -1).cpu() for tensor in (x, replicates, known))
    centre, spread = x.mean(0), x.std(0).clamp(min=1e-9)
    shown = min(x.shape[1], SCATTER_FEATURES)
    picture = figure(3.6, 4.2)
    axes = picture.subplots()
    for feature in range(shown):
        both = [rows[known[:, feature], feature] for rows in (x, replicates)]
        at = [array((values - centre[feature]) / spread[feature]) for values in both]
        axes.plot(*at, ".", ms=3, alpha=0.5, color=COLOURS[feature], label=f"feature {feature}")
    axes.axline((0, 0), slope=1, color=INK, lw=0.8)
    note = "" if shown == x.shape[1] else f" (the first {shown} of {x.shape[1]} features)"
    unit = "standard deviations"
    tidy(axes, title=f"rows and their replicates{note}", xlabel=f"original, {unit}", ylabel=f"replicate, {unit}")
    axes.legend(frameon=False, fontsize=7, markerscale=3)
    return picture
