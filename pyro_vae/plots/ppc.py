"""Figure of a predictive check: data beside replicates drawn from the model."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from xarray import DataTree

from pyro_vae.core.calls import explained
from pyro_vae.plots import _layout
from pyro_vae.plots._datatree import Events, Numbers, describe_kind, events
from pyro_vae.plots._layout import DATA, FEATURES, REPLICATES, evenly_spaced, few_ticks, panels, shorten, small
from pyro_vae.plots._style import INK, figure
from pyro_vae.plots.samples import show_grid

SIDE, SETS = 5, 5
"""Number of images on a side of a grid, and of replicate data sets."""

CURVES = 20
"""Maximum number of replicate data sets behind densities."""

LEVELS = 20
"""Maximum number of bars in the panel of a count."""


@explained
def ppc(tree: DataTree) -> Figure:
    """Figure of data beside replicates of them.

    Images: a grid of data, and grids of some replicate data sets. Numbers: for each feature the density of the data
    over those of several replicates. Counts and 0/1: bars of the data with the range of 90 % of the replicates.

    Args:
        tree: the tree that `pv.predictive_check` returned.

    Returns:
        The figure, of the rows that the check kept.
    """
    kept = events(tree)
    if kept.image:
        picture = _images(kept)
    elif kept.binary and kept.columns.shape[1] > 1:
        picture = _shares(kept)
    else:
        picture = _features(kept)
    _layout.headline(picture, f"{len(kept.rows)} rows of data. {describe_kind(tree)}.")
    return picture


def _images(kept: Events) -> Figure:
    """Grids of data and replicates; equal places hold equal rows where replicates are of rows."""
    sets = evenly_spaced(len(kept.replicates), SETS)
    side = max(1, min(SIDE, int(len(kept.rows) ** 0.5)))
    picture, grid = panels(1 + len(sets), height=2.45, head=0.5)
    shown = torch.from_numpy(np.stack([kept.observed, *kept.replicates[sets]])[:, : side**2]).float()
    for axes, title, images in zip(grid, ["data", *(f"replicate {at}" for at in sets)], shown, strict=True):
        show_grid(axes, images, side, shown)
        axes.set_title(title, fontsize=9, loc="left", color=DATA if title == "data" else INK)
    return picture


def _shares(kept: Events) -> Figure:
    """Figure of the share of ones of each feature of 0/1 data, in one panel."""
    shown = evenly_spaced(kept.columns.shape[1], 2 * FEATURES)
    names = [shorten(kept.names[at], 1.2, 7) for at in shown]
    picture = figure(3.2)
    axes = picture.subplots()
    share = kept.columns[:, shown].mean(0)
    _draw_bars(axes, np.arange(len(shown)), share, kept.replicated_columns[..., shown].mean(1))
    axes.set_xlim(-0.7, len(shown) - 0.3)
    step = 1 if max(map(len, names)) > 6 or len(shown) <= 12 else 2
    crowded = len(shown) > 8
    axes.set_xticks(range(0, len(shown), step), names[::step], rotation=90 if crowded else 0)
    part = f", {len(shown)} of {kept.columns.shape[1]} features" if len(shown) < kept.columns.shape[1] else ""
    small(axes, f"Share of ones{part}", xlabel="feature", ylabel="share of ones", size=8)
    few_ticks(axes, "y", count=5)
    axes.set_ylim(0, None)
    _layout.legend_below(picture, _legend_handles(bars=True))
    return picture


def _features(kept: Events) -> Figure:
    shown = evenly_spaced(kept.columns.shape[1], FEATURES)
    columns, many = _layout.columns_of(len(shown)), len(shown) > 9
    picture, grid = panels(len(shown), columns=columns, height=1.2 if many else 1.8, head=0.9)
    sets = evenly_spaced(len(kept.replicates), len(kept.replicates) if kept.discrete else CURVES)
    inches, size = picture.get_figwidth() / min(columns, len(shown)) - 0.3, 7 if many else 8
    draw = _draw_counts if kept.discrete else _draw_densities
    for axes, at in zip(grid, shown, strict=True):
        draw(axes, kept.columns[:, at], kept.replicated_columns[sets, :, at])
        small(axes, shorten(kept.names[at], inches, size), size=size)
    _layout.label_outer(grid, columns=columns, xlabel="value", ylabel="share of rows" if kept.discrete else "density")
    _layout.legend_below(picture, _legend_handles(bars=kept.discrete))
    return picture


def _draw_densities(axes: Axes, data: Numbers, drawn: Numbers) -> None:
    """Draw the data's histogram, and those of replicates as lines; the outermost bins hold all beyond 99.8 %."""
    data, pooled = data[np.isfinite(data)], drawn[np.isfinite(drawn)]
    low, high = np.quantile(np.concatenate([data, pooled]), (0.001, 0.999))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 1 + int(np.clip(2 * len(data) ** 0.5, 8, 30)))
    centres = (edges[:-1] + edges[1:]) / 2
    axes.stairs(_heights(data, edges), edges, fill=True, color=DATA, alpha=0.35)
    axes.plot(centres, np.stack([_heights(values, edges) for values in drawn], -1), color=REPLICATES, lw=0.5)
    axes.stairs(_heights(data, edges), edges, color=DATA, lw=1.4)
    few_ticks(axes, "x")
    axes.set_yticks([])


def _heights(values: Numbers, edges: Numbers) -> Numbers:
    values = np.clip(values[np.isfinite(values)], edges[0], edges[-1])
    return np.histogram(values, edges)[0] / (max(len(values), 1) * np.diff(edges))


def _draw_counts(axes: Axes, data: Numbers, drawn: Numbers) -> None:
    """Draw bars of the data's values, or of ranges of them where there are many."""
    low, high = int(min(data.min(), drawn.min())), int(max(data.max(), drawn.max()))
    width = max(1, -(-(high - low + 1) // LEVELS))
    edges = np.arange(low, high + width + 1, width) - 0.5
    centres = (edges[:-1] + edges[1:]) / 2
    shares = [np.histogram(values, edges)[0] / len(values) for values in (data, *drawn)]
    _draw_bars(axes, centres, shares[0], np.stack(shares[1:]), width)
    few_ticks(axes, "x", "y")


def _draw_bars(axes: Axes, at: Numbers, data: Numbers, drawn: Numbers, width: float = 1.0) -> None:
    """Draw bars of the data, and on them the median and the 90 % range of the replicates, (S, bars)."""
    low, median, high = np.quantile(drawn, (0.05, 0.5, 0.95), axis=0)
    axes.bar(at, data, 0.8 * width, color=DATA, alpha=0.75)
    axes.vlines(at, low, high, color=INK, lw=1)
    axes.plot(at, median, "o", ms=2.5, color=REPLICATES, mec=INK, mew=0.5)


def _legend_handles(bars: bool) -> list[Patch | Line2D]:
    if bars:
        interval = Line2D(
            [], [], color=INK, marker="o", ms=4, mfc=REPLICATES, label="replicates: median and 90 % range"
        )
        return [Patch(color=DATA, alpha=0.75, label="data"), interval]
    return [
        Line2D([], [], color=DATA, lw=1.6, label="data"),
        Line2D([], [], color=REPLICATES, lw=0.8, label="replicate data sets"),
    ]
