"""Figure of test statistics: their distribution over replicates, and their value on the data."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from xarray import DataTree

from pyro_vae.core.calls import explained
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.summary import FDR_LEVEL, order_by_significance
from pyro_vae.plots import _layout
from pyro_vae.plots._datatree import Numbers, describe_kind, group, stack_draws
from pyro_vae.plots._layout import DATA, REPLICATES, SIGNIFICANT, few_ticks, small, wrap
from pyro_vae.plots._style import INK

PANELS = 12
"""Maximum number of test statistics in a picture."""

BARS = 30
"""Maximum number of bars in a histogram."""


@explained
def test_statistics(tree: DataTree) -> Figure:
    r"""Figure of each test statistic of replicates with the data's value, the most significant first.

    T(x) of the data is a line over the histogram of $T(x^{rep})$. A discrepancy T(x, z) has a value of the data for
    every draw of z: realized against replicated ones, and p is about the share above the diagonal.

    References:
        Gelman, Meng and Stern, Posterior Predictive Assessment of Model Fitness via Realized Discrepancies, 1996
            [gelman1996].

    Args:
        tree: the tree that `pv.predictive_check` returned.

    Returns:
        The figure: at most 12 panels in the order of q_value, then of the distance in standard deviations.
    """
    found, drawn = group(tree, "checks"), group(tree, "statistics")
    replicated, realized = stack_draws(drawn["replicated"]), stack_draws(drawn["realized"])
    order = order_by_significance(found)[:PANELS]
    columns = min(3, _layout.columns_of(len(order)))
    picture, grid = _layout.panels(len(order), columns=columns, height=1.85, head=0.9)
    inches = picture.get_figwidth() / min(columns, len(order)) - 0.4
    for place, (axes, at) in enumerate(zip(grid, order, strict=True)):
        one = found.isel(statistic=at)
        varies = bool(np.ptp(realized[:, at]) > 1e-9 * abs(realized[:, at]).max())
        if varies:
            _draw_discrepancy(axes, replicated[:, at], realized[:, at])
        else:
            _draw_histogram(axes, replicated[:, at], float(one["observed"]))
        numbers = f"{_p(one)}, q {float(one['q_value']):.2g}"
        if varies:
            numbers += f"; {100 * np.mean(replicated[:, at] > realized[:, at]):.0f} % above"
        small(
            axes,
            f"{wrap(str(one['statistic'].item()), inches, 8)}\n{numbers}",
            xlabel="of data, for each z" if varies else wrap(str(one["label"].item()), inches, 8),
            ylabel="of replicates, same z" if varies else ("replicates" if place % columns == 0 else ""),
            size=8,
            colour=SIGNIFICANT if float(one["q_value"]) < FDR_LEVEL else INK,
        )
    replicates, data = Patch(color=REPLICATES, label="replicates"), Line2D([], [], color=DATA, lw=2, label="data")
    _layout.legend_below(picture, [replicates, data])
    _layout.headline(picture, _title(tree, found, len(order)))
    return picture


def _title(tree: DataTree, found: Any, shown: int) -> str:
    count = found.sizes["statistic"]
    out = int((found["q_value"] < FDR_LEVEL).sum())
    which = f"The {shown} of {count} test statistics that are most significant" if shown < count else "Test statistics"
    rate = f"{out or 'none'} of {count} at a false discovery rate of {100 * FDR_LEVEL:g} % (red)"
    return f"{which}; {rate}.\n{describe_kind(tree)}."


def _p(one: Any) -> str:
    p, error = format_p_value(float(one["p_value"])), float(one["p_error"])
    return f"{p} ± {error:.1g}" if error > 0 else p


def _draw_histogram(axes: Axes, values: Numbers, observed: float) -> None:
    """Draw bars of the replicates, one for each value where there are few; the data's value is a line."""
    values = values[np.isfinite(values)]
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) > BARS:
        counts, edges = np.histogram(values, min(BARS, max(10, round(len(values) ** 0.5))))
        axes.stairs(counts, edges, fill=True, color=REPLICATES)
    else:
        apart = np.diff(levels) if len(levels) > 1 else 0.3 * abs(levels - observed)
        step = float(apart.min()) if np.isfinite(apart).all() and apart.size else 0.0
        axes.bar(levels, counts, width=0.8 * step or 0.1 * (abs(levels).max(initial=0.0) or 1.0), color=REPLICATES)
    if np.isfinite(observed):
        axes.axvline(observed, color=DATA, lw=2)
    axes.margins(x=0.08)
    few_ticks(axes, "x")
    axes.set_yticks([])


def _draw_discrepancy(axes: Axes, replicated: Numbers, realized: Numbers) -> None:
    axes.plot(realized, replicated, ".", ms=2.5, color=REPLICATES)
    ends = np.concatenate([replicated[np.isfinite(replicated)], realized[np.isfinite(realized)]])
    room = 0.05 * (np.ptp(ends) or 1.0)
    axes.set(xlim=(ends.min() - room, ends.max() + room), ylim=(ends.min() - room, ends.max() + room))
    axes.axline((ends.min(), ends.min()), slope=1, color=INK, lw=0.8)
    few_ticks(axes, "x", "y")
