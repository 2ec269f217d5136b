"""Figures of decoded points along a path: of one latent, of a line between two rows, or of a plane.

Steps are quantiles of the prior, whatever it is, so that no point lies where the prior has no mass.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.criticism.latent_usage import spread_of_means
from pyro_vae.criticism.session import evaluation
from pyro_vae.data.images import is_image
from pyro_vae.distributions import moments
from pyro_vae.model.vae import VAE
from pyro_vae.plots import _layout
from pyro_vae.plots._layout import FEATURES, few_ticks, headline, panels, small
from pyro_vae.plots._style import COLOURS, INK, WIDTH, array, figure
from pyro_vae.plots.samples import show_grid

LATENTS, PAIRS = 9, 6
"""Maximum numbers of latents and pairs in a picture."""

PRIOR = 20_000
"""Number of draws behind the prior's quantiles and marginal densities, which may have no closed form."""

MAX_ELEMENTS = 2**24
"""Maximum number of elements that are drawn at once where a mean has no closed form."""

PATH_COLOURS = ListedColormap(colormaps["cividis"](np.linspace(0, 0.9, 256)))
"""Colours along a path: cividis without its brightest end, which is hard to see on white."""


@explained
def traversals(vae: VAE, x: Any, *, row: int = 0, steps: int = 11, seed: int = 0, **given: Any) -> Figure:
    """Figure of one row decoded while one latent after the other moves along the prior's quantiles.

    The other latents stay at the posterior mean of that row. Means of the likelihood are shown, or draws where it has
    none; with a size factor those of size 1.

    Args:
        vae: the model.
        x: rows (N, *event_shape), as for `fit`.
        row: the index of the starting point.
        steps: the number of points on a path, from the 1 % to the 99 % quantile.
        seed: of everything random; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The figure: at most 9 latents, of more those whose posterior means vary most over rows. Images: a line for
        each latent. Others: lines over features, or over the quantiles where there are only one or two features.

    Raises:
        InputError: an argument or the data cannot be used.
    """
    check_integers(row=(row, 0), steps=(steps, 2))
    with evaluating_rows(vae, seed, x, given) as batch:
        _check_row(row, len(batch["x"]))
        spread = spread_of_means(vae, batch)
        shown = sorted(torch.argsort(spread, descending=True)[:LATENTS].tolist())
        levels = torch.linspace(0, 1, steps).clamp(0.01, 0.99)
        quantiles = _prior_quantiles(vae, levels)
        z = _posterior_means(vae, batch, [row]).expand(len(shown), steps, -1).clone()
        for place, latent in enumerate(shown):
            z[place, :, latent] = quantiles[:, latent]
        values, kind = _decode(vae, z)
    names = [f"latent {latent}" for latent in shown]
    part = f" ({len(shown)} of {len(spread)} latents, those that vary most)" if len(shown) < len(spread) else ""
    title = f"{kind} as one latent moves along the prior's quantiles, the others at the posterior mean of row {row}"
    return _draw_paths(values, array(levels), names, f"{title}{part}.", ("quantile of the prior", "latent"))


@explained
def interpolations(
    vae: VAE, x: Any, pairs: Sequence[tuple[int, int]] | None = None, *, steps: int = 9, seed: int = 0, **given: Any
) -> Figure:
    """Figure of the decoded means along the line between the posterior means of two rows.

    Args:
        vae: the model.
        x: rows (N, *event_shape), as for `fit`.
        pairs: the indices of two rows each; by default the first row and the second, and so on, at most four pairs.
        steps: the number of points on a line, with its ends.
        seed: of everything random; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The figure: for images a line for each pair, the data at its ends; for others lines over features.

    Raises:
        InputError: an argument or the data cannot be used, or a pair has an index out of range.
    """
    check_integers(steps=(steps, 2))
    with evaluating_rows(vae, seed, x, given) as batch:
        pairs = [(2 * i, 2 * i + 1) for i in range(min(4, len(batch["x"]) // 2))] if pairs is None else list(pairs)
        if not 0 < len(pairs) <= PAIRS:
            raise InputError(f"interpolations are between 1 to {PAIRS} pairs of rows: write pairs=[(0, 1), (2, 3)].")
        rows = [row for pair in pairs for row in pair]
        for row in rows:
            _check_row(row, len(batch["x"]))
        means = _posterior_means(vae, batch, rows).unflatten(0, (-1, 2))
        share = torch.linspace(0, 1, steps).to(means)[:, None]
        values, kind = _decode(vae, means[:, :1] + share * (means[:, 1:] - means[:, :1]))
        data = vae.normalize_size(vae.impute(batch), batch.get("size_factor"))[rows].unflatten(0, (-1, 2))
    names = [f"rows {first}, {second}" for first, second in pairs]
    title = f"{kind} on the line between the posterior means of two rows, beside the data."
    return _draw_paths(values, array(share[:, 0]), names, title, ("position from one row to the other", "pair"), data)


@explained
def manifold(vae: VAE, *, side: int = 15, seed: int = 0) -> Figure:
    """Figure of the decoded means of a grid over two latents, at quantiles of the prior.

    Args:
        vae: a model with two latents.
        side: the number of points along each latent.
        seed: of everything random; the global random state is left as it was.

    Returns:
        The figure: an image at each point; of other data a map for each feature, at most 30.

    Raises:
        InputError: the model does not have two latents.
    """
    check_integers(side=(side, 2))
    _check_vae(vae)
    if (latent_dim := vae.declaration.latent_dim) != 2:
        raise InputError(
            f"manifold draws the plane of two latents, and this model has {latent_dim}: write "
            "pv.plots.traversals(vae, x), which moves one latent after the other."
        )
    with evaluation(vae, seed):
        levels = (torch.arange(side) + 0.5) / side
        quantiles = _prior_quantiles(vae, levels)
        across, up = quantiles[:, 0].expand(side, side), quantiles[:, 1].flip(0)[:, None].expand(side, side)
        values, kind = _decode(vae, torch.stack([across, up], dim=-1))
    title = f"{kind} over a grid of the prior's quantiles"
    if not is_image(vae.declaration.event_shape):
        return _draw_feature_maps(
            values, f"{title}; each feature from its lowest (dark) to its highest (bright) value."
        )
    ticks = [f"{level:.2g}" for level in levels.tolist()]
    picture = figure(6.4, 6.0)
    labels = ("latent 0, quantile of the prior", "latent 1, quantile of the prior")
    _draw_sheet(picture.subplots(), values, ticks, ticks[::-1], labels)
    headline(picture, f"{title}.")
    return picture


# ---- points and their decoded values -------------------------------------------------------------------------------


@contextlib.contextmanager
def evaluating_rows(vae: VAE, seed: int, x: Any, given: Mapping[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Block of `evaluation` for rows as `fit` takes them, whose checked tensors by name it gets.

    Raises:
        InputError: not a VAE, or rows that do not suit it.
    """
    _check_vae(vae)
    batch = vae.as_batch(x, **given)
    with evaluation(vae, seed):
        yield batch


def _check_vae(vae: Any) -> None:
    if not isinstance(vae, VAE):
        raise InputError(f"this picture is of a VAE, of its encoder and decoder; {type(vae).__name__} is not a VAE.")


def _check_row(row: Any, count: int) -> None:
    check_integers(row=(row, 0))
    if row >= count:
        raise InputError(f"row {row} is not there: x has {count} rows, from 0 to {count - 1}.")


def _prior_quantiles(vae: VAE, levels: Tensor) -> Tensor:
    """Quantiles of each latent under the prior, (levels, D)."""
    z = vae.prior().sample((PRIOR,))
    return torch.quantile(z, levels.to(z), dim=0)


def _posterior_means(vae: VAE, batch: Mapping[str, Tensor], rows: list[int]) -> Tensor:
    """Posterior means of some rows, (R, D); medians of draws for a guide without means."""
    posterior = vae.encode({name: tensor[rows] for name, tensor in batch.items()})
    try:
        return moments.mean(posterior).value
    except InputError:
        return posterior.sample((1001,)).median(0).values


def _decode(vae: VAE, z: Tensor) -> tuple[Tensor, str]:
    """Means of p(x|z) at points (*batch, D), or draws where there are none, and which of both."""
    points = z.flatten(0, -2)
    size = max(1, MAX_ELEMENTS // (moments.DRAWS * math.prod(vae.declaration.event_shape)))
    try:
        parts, kind = [moments.mean(vae.decode(part)).value for part in points.split(size)], "Means of p(x|z)"
    except InputError:
        parts, kind = [vae.decode(points).sample()], "Draws of p(x|z)"
    return torch.cat(parts).unflatten(0, z.shape[:-1]).cpu(), kind


# ---- drawing -------------------------------------------------------------------------------------------------------


def _draw_paths(
    values: Tensor, levels: Any, names: list[str], title: str, labels: tuple[str, str], data: Tensor | None = None
) -> Figure:
    """Figure of paths (paths, steps, *event), with the data at their two ends (paths, 2, *event)."""
    if is_image(tuple(values.shape[2:])):
        ticks = [f"{level:.2g}" for level in levels]
        if data is not None:
            data = data.cpu()
            values = torch.cat([data[:, :1], values.to(data), data[:, 1:]], dim=1)
            ticks = ["data", *ticks, "data"]
        height = (WIDTH - 0.9) * len(values) * values.shape[-2] / (len(ticks) * values.shape[-1])
        lines = _layout.wrap(title, 0.96 * WIDTH, 9).count("\n")
        picture = figure(min(height + 1.0 + 0.16 * lines, 9.0))
        rows = [name.removeprefix("latent ").removeprefix("rows ") for name in names]
        _draw_sheet(picture.subplots(), values, ticks, rows, labels)
    else:
        ends = None if data is None else array(data.reshape(*data.shape[:2], -1))
        picture = _draw_lines(values.reshape(*values.shape[:2], -1), levels, names, labels[0], ends)
    headline(picture, title)
    return picture


def _draw_sheet(axes: Axes, values: Tensor, columns: list[str], rows: list[str], labels: tuple[str, str]) -> None:
    """Draw images (rows, columns, *event) as one sheet, with tick labels of columns and rows, and axis labels."""
    show_grid(axes, values.flatten(0, 1), values.shape[1], values)
    axes.set_axis_on()
    height, width = values.shape[-2:]
    for axis, names, size in ((axes.xaxis, columns, width), (axes.yaxis, rows, height)):
        places = range(0, len(names), -(-len(names) // 12))
        axis.set_ticks([(at + 0.5) * (size + 1) - 1 for at in places], [names[at] for at in places])
    axes.spines[:].set_visible(False)
    small(axes, "", xlabel=labels[0], ylabel=labels[1], size=8)
    axes.tick_params(length=0)


def _draw_lines(values: Tensor, levels: Any, names: list[str], scale: str, data: Any) -> Figure:
    """Lines over features, from dark to bright along the path; over the path where there are one or two features."""
    columns, count = _layout.columns_of(len(names)), values.shape[-1]
    picture, grid = panels(len(names), columns=columns, height=1.8, head=0.9)
    for place, (axes, name, path) in enumerate(zip(grid, names, values.numpy(), strict=True)):
        small(axes, name, size=8)
        if count > 2:
            for level, line in zip(levels, path, strict=True):
                axes.plot(line, color=PATH_COLOURS(float(level)), lw=1, marker="." if count <= 10 else "")
            for level, line in zip((0.0, 1.0), () if data is None else data[place], strict=False):
                axes.plot(line, ls=":", color=PATH_COLOURS(level), lw=1.6)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            few_ticks(axes, "y")
            continue
        for feature in range(count):
            label = f"feature {feature}" if count > 1 else None
            axes.plot(levels, path[:, feature], color=COLOURS[feature], lw=1.4, label=label)
            if data is not None:
                axes.plot([0, 1], data[place, :, feature], "o", color=COLOURS[feature], mec=INK, ms=5)
        few_ticks(axes, "x", "y")
    _layout.label_outer(grid, columns=columns, xlabel="feature" if count > 2 else scale, ylabel="value")
    if count > 2:
        _layout.colour_bar(picture, ScalarMappable(Normalize(0, 1), PATH_COLOURS), grid, scale)
    elif count > 1:
        _layout.legend_below(picture, grid[0].get_legend_handles_labels()[0])
    return picture


def _draw_feature_maps(values: Tensor, title: str) -> Figure:
    """Map of each feature over the grid (side, side, *event)."""
    features = values.reshape(*values.shape[:2], -1).numpy()
    shown = _layout.evenly_spaced(features.shape[-1], FEATURES)
    columns = min(len(shown), 6 if len(shown) > 9 else 3)
    picture, grid = panels(len(shown), columns=columns, height=7.2 / columns, head=0.7)
    for place, (axes, at) in enumerate(zip(grid, shown, strict=True)):
        image = features[..., at]
        axes.imshow(image, cmap="cividis", extent=(0, 1, 0, 1), interpolation="nearest")
        name = f"feature {at}\n" if features.shape[-1] > 1 else ""
        small(axes, f"{name}{image.min():.2g} to {image.max():.2g}", size=7)
        axes.set_xticks([0, 1] if place + columns >= len(shown) else [])
        axes.set_yticks([0, 1] if place % columns == 0 else [])
    _layout.label_outer(grid, columns=columns, xlabel="latent 0", ylabel="latent 1")
    headline(picture, f"{title} Axes: quantiles of the prior.")
    return picture
