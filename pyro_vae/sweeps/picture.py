"""Figure of a sweep: the loss by option."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.core.formatting import shorten
from pyro_vae.plots._style import COLOURS, INK, figure, tidy
from pyro_vae.sweeps.results import Result, Sweep
from pyro_vae.workflow.comparison import words

ACROSS = 3
"""Panels in a row."""

WIDE = 14
"""Characters of a value at an axis."""

FAR = 4.0
"""Distances of the median to the best above which a loss is drawn at the edge: bad runs hide no difference."""

FEW = 5
"""Different numbers up to which each has a tick of its own."""


def sweep(found: Sweep) -> Figure:
    """Figure of the best loss of each point by option, with panels of their own for each kind of loss.

    Args:
        found: what `pv.sweep` returned.

    Returns:
        A figure with a panel for each option, in nats per row; the best point is marked, and a triangle at the upper
        edge stands for a loss beyond it.
    """
    names = list(dict.fromkeys(name for result in found.results for name in result.chosen))
    groups = [[result for result in found.results if result.kind == kind] for kind in found.kinds] or [[]]
    deep = math.ceil(len(names) / ACROSS)
    picture = figure(0.3 + 2.3 * deep * len(groups))
    grid = picture.subplots(deep * len(groups), min(ACROSS, len(names)), squeeze=False)
    for number, group in enumerate(groups):
        panels = grid[number * deep : (number + 1) * deep].flatten()
        for place, (axes, name) in enumerate(zip(panels, names, strict=False)):
            _panel(axes, name, [result for result in group if name in result.chosen])
            label = group[0].loss.replace("_", " ") if group else "loss"
            kind = f" (kind {number + 1})" if len(groups) > 1 else ""
            tidy(axes, xlabel=name, ylabel=f"best {label}{kind}" if place % ACROSS == 0 else "")
        for axes in panels[len(names) :]:
            axes.set_axis_off()
    missing = sum(not result.kind for result in found.results)
    notes = [f"{missing} of {len(found.results)} points have no loss"] if missing else []
    notes += ["losses of different kinds cannot be compared"] if len(groups) > 1 else []
    picture.supxlabel("; ".join(["nats per row; the best one is filled", *notes]), fontsize=7)
    return picture


def _panel(axes: Axes, name: str, group: Sequence[Result]) -> None:
    group = [result for result in group if math.isfinite(result.best)]
    if not group:
        axes.text(0.5, 0.5, "no finished point", ha="center", va="center", transform=axes.transAxes, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    losses = np.array([result.best for result in group])
    positions = _positions(axes, [result.chosen[name] for result in group])
    low, middle = losses.min(), float(np.median(losses))
    far = losses > (low + FAR * (middle - low) if middle > low else math.inf)
    axes.plot(positions[~far], losses[~far], "o", ms=4, color=COLOURS[0], markerfacecolor="white", alpha=0.9)
    best = int(losses.argmin())
    axes.plot(positions[best], losses[best], "o", ms=6, color=COLOURS[1])
    if far.any():
        top = low + 1.1 * (losses[~far].max() - low)
        axes.plot(positions[far], np.full(far.sum(), top), "^", ms=5, color=INK, clip_on=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _positions(axes: Axes, values: Sequence[Any]) -> np.ndarray:
    """Positions of values on the axis: numbers at their value, on a log scale over a wide range; words side by side."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values) and len(set(values)) > 1:
        numbers = np.array(values, dtype=float)
        if numbers.min() > 0 and numbers.max() / numbers.min() >= 8:
            axes.set_xscale("log")
        elif all(isinstance(value, int) for value in values):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        if len(several := sorted(set(values))) <= FEW:
            axes.set_xticks(several, [f"{value:g}" for value in several])
            axes.minorticks_off()
        axes.margins(x=0.15)
        return numbers
    labels = list(dict.fromkeys(words(value) for value in values))
    short = [shorten(text, WIDE) for text in labels]
    axes.set_xticks(range(len(labels)), short, rotation=20 if max(map(len, short)) > 6 else 0)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    return np.array([labels.index(words(value)) for value in values], dtype=float)
