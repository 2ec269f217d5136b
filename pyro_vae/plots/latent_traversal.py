"""Pictures of what a decoder makes of points along a path: one latent, a line between two rows, a plane.

The steps are quantiles of the prior, whatever it is, so that no point is where the model expects nothing.
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
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.criticism.latent_usage import spread_of_means
from pyro_vae.criticism.session import evaluation
from pyro_vae.data.images import is_image
from pyro_vae.distributions import moments
from pyro_vae.model.vae import VAE
from pyro_vae.plots._layout import bar, beside, chosen, few_ticks, headline, panels, small, wrapped
from pyro_vae.plots._style import COLOURS, INK, WIDTH, array, figure
from pyro_vae.plots.samples import show_grid

LATENTS, PAIRS, FEATURES = 9, 6, 30
"""Latents, pairs and features at most in a picture."""

PRIOR = 20_000
"""Draws behind the prior's quantiles."""

AT_ONCE = 2**24
"""Numbers at most that are drawn at once where a mean has no closed form."""


def traversals(vae: VAE, x: Tensor, *, row: int = 0, steps: int = 11, seed: int = 0, **given: Any) -> Figure:
    """Figure of one row decoded while one latent after the other moves along the prior's quantiles.

    The other latents stay at the posterior mean of that row. The decoder's means are shown, draws where a likelihood
    has no mean; of a likelihood with a size those of size 1.

    Args:
        vae: the model.
        x: rows (N, *event_shape).
        row: the one that is the starting point.
        steps: points on each path, from the 1 % to the 99 % quantile.
        seed: of everything random; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The figure: at most 9 latents, of more those whose posterior means vary most over rows. Images: a line for
        each latent. Others: lines over features, or over the quantiles where there are only one or two features.

    Raises:
        InputError: an argument or the data cannot be used.
    """
    check_integers(row=(row, 0), steps=(steps, 2))
    with evaluating_rows(vae, seed, x, given):
        _require_row(row, len(x))
        spread = spread_of_means(vae, x, **given)
        shown = sorted(torch.argsort(spread, descending=True)[:LATENTS].tolist())
        levels = torch.linspace(0, 1, steps).clamp(0.01, 0.99)
        along = _quantiles(vae, levels)
        z = _centres(vae, x[[row]], _taken(given, [row])).expand(len(shown), steps, -1).clone()
        for place, latent in enumerate(shown):
            z[place, :, latent] = along[:, latent]
        values, what = _decoded(vae, z)
    names = [f"latent {latent}" for latent in shown]
    left = f" ({len(shown)} of {len(spread)} latents, those that vary most)" if len(shown) < len(spread) else ""
    title = f"{what} as one latent moves along the prior's quantiles, the others at the posterior mean of row {row}"
    return _paths(values, array(levels), names, f"{title}{left}.", ("quantile of the prior", "latent"))


def interpolations(
    vae: VAE, x: Tensor, pairs: Sequence[tuple[int, int]] | None = None, *, steps: int = 9, seed: int = 0, **given: Any
) -> Figure:
    """Figure of the decoded means along the line between the posterior means of two rows.

    Args:
        vae: the model.
        x: rows (N, *event_shape).
        pairs: the numbers of two rows each; by default the first row and the second, and so on, four pairs at most.
        steps: points on each line, its ends among them.
        seed: of everything random; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The figure: for images a line for each pair, the data at its ends; for others lines over features.

    Raises:
        InputError: an argument or the data cannot be used, or a pair names a row that is not there.
    """
    check_integers(steps=(steps, 2))
    with evaluating_rows(vae, seed, x, given):
        pairs = [(2 * i, 2 * i + 1) for i in range(min(4, len(x) // 2))] if pairs is None else list(pairs)
        if not 0 < len(pairs) <= PAIRS:
            raise InputError(f"interpolations are between 1 to {PAIRS} pairs of rows: write pairs=[(0, 1), (2, 3)].")
        for row in {row for pair in pairs for row in pair}:
            _require_row(row, len(x))
        ends = torch.tensor(pairs)
        flat = ends.flatten().tolist()
        means = _centres(vae, x[flat], _taken(given, flat)).unflatten(0, (-1, 2))
        share = torch.linspace(0, 1, steps).to(means)[:, None]
        values, what = _decoded(vae, means[:, :1] + share * (means[:, 1:] - means[:, :1]))
        data = vae.normalize_size(vae.impute({"x": x, **given}), given.get("size_factor"))[flat].unflatten(0, (-1, 2))
    names = [f"rows {first}, {second}" for first, second in pairs]
    title = f"{what} on the line between the posterior means of two rows, beside the data."
    return _paths(values, array(share[:, 0]), names, title, ("position from one row to the other", "pair"), data)


def manifold(vae: VAE, *, side: int = 15, seed: int = 0) -> Figure:
    """Figure of the decoded means of a grid over two latents, at quantiles of the prior.

    Args:
        vae: a model with two latents.
        side: points along each latent.
        seed: of everything random; the global random state is left as it was.

    Returns:
        The figure: an image at each point; of other data a map for each feature, at most 30.

    Raises:
        InputError: the model has not two latents.
    """
    check_integers(side=(side, 2))
    _require_vae(vae)
    if (latent_dim := vae.declaration.latent_dim) != 2:
        raise InputError(
            f"manifold draws the plane of two latents, and this model has {latent_dim}: write "
            "pv.plots.traversals(vae, x), which moves one latent after the other."
        )
    with evaluation(vae, seed):
        levels = (torch.arange(side) + 0.5) / side
        along = _quantiles(vae, levels)
        across, up = along[:, 0].expand(side, side), along[:, 1].flip(0)[:, None].expand(side, side)
        values, what = _decoded(vae, torch.stack([across, up], dim=-1))
    title = f"{what} over a grid of the prior's quantiles"
    if not is_image(vae.declaration.event_shape):
        return _feature_maps(values, f"{title}; each feature from its lowest (dark) to its highest (bright) value.")
    ticks = [f"{level:.2g}" for level in levels.tolist()]
    picture = figure(6.4, 6.0)
    axes = picture.subplots()
    _sheet(axes, values, ticks, ticks[::-1])
    small(axes, "", xlabel="latent 0, quantile of the prior", ylabel="latent 1, quantile of the prior", size=8)
    headline(picture, f"{title}.")
    return picture


# ---- points and what becomes of them -------------------------------------------------------------------------------


@contextlib.contextmanager
def evaluating_rows(vae: VAE, seed: int, x: Any, given: Mapping[str, Any]) -> Iterator[None]:
    """Check a model and rows, then evaluate them without dropout, on a random state of their own.

    Raises:
        InputError: this is no VAE, or the rows do not suit it.
    """
    _require_vae(vae)
    if not isinstance(x, Tensor):
        raise InputError(f"x is a {type(x).__name__}, not a tensor of rows: write pv.data.load(...).validation.x.")
    vae.check({"x": x, **given})
    with evaluation(vae, seed):
        yield


def _require_vae(vae: Any) -> None:
    if not isinstance(vae, VAE):
        raise InputError(f"this picture is of a VAE, of its encoder and decoder; {type(vae).__name__} is none.")


def _require_row(row: Any, count: int) -> None:
    check_integers(row=(row, 0))
    if row >= count:
        raise InputError(f"row {row} is not there: x has {count} rows, from 0 to {count - 1}.")


def _taken(given: Mapping[str, Any], rows: list[int]) -> dict[str, Any]:
    return {name: value[rows] for name, value in given.items()}


def _quantiles(vae: VAE, levels: Tensor) -> Tensor:
    """The quantiles of each latent under the prior, (levels, D)."""
    z = vae.prior().sample((PRIOR,))
    return torch.quantile(z, levels.to(z), dim=0)


def _centres(vae: VAE, x: Tensor, given: Mapping[str, Any]) -> Tensor:
    """The posterior means of rows, (N, D); the medians of draws of a guide that has none."""
    posterior = vae.encode(x, **given)
    try:
        return moments.mean(posterior).value
    except InputError:
        return posterior.sample((1001,)).median(0).values


def _decoded(vae: VAE, z: Tensor) -> tuple[Tensor, str]:
    """Means of p(x|z) for points (*batch, D), or draws where there are none, and what they are."""
    points = z.flatten(0, -2)
    size = max(1, AT_ONCE // (moments.DRAWS * math.prod(vae.declaration.event_shape)))
    try:
        parts, what = [moments.mean(vae.decode(part)).value for part in points.split(size)], "Means of p(x|z)"
    except InputError:
        parts, what = [vae.decode(points).sample()], "Draws of p(x|z)"
    return torch.cat(parts).unflatten(0, z.shape[:-1]).cpu(), what


# ---- drawing -------------------------------------------------------------------------------------------------------


def _paths(
    values: Tensor, levels: Any, names: list[str], title: str, labels: tuple[str, str], data: Tensor | None = None
) -> Figure:
    """Draw paths (paths, steps, *event), with the data at their two ends (paths, 2, *event)."""
    if is_image(tuple(values.shape[2:])):
        ticks = [f"{level:.2g}" for level in levels]
        if data is not None:
            data = data.cpu()
            values = torch.cat([data[:, :1], values.to(data), data[:, 1:]], dim=1)
            ticks = ["data", *ticks, "data"]
        height = (WIDTH - 0.9) * len(values) * values.shape[-2] / (len(ticks) * values.shape[-1])
        lines = wrapped(title, 0.96 * WIDTH, 9).count("\n")
        picture = figure(min(height + 1.0 + 0.16 * lines, 9.0))
        axes = picture.subplots()
        _sheet(axes, values, ticks, [name.removeprefix("latent ").removeprefix("rows ") for name in names])
        small(axes, "", xlabel=labels[0], ylabel=labels[1], size=8)
    else:
        ends = None if data is None else data.cpu().reshape(*data.shape[:2], -1)
        picture = _lines(values.reshape(*values.shape[:2], -1), levels, names, labels[0], ends)
    headline(picture, title)
    return picture


def _sheet(axes: Axes, values: Tensor, columns: list[str], rows: list[str]) -> None:
    """Images (rows, columns, *event) as one sheet with a name for each row and column."""
    show_grid(axes, values.flatten(0, 1), values.shape[1], values)
    axes.set_axis_on()
    height, width = values.shape[-2:]
    every = -(-len(columns) // 12)
    places = range(0, len(columns), every)
    axes.set_xticks([(at + 0.5) * (width + 1) - 1 for at in places], [columns[at] for at in places])
    every = -(-len(rows) // 12)
    places = range(0, len(rows), every)
    axes.set_yticks([(at + 0.5) * (height + 1) - 1 for at in places], [rows[at] for at in places])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _lines(values: Tensor, levels: Any, names: list[str], scale: str, data: Tensor | None) -> Figure:
    """Lines over features, from dark to bright along the path; over the path where there are one or two features."""
    across = beside(len(names))
    picture, grid = panels(len(names), across=across, height=1.8, head=0.9)
    count = values.shape[-1]
    over_features = count > 2
    for place, (axes, name, path) in enumerate(zip(grid, names, values.numpy(), strict=True)):
        ends = None if data is None else array(data[place])
        if over_features:
            for level, line in zip(levels, path, strict=True):
                axes.plot(line, color=_colour(level), lw=1, marker="." if count <= 10 else "")
            if ends is not None:
                axes.plot(ends[0], ls=":", color=_colour(0.0), lw=1.6)
                axes.plot(ends[1], ls=":", color=_colour(1.0), lw=1.6)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            few_ticks(axes, "y")
        else:
            for feature in range(count):
                label = f"feature {feature}" if count > 1 else None
                axes.plot(levels, path[:, feature], color=COLOURS[feature], lw=1.4, label=label)
                if ends is not None:
                    axes.plot([0, 1], ends[:, feature], "o", color=COLOURS[feature], mec=INK, ms=5)
            few_ticks(axes, "x", "y")
        label = "feature" if over_features else scale
        below, first = place + across >= len(names), place % across == 0
        small(axes, name, xlabel=label if below else "", ylabel="value" if first else "", size=8)
    if over_features:
        bar(picture, ScalarMappable(Normalize(0, 1), _map()), grid, scale)
    elif count > 1:
        handles = grid[0].get_legend_handles_labels()
        picture.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return picture


def _map() -> Any:
    """Cividis without its brightest end, which is hard to see on white."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["cividis"](np.linspace(0, 0.9, 256)))


def _colour(level: float) -> Any:
    return _map()(float(level))


def _feature_maps(values: Tensor, title: str) -> Figure:
    """A map of each feature over the grid (side, side, *event)."""
    columns = values.flatten(2).numpy() if values.ndim > 2 else values.numpy()[..., None]
    shown = chosen(columns.shape[-1], FEATURES)
    across = min(len(shown), 6 if len(shown) > 9 else 3)
    picture, grid = panels(len(shown), across=across, height=7.2 / across, head=0.7)
    for place, (axes, at) in enumerate(zip(grid, shown, strict=True)):
        image = columns[..., at]
        axes.imshow(image, cmap="cividis", extent=(0, 1, 0, 1), interpolation="nearest")
        below, first = place + across >= len(shown), place % across == 0
        named = f"feature {at}\n" if columns.shape[-1] > 1 else ""
        small(
            axes,
            f"{named}{image.min():.2g} to {image.max():.2g}",
            xlabel="latent 0" if below else "",
            ylabel="latent 1" if first else "",
            size=7,
        )
        axes.set_xticks([0, 1] if below else [])
        axes.set_yticks([0, 1] if first else [])
    headline(picture, f"{title} Axes: quantiles of the prior.")
    return picture
