"""The figure of a posterior predictive check: data beside replicates drawn from the model."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pyro_vae.plots._datatree import Events, Numbers, events, kind_of
from pyro_vae.plots._layout import DATA, REPLICATES, beside, chosen, few_ticks, headline, panels, shortened, small
from pyro_vae.plots._style import INK, figure
from pyro_vae.plots.samples import show_grid

if TYPE_CHECKING:
    from xarray import DataTree

SIDE, SETS = 5, 5
"""Images per side of a grid, and replicate data sets beside the data."""

CURVES = 20
"""Replicate data sets at most behind densities."""

FEATURES = 30
"""Features at most in a picture."""

LEVELS = 20
"""Bars at most in the panel of a count."""


def ppc(tree: "DataTree") -> Figure:
    """Figure of data beside replicates of them.

    Images: a grid of data, and grids of some replicate data sets. Numbers: for each feature the density of the data
    over those of several replicates. Counts and 0/1: bars of the data with the range of 90 % of the replicates.

    Args:
        tree: what `pv.predictive_check` returned.

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
    headline(picture, f"{len(kept.rows)} rows of data. {kind_of(tree)}.")
    return picture


def _images(kept: Events) -> Figure:
    """The same places hold the same rows, where replicates are of rows."""
    sets = chosen(len(kept.replicates), SETS)
    side = max(1, min(SIDE, int(len(kept.rows) ** 0.5)))
    picture, grid = panels(1 + len(sets), height=2.45, head=0.5)
    data = torch.from_numpy(np.ascontiguousarray(kept.observed[: side**2])).float()
    both = torch.cat([data.flatten(), torch.from_numpy(kept.replicates[sets, : side**2]).float().flatten()])
    for axes, title, images in zip(
        grid,
        ["data", *(f"replicate {at}" for at in sets)],
        [data, *(torch.from_numpy(kept.replicates[at, : side**2]).float() for at in sets)],
        strict=True,
    ):
        show_grid(axes, images, side, both)
        axes.set_title(title, fontsize=9, loc="left", color=DATA if title == "data" else INK)
    return picture


def _shares(kept: Events) -> Figure:
    """The share of ones of each feature of 0/1 data, in one panel."""
    shown = chosen(kept.columns.shape[1], 2 * FEATURES)
    names = [shortened(kept.names[at], 1.2, 7) for at in shown]
    picture = figure(3.2)
    axes = picture.subplots()
    share = kept.columns[:, shown].mean(0)
    _bars(axes, np.arange(len(shown)), share, kept.replicated_columns[..., shown].mean(1))
    axes.set_xlim(-0.7, len(shown) - 0.3)
    step = 1 if max(map(len, names)) > 6 or len(shown) <= 12 else 2
    crowded = len(shown) > 8
    axes.set_xticks(range(0, len(shown), step), names[::step], rotation=90 if crowded else 0)
    small(axes, _which(shown, kept, "Share of ones"), xlabel="feature", ylabel="share of ones", size=8)
    few_ticks(axes, "y", count=5)
    axes.set_ylim(0, None)
    picture.legend(handles=_keys(bars=True), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return picture


def _features(kept: Events) -> Figure:
    shown = chosen(kept.columns.shape[1], FEATURES)
    across, many = beside(len(shown)), len(shown) > 9
    picture, grid = panels(len(shown), across=across, height=1.2 if many else 1.8, head=0.9)
    sets = chosen(len(kept.replicates), len(kept.replicates) if kept.discrete else CURVES)
    wide = picture.get_figwidth() / min(across, len(shown)) - 0.3
    for place, (axes, at) in enumerate(zip(grid, shown, strict=True)):
        draw = _counts if kept.discrete else _densities
        draw(axes, kept.columns[:, at], kept.replicated_columns[sets, :, at])
        size = 7 if many else 8
        ylabel = ("" if place % across else "share of rows") if kept.discrete else ("" if place % across else "density")
        below = place + across >= len(shown)
        small(axes, shortened(kept.names[at], wide, size), xlabel="value" if below else "", ylabel=ylabel, size=size)
    handles = _keys(bars=kept.discrete)
    picture.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return picture


def _densities(axes: Axes, data: Numbers, drawn: Numbers) -> None:
    """The data's histogram, and those of replicates on the same bins as lines.

    What is further out than 99.8 % of both lies in the outermost bins.
    """
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


def _counts(axes: Axes, data: Numbers, drawn: Numbers) -> None:
    """Bars of the data's values, or of ranges of them where there are many."""
    low, high = int(min(data.min(), drawn.min())), int(max(data.max(), drawn.max()))
    width = max(1, -(-(high - low + 1) // LEVELS))
    edges = np.arange(low, high + width + 1, width) - 0.5
    centres = (edges[:-1] + edges[1:]) / 2
    shares = [np.histogram(values, edges)[0] / len(values) for values in (data, *drawn)]
    _bars(axes, centres, shares[0], np.stack(shares[1:]), width)
    few_ticks(axes, "x", "y")


def _bars(axes: Axes, at: Numbers, data: Numbers, drawn: Numbers, width: float = 1.0) -> None:
    """Bars of the data, and on them the median and the 90 % range of the replicates, (S, bars)."""
    low, median, high = np.quantile(drawn, (0.05, 0.5, 0.95), axis=0)
    axes.bar(at, data, 0.8 * width, color=DATA, alpha=0.75)
    axes.vlines(at, low, high, color=INK, lw=1)
    axes.plot(at, median, "o", ms=2.5, color=REPLICATES, mec=INK, mew=0.5)


def _which(shown: list[int], kept: Events, title: str) -> str:
    count = kept.columns.shape[1]
    return f"{title}, {len(shown)} of {count} features" if len(shown) < count else title


def _keys(bars: bool) -> list[Patch | Line2D]:
    if bars:
        range_of = Line2D(
            [], [], color=INK, marker="o", ms=4, mfc=REPLICATES, label="replicates: median and 90 % range"
        )
        return [Patch(color=DATA, alpha=0.75, label="data"), range_of]
    return [
        Line2D([], [], color=DATA, lw=1.6, label="data"),
        Line2D([], [], color=REPLICATES, lw=0.8, label="replicate data sets"),
    ]
