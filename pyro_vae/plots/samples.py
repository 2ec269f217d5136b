"""Pictures of draws and reconstructions: grids for images, intervals and scatter for vectors."""

import contextlib
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.session import evaluation
from pyro_vae.data.images import is_image
from pyro_vae.model.vae import VAE
from pyro_vae.plots._style import COLOURS, INK, array, figure, tidy

FEATURES = 30
"""Features shown of a long vector."""


def prior_predictive(vae: VAE, x: Tensor, *, side: int = 8, seed: int = 0, **given: Any) -> Figure:
    """Figure of new data beside real data.

    Images: real rows, draws x ~ p(x|z) with z ~ p(z), and the decoder's means for the same number of other
    z. Vectors: per feature, the 50 % and 90 % intervals of data and of draws.

    Args:
        vae: the model.
        x: real rows (N, *event_shape), for comparison.
        side: images per side of a grid.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows: draws take their size factors from them, in turn.

    Returns:
        The figure.
    """
    if not is_image(tuple(x.shape[1:])):
        with evaluation(vae, seed):
            drawn = vae.sample(2000, **_sizes(given, 2000))
        return _intervals(x, drawn)
    sizes = _sizes(given, side**2)
    with evaluation(vae, seed):
        panels = [("data", x[: side**2]), ("draws: z ~ p(z), x ~ p(x|z)", vae.sample(side**2, **sizes))]
        with contextlib.suppress(InputError):  # a likelihood without a mean: draws are all there is to see
            panels.append(("means of p(x|z), z ~ p(z)", vae.sample(side**2, mean=True, **sizes)))
    picture = figure(7.4 / len(panels), 7.0)
    for axes, (title, images) in zip(picture.subplots(1, len(panels)), panels, strict=True):
        show_grid(axes, images, side, x)
        axes.set_title(title, fontsize=9, loc="left", color=INK)
    return picture


def reconstructions(vae: VAE, x: Tensor, *, count: int = 12, seed: int = 0, **given: Any) -> Figure:
    """Figure of rows beside their replicates, z ~ q(z|x), x' ~ p(x|z).

    Images: originals, draws and means in three rows. Vectors: replicate against original, one colour per
    feature, in units of each feature's standard deviation.

    Args:
        vae: the model.
        x: rows (N, *event_shape).
        count: how many images.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows; of vectors, what `mask` leaves out is not shown.

    Returns:
        The figure.
    """
    if not is_image(tuple(x.shape[1:])):
        given = {name: value[:500] for name, value in given.items()}
        with evaluation(vae, seed):
            replicates = vae.reconstruct(x[:500], **given)
        return _scatter(x[:500], replicates, given.get("mask"))
    x_shown, given = x[:count], {name: value[:count] for name, value in given.items()}
    with evaluation(vae, seed):
        panels = [("originals", x_shown), ("replicates: z ~ q(z|x), x' ~ p(x|z)", vae.reconstruct(x_shown, **given))]
        with contextlib.suppress(InputError):  # a likelihood without a mean: draws are all there is to see
            panels.append(("means of p(x|z), z ~ q(z|x)", vae.reconstruct(x_shown, mean=True, **given)))
    picture = figure(0.85 * len(panels))
    for axes, (title, images) in zip(picture.subplots(len(panels), 1), panels, strict=True):
        show_grid(axes, images, count, x)
        axes.set_title(title, fontsize=9, loc="left", color=INK)
    return picture


def image_grid(x: Tensor, beside: Tensor | None = None, *, columns: int = 8) -> Figure:
    """Figure of images in a grid; with others beside them, each above its own.

    Args:
        x: images (N, H, W) or (N, C, H, W).
        beside: as many images that belong to them.
        columns: images per line.

    Returns:
        The figure.
    """
    scale = x if beside is None else beside
    if beside is not None:  # lines of originals and of replicates in turn, the last ones filled up with white
        white = scale.max().expand(-len(x) % columns, *x.shape[1:])
        both = [torch.cat([images, white]).unflatten(0, (-1, columns)) for images in (beside, x)]
        x = torch.stack(both, dim=1).flatten(0, 2)
    lines = -(-len(x) // columns)
    picture = figure(max(0.8 * lines, 0.8), 0.8 * columns)
    show_grid(picture.subplots(), x, columns, scale)
    return picture


def show_grid(axes: Axes, images: Tensor, columns: int, scale: Tensor) -> None:
    """Show images as a grid, on the brightness scale of others.

    Args:
        axes: where to.
        images: (M, H, W) or (M, C, H, W).
        columns: images per line; the last line is filled up with white.
        scale: images whose lowest value is black and whose highest is white.
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


def _intervals(x: Tensor, replicates: Tensor) -> Figure:
    x, replicates = x.reshape(len(x), -1), replicates.reshape(len(replicates), -1)
    shown = min(x.shape[1], FEATURES)
    picture = figure(3.2)
    axes = picture.subplots()
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    for offset, colour, label, rows in (
        (-0.15, COLOURS[0], "data", x),
        (0.15, COLOURS[1], "draws", replicates),
    ):
        low, q1, median, q3, high = array(torch.quantile(rows[:, :shown].double().cpu(), levels, dim=0))
        at = torch.arange(shown).numpy() + offset
        axes.vlines(at, low, high, color=colour, lw=1)
        axes.vlines(at, q1, q3, color=colour, lw=4)
        axes.plot(at, median, "o", color="white", mec=colour, ms=4, label=label)
    note = "" if shown == x.shape[1] else f", the first {shown} of {x.shape[1]} features"
    tidy(axes, title=f"median, 50 % and 90 % intervals{note}", xlabel="feature", ylabel="value")
    axes.legend(frameon=False, fontsize=8)
    return picture


def _sizes(given: dict[str, Any], n: int) -> dict[str, Any]:
    """The size factors of n draws."""
    return {name: value[torch.arange(n) % len(value)] for name, value in given.items() if name == "size_factor"}


def _scatter(x: Tensor, replicates: Tensor, mask: Tensor | None) -> Figure:
    seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    x, replicates, seen = (tensor.reshape(len(x), -1).cpu() for tensor in (x, replicates, seen))
    centre, spread = x.mean(0), x.std(0).clamp(min=1e-9)
    shown = min(x.shape[1], 6)
    picture = figure(3.6, 4.2)
    axes = picture.subplots()
    for feature in range(shown):
        shown_rows = [rows[seen[:, feature], feature] for rows in (x, replicates)]
        at = [array((values - centre[feature]) / spread[feature]) for values in shown_rows]
        axes.plot(*at, ".", ms=3, alpha=0.5, color=COLOURS[feature], label=f"feature {feature}")
    axes.axline((0, 0), slope=1, color=INK, lw=0.8)
    note = "" if shown == x.shape[1] else f" (the first {shown} of {x.shape[1]} features)"
    tidy(
        axes,
        title=f"rows and their replicates{note}",
        xlabel="original, standard deviations",
        ylabel="replicate, standard deviations",
    )
    axes.legend(frameon=False, fontsize=7, markerscale=3)
    return picture
