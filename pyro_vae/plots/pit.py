"""Figure of the probability integral transform (PIT), and of the coverage of central intervals."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataTree

from pyro_vae.core.calls import explained
from pyro_vae.criticism.summary import FDR_LEVEL, describe_coverage, format_coverage
from pyro_vae.plots._datatree import Numbers, group
from pyro_vae.plots._layout import FEATURES, few_ticks, headline, legend_below, shorten, small
from pyro_vae.plots._style import COLOURS, INK, figure
from pyro_vae.plots.latent_usage import UNUSED

NAMED = 10
"""Maximum number of named features where not all features are shown."""


@explained
def pit(tree: DataTree) -> Figure:
    r"""Figure of the difference of the PIT from uniform, and the coverage of central intervals.

    The PIT of a value is the share of replicates below it, $u = \Pr(x^{rep} < x)$, randomised among equal ones; its
    ECDF minus u rises first and falls then where intervals are too wide, the other way round where they are too
    narrow, and is an arch where replicates lie to one side.

    References:
        Säilynoja, Bürkner and Vehtari, Graphical Test for Discrete Uniformity and Its Applications in Goodness-of-Fit
            Evaluation and Multiple Sample Comparison, 2022 [sailynoja2022], https://arxiv.org/abs/2103.10522.
        Czado, Gneiting and Held, Predictive Model Assessment for Count Data, 2009 [czado2009].

    Args:
        tree: the tree that `pv.predictive_check` returned.

    Returns:
        The figure: all features together, and up to 30 of them, those furthest from uniform; titled in words.
    """
    found = group(tree, "calibration")
    features = order_features(found)[:FEATURES]
    q = found["pit_q_value"].to_numpy()
    limit = FEATURES if found.sizes["feature"] <= FEATURES else NAMED
    named = [at for at in features if q[at] < FDR_LEVEL][:limit]
    lines = -(-(len(named) + 3) // 3)
    picture = figure(3.4 + 0.14 * lines)
    left, right = picture.subplots(1, 2, width_ratios=(1.25, 1))
    u = found["u"].to_numpy()
    low, high = (found[name].to_numpy() for name in ("band_low", "band_high"))
    left.fill_between(u, low - u, high - u, color=INK, alpha=0.13, lw=0, label="99 % of uniform features stay within")
    left.axhline(0, color=INK, lw=0.6, ls=":")
    levels = found["level"].to_numpy()
    right.plot([45, 100], [45, 100], color=INK, lw=0.9, ls="--")
    quiet = f"a feature ({len(features)} of {found.sizes['feature']})"
    for at in reversed(features):  # significant ones lie above the others
        style = _style(named.index(at)) if at in named else {"color": UNUSED, "lw": 0.6}
        label = quiet if at not in named else shorten(str(found["feature"].to_numpy()[at]), 1.9, 7)
        quiet = "" if at not in named else quiet
        left.plot(u, found["ecdf"].to_numpy()[at] - u, label=label, **style)
        right.plot(100 * levels, 100 * found["coverage"].to_numpy()[at], marker=".", ms=2, **style)
    left.plot(u, found["ecdf_overall"].to_numpy() - u, color=INK, lw=2, label="all features together")
    overall, error = found["coverage_overall"].to_numpy(), found["coverage_error"].to_numpy()
    right.errorbar(100 * levels, 100 * overall, 200 * error, color=INK, lw=2, capsize=3, marker="o", ms=4)
    _labels(left, right, levels)
    labelled = [handle for handle in left.get_legend_handles_labels()[0] if handle.get_label()]
    legend_below(picture, labelled[::-1], columns=3, fontsize=7)
    headline(picture, describe_pit(tree), size=10)
    return picture


def order_features(found: Any) -> list[int]:
    """Indices of a calibration's features, those furthest from uniform first."""
    distance = abs(found["ecdf"] - found["u"]).max("u").to_numpy()
    keys = (-distance, found["pit_p_value"].to_numpy(), found["pit_q_value"].to_numpy())
    return [int(at) for at in np.lexsort(keys)]


def describe_pit(tree: DataTree) -> str:
    """Sentence on coverage, with the share of the level at which it differs most."""
    found = group(tree, "calibration")
    levels, overall = found["level"].to_numpy(), found["coverage_overall"].to_numpy()
    most = int(np.argmax(abs(overall - levels) / found["coverage_error"].to_numpy()))
    word, sentence = describe_coverage(tree)
    start = word or ("too few rows" if "too few" in sentence else "no sign of intervals too narrow or too wide")
    return f"{start}: {format_coverage(found, float(levels[most]))}".capitalize()


def _style(place: int) -> dict[str, Any]:
    """Style of one of 30 lines, each different."""
    return {"color": COLOURS[place % 10], "ls": ("-", "--", ":")[place // 10 % 3], "lw": 1.2}


def _labels(left: Axes, right: Axes, levels: Numbers) -> None:
    small(left, "PIT: share of values below u, minus u", xlabel="u", ylabel="difference of shares", size=9)
    small(right, "Central intervals", xlabel="nominal content [%]", ylabel="coverage [% of the data]", size=9)
    left.set_xlim(0, 1)
    few_ticks(left, "y", count=5)
    few_ticks(right, "y", count=6)
    right.set_xticks(100 * levels, [f"{100 * level:g}" for level in levels])
    right.set_xlim(45, 100)
