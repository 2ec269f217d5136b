"""Figure of k-hat: rows with reliable importance weights, and rows with unreliable ones."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.evidence import Evidence
from pyro_vae.plots._layout import headline, legend_below, small
from pyro_vae.plots._style import COLOURS, INK, array, figure

ZONES = {
    "up to 0.5: errors are right": (-np.inf, 0.5, COLOURS[0], "o"),
    "0.5 to 0.7: converges slowly": (0.5, 0.7, COLOURS[1], "s"),
    "above 0.7: unreliable": (0.7, np.inf, COLOURS[2], "^"),
}

TOP = 1.5
"""Place where larger values are drawn; they are counted in the title."""


def khat(evidence: Evidence) -> Figure:
    """Figure of the Pareto shape k of each row's weights, with the thresholds 0.5 and 0.7.

    References:
        Vehtari et al., Pareto Smoothed Importance Sampling, 2024, https://arxiv.org/abs/1507.02646.

    Args:
        evidence: the evidence that `pv.evidence` returned.

    Returns:
        The figure; its title has the share of rows beyond each threshold.

    Raises:
        InputError: there are too few draws for k.
    """
    values = array(evidence.khat)
    if np.isnan(values).all():
        raise InputError(
            f"{evidence.draws} draws for each row are too few for k-hat: write pv.evidence(vae, x, "
            "method=pv.criticism.Importance(draws=1000))."
        )
    picture = figure(3.0)
    axes = picture.subplots()
    rows, size = np.arange(len(values)), 4 if len(values) <= 500 else 1.5
    for label, (low, high, colour, marker) in ZONES.items():
        inside = (values > low) & (values <= high) | ((low == -np.inf) & (values == low))
        name = f"{label} ({int(inside.sum())} of {len(values)})"
        axes.plot(rows[inside], np.minimum(values[inside], TOP), marker, ms=size, color=colour, label=name, mew=0)
    for threshold in (0.5, 0.7):
        axes.axhline(threshold, color=INK, lw=0.8, ls="--")
    beyond = int((values > TOP).sum())
    note = f"; {beyond} above {TOP} drawn there" if beyond else ""
    small(axes, f"{evidence.method.describe()}{note}", xlabel="row", ylabel="k-hat", size=8)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend_below(picture, axes.lines[: len(ZONES)], columns=3, fontsize=7, markerscale=4 / size, columnspacing=1.2)
    half, most = (float((values > threshold).mean()) for threshold in (0.5, 0.7))
    headline(picture, f"k-hat is above 0.5 in {100 * half:.1f} % of the rows, and above 0.7 in {100 * most:.1f} %.")
    return picture
