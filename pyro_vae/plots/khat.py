"""Figure of k-hat: rows with reliable importance weights, and rows with unreliable ones."""

import itertools

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError
from pyro_vae.criticism.evidence import Evidence
from pyro_vae.plots._layout import headline, legend_below, small
from pyro_vae.plots._style import COLOURS, INK, array, figure

NO_VARIANCE = 0.5
"""Pareto shape above which the weights have no variance, so that standard errors are too small."""

TOP = 1.5
"""Place where larger values are drawn; they are counted in the title."""


@explained
def khat(evidence: Evidence) -> Figure:
    """Figure of the Pareto shape k of each row's weights, with 0.5 and the evidence's threshold as lines.

    References:
        Vehtari et al., Pareto Smoothed Importance Sampling, 2024 [vehtari2024], https://arxiv.org/abs/1507.02646.

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
    limits = sorted({min(NO_VARIANCE, evidence.threshold), evidence.threshold})  # the latter is small for few draws
    for label, low, high, colour, marker in _zones(limits):
        inside = (values > low) & (values <= high)
        name = f"{label} ({int(inside.sum())} of {len(values)})"
        axes.plot(rows[inside], np.minimum(values[inside], TOP), marker, ms=size, color=colour, label=name, mew=0)
    zones = list(axes.lines)
    for limit in limits:
        axes.axhline(limit, color=INK, lw=0.8, ls="--")
    beyond = int((values > TOP).sum())
    note = f"; {beyond} above {TOP} drawn there" if beyond else ""
    small(axes, f"{evidence.method.describe()}{note}", xlabel="row", ylabel="k-hat", size=8)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend_below(picture, zones, columns=3, fontsize=7, markerscale=4 / size, columnspacing=1.2)
    shares = [f"above {limit:.2g} in {100 * float((values > limit).mean()):.1f} %" for limit in limits]
    headline(picture, f"k-hat is {', and '.join(shares)} of the rows.")
    return picture


def _zones(limits: list[float]) -> list[tuple[str, float, float, str, str]]:
    """Label, ends (low, high], colour and marker of each zone between the limits."""
    last = (f"above {limits[-1]:.2g}: unreliable", limits[-1], np.inf, COLOURS[2], "^")
    first = (f"up to {limits[0]:.2g}: errors are right", -np.inf, limits[0], COLOURS[0], "o")
    between = [
        (f"{low:.2g} to {high:.2g}: converges slowly", low, high, COLOURS[1], "s")
        for low, high in itertools.pairwise(limits)
    ]
    return [first, *between, last]
