"""Figure of outliers: rows and features that the model fits worst."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from xarray import DataTree

from pyro_vae.core.calls import explained
from pyro_vae.criticism.summary import FDR_LEVEL
from pyro_vae.data.images import is_image
from pyro_vae.plots._datatree import Numbers, as_maps, event_shape, events, group
from pyro_vae.plots._layout import DATA, SIGNIFICANT, channel_maps, colour_bar, few_ticks, headline, shorten, small
from pyro_vae.plots._style import INK, figure
from pyro_vae.plots.pit import order_features
from pyro_vae.plots.samples import show_grid

ROWS, FEATURES, STATISTICS = 12, 15, 12
"""Maximum numbers of rows, features and test statistics in the picture."""

LEVEL = 0.9
"""Content of the central intervals whose coverage is shown."""


@explained
def outliers(tree: DataTree) -> Figure:
    """Figure of the rows most extreme among their replicates, and the features calibrated worst.

    Rows: the smallest tail probabilities of their test statistics, as a heat map; above it, for images, the most
    extreme of the rows that the check kept, over a replicate where that is of the same row. Features: the share of the
    data in 90 % intervals, as dots, or for images as a map beside that of the mean PIT.

    Args:
        tree: the tree that `pv.predictive_check` returned; without test statistics of rows, features alone are shown.

    Returns:
        The figure. Of many rows some are extreme by chance: the title has the share that is expected.
    """
    shape, calibration = event_shape(tree), group(tree, "calibration")
    rows = group(tree, "rows") if "rows" in tree.children else None
    image = is_image(shape)
    heights = [2.9 if image else 0.9 + 0.17 * max(2, min(calibration.sizes["feature"], FEATURES))]
    if rows is not None:
        tail = rows["tail"].transpose("row", "row_statistic").to_numpy()
        least = np.where(np.isnan(tail), np.inf, tail).min(1)
        known = ~np.isnan(tail)
        others = np.where(known, np.log(np.where(known, tail, 1.0)), 0.0).sum(1)
        order = np.lexsort((others, least))  # many rows share the smallest possible tail
        order = order[np.isfinite(least[order])]
        heights.insert(0, 0.9 + 0.17 * len(order[:ROWS]))
        if image:
            heights.insert(0, 1.6 if tree.attrs["kind"] == "posterior" else 1.0)
    picture = figure(sum(heights) + 0.4)
    parts = list(np.ravel(picture.subfigures(len(heights), 1, height_ratios=heights)))
    if rows is None:
        headline(picture, "The check has no test statistic of single rows: features alone are shown.")
    else:
        _draw_tails(parts[-2], rows, tail, order[:ROWS])
        headline(picture, _title(tail))
        if image:
            _draw_images(parts[0], tree, rows["row"].to_numpy()[order])
    _draw_features(parts[-1], calibration, shape)
    return picture


def _title(tail: Numbers) -> str:
    flat = tail[np.isfinite(tail)]
    statistics = "test statistic" if tail.shape[1] == 1 else "test statistics"
    return (
        f"{len(tail)} rows, {tail.shape[1]} {statistics} of each: {100 * (flat < FDR_LEVEL).mean():.1f} % of the tail "
        f"probabilities are below {FDR_LEVEL} (by chance at most {100 * FDR_LEVEL:g} %)."
    )


def _draw_images(part: SubFigure, tree: DataTree, worst_first: Numbers) -> None:
    """Draw images of the worst rows among those that were kept."""
    kept = events(tree)
    places = {int(row): place for place, row in enumerate(kept.rows)}
    held = [int(row) for row in worst_first if int(row) in places][:ROWS]
    scale = torch.from_numpy(kept.observed).float()
    beneath = [kept.replicates[0]] if tree.attrs["kind"] == "posterior" else []
    grid = list(part.subplots(1, ROWS).flat)
    for axes, row in zip(grid, held, strict=False):
        both = np.stack([images[places[row]] for images in (kept.observed, *beneath)])
        show_grid(axes, torch.from_numpy(both).float(), 1, scale)
        axes.set_title(f"row {row}", fontsize=6, color=INK)
    for axes in grid[len(held) :]:
        axes.remove()
    note = ", each above a replicate of it" if beneath else ""
    part.supxlabel(f"the most extreme of the {len(places)} rows that were kept{note}", fontsize=7, color=INK)


def _draw_tails(part: SubFigure, rows: Any, tail: Numbers, order: Numbers) -> None:
    columns = np.argsort(np.where(np.isnan(tail[order]), np.inf, tail[order]).min(0), kind="stable")[:STATISTICS]
    shown = tail[np.ix_(order, columns)]
    axes = part.subplots()
    low = min(max(float(np.nanmin(shown)), 1e-4), 0.5)
    image = axes.imshow(shown, aspect="auto", cmap="cividis", norm=LogNorm(low, max(float(np.nanmax(shown)), 10 * low)))
    names = [shorten(str(name), 1.3, 7) for name in rows["row_statistic"].to_numpy()[columns]]
    turn: dict[str, Any] = {"rotation": 30, "ha": "right"} if len(columns) > 4 else {}
    axes.set_xticks(range(len(columns)), names, **turn)
    axes.set_yticks(range(len(order)), [str(row) for row in rows["row"].to_numpy()[order]])
    for at, (down, across) in zip(shown.flat, np.ndindex(*shown.shape), strict=True):
        if not np.isnan(at):
            colour = "white" if at < low**0.5 else "black"
            axes.text(across, down, f"{at:.2g}", ha="center", va="center", fontsize=6, color=colour)
    small(axes, "Rows, the most extreme among their replicates first", xlabel="test statistic", ylabel="row", size=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    colour_bar(part, image, axes, "tail probability")


def _draw_features(part: SubFigure, found: Any, shape: tuple[int, ...]) -> None:
    level = int(abs(found["level"].to_numpy() - LEVEL).argmin())
    covered = np.where(found["values"] > 0, found["coverage"].to_numpy()[:, level], np.nan)
    if not is_image(shape):
        _draw_coverage(part.subplots(), found, covered)
        return
    spread, names = as_maps(100 * (covered - LEVEL), shape)
    if len(spread) > 1:
        _draw_maps(part, spread, [f"{name}: 90 % intervals" for name in names], "held, minus 90 [% of rows]")
        return
    place = (found["u"] - found["ecdf"]).transpose("feature", "u").mean("u").to_numpy()
    left, right = part.subfigures(1, 2)
    _draw_maps(left, spread, ["Pixels: 90 % intervals"], "held, minus 90 [% of rows]")
    _draw_maps(right, as_maps(place, shape)[0], ["Pixels: mean PIT, minus 1/2"], "above 0: data above replicates")


def _draw_maps(part: SubFigure, values: Numbers, names: list[str], label: str) -> None:
    """Draw maps (C, H, W) of numbers that should be 0."""
    grid = list(part.subplots(1, len(values), squeeze=False).flat)
    reach = float(np.nanmax(abs(values))) or 1.0
    shown = channel_maps(grid, values, names, cmap="PuOr_r", vmin=-reach, vmax=reach)
    colour_bar(part, shown, grid, label)


def _draw_coverage(axes: Axes, found: Any, covered: Numbers) -> None:
    order = order_features(found)[:FEATURES]
    failed = found["pit_q_value"].to_numpy()[order] < FDR_LEVEL
    places = np.arange(len(order))
    for some, colour, label in (
        (failed, SIGNIFICANT, f"PIT is not uniform, q < {FDR_LEVEL}"),
        (~failed, DATA, "others"),
    ):
        if some.any():
            axes.plot(100 * covered[order][some], places[some], "o", ms=4, color=colour, label=label)
    axes.axvline(100 * LEVEL, color=INK, lw=0.8, ls="--")
    axes.set_yticks(places, [shorten(str(name), 1.8, 7) for name in found["feature"].to_numpy()[order]])
    axes.set_ylim(len(order) - 0.4, -0.6)
    few_ticks(axes, "x", count=5)
    count = len(covered)
    note = f", {len(order)} of {count}" if len(order) < count else ""
    held = "held by 90 % intervals [% of rows]"
    small(axes, f"Features, the worst first{note}", xlabel=held, ylabel="feature", size=8)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
