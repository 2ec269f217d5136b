"""The figure of test statistics: their distribution over replicates, and their value on the data."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.summary import FDR_LEVEL, order_by_significance
from pyro_vae.plots._datatree import Numbers, across_chains, group, kind_of
from pyro_vae.plots._layout import (
    DATA,
    REPLICATES,
    STANDS_OUT,
    beside,
    few_ticks,
    headline,
    panels,
    small,
    wrapped,
)
from pyro_vae.plots._style import INK

if TYPE_CHECKING:
    from xarray import DataTree

PANELS = 12
"""Quantities at most in a picture."""

BARS = 30
"""Bars at most in a histogram."""


def test_statistics(tree: "DataTree") -> Figure:
    r"""Figure of each test statistic of replicates with the data's value, the most significant first.

    A data set's quantity T(x) is a line over the histogram of $T(x^{rep})$. A discrepancy T(x, z) has a value of the
    data for every draw of z: realized against replicated ones, and p is about the share above the diagonal.

    References:
        Gelman, Meng and Stern, Posterior Predictive Assessment of Model Fitness via Realized Discrepancies, 1996.

    Args:
        tree: what `pv.predictive_check` returned.

    Returns:
        The figure: at most 12 panels in the order of q_value, then of the distance in standard deviations.
    """
    found, drawn = group(tree, "checks"), group(tree, "statistics")
    replicated, realized = across_chains(drawn["replicated"]), across_chains(drawn["realized"])
    order = order_by_significance(found)[:PANELS]
    across = min(3, beside(len(order)))
    picture, grid = panels(len(order), across=across, height=1.85, head=0.9)
    inches = picture.get_figwidth() / min(across, len(order)) - 0.4
    for place, (axes, at) in enumerate(zip(grid, order, strict=True)):
        one = found.isel(quantity=at)
        varies = bool(np.ptp(realized[:, at]) > 1e-9 * abs(realized[:, at]).max())
        if varies:
            _discrepancy(axes, replicated[:, at], realized[:, at])
        else:
            _histogram(axes, replicated[:, at], float(one["observed"]))
        numbers = f"{_p(one)}, q {float(one['q_value']):.2g}"
        if varies:
            numbers += f"; {100 * np.mean(replicated[:, at] > realized[:, at]):.0f} % above"
        small(
            axes,
            f"{wrapped(str(one['quantity'].item()), inches, 8)}\n{numbers}",
            xlabel="of data, for each z" if varies else wrapped(str(one["label"].item()), inches, 8),
            ylabel="of replicates, same z" if varies else ("replicates" if place % across == 0 else ""),
            size=8,
            colour=STANDS_OUT if float(one["q_value"]) < FDR_LEVEL else INK,
        )
    picture.legend(handles=_keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    headline(picture, _told(tree, found, len(order)))
    return picture


def _told(tree: "DataTree", found: Any, shown: int) -> str:
    count = found.sizes["quantity"]
    out = int((found["q_value"] < FDR_LEVEL).sum())
    which = f"The {shown} of {count} test statistics that stand out most" if shown < count else "Test statistics"
    rate = f"{out or 'none'} of {count} at a false discovery rate of {100 * FDR_LEVEL:g} % (red)"
    return f"{which}; {rate}.\n{kind_of(tree)}."


def _p(one: Any) -> str:
    p, error = format_p_value(float(one["p_value"])), float(one["p_error"])
    return f"{p} ± {error:.1g}" if error > 0 else p


def _histogram(axes: Axes, values: Numbers, observed: float) -> None:
    """Bars of the replicates, a bar for each value of a quantity that has few; the data's value is a line."""
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


def _discrepancy(axes: Axes, replicated: Numbers, realized: Numbers) -> None:
    axes.plot(realized, replicated, ".", ms=2.5, color=REPLICATES)
    ends = np.concatenate([replicated[np.isfinite(replicated)], realized[np.isfinite(realized)]])
    room = 0.05 * (np.ptp(ends) or 1.0)
    axes.set(xlim=(ends.min() - room, ends.max() + room), ylim=(ends.min() - room, ends.max() + room))
    axes.axline((ends.min(), ends.min()), slope=1, color=INK, lw=0.8)
    few_ticks(axes, "x", "y")


def _keys() -> list[Patch | Line2D]:
    return [Patch(color=REPLICATES, label="replicates"), Line2D([], [], color=DATA, lw=2, label="data")]
