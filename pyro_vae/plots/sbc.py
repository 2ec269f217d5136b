"""Figure of simulation-based calibration: ECDF differences of ranks with a simultaneous band."""

import numpy as np
from matplotlib.figure import Figure

from pyro_vae.core.calls import explained
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.ecdf_bands import simultaneous_ecdf_band
from pyro_vae.criticism.ranks import JOINT
from pyro_vae.criticism.sbc import SBC
from pyro_vae.plots._style import COLOURS, INK, figure, tidy

PANELS = 8
"""Maximum number of quantities in a picture."""


@explained
def sbc(found: SBC) -> Figure:
    r"""Figure of the ECDF difference of each quantity's ranks from uniform, with a simultaneous 99 % band.

    The curve is the share of simulations in which the truth lies below the guide's u-quantile, minus u. A guide that
    is too narrow gives a wave that rises first, one that is too wide a wave that falls first, a shifted one an arch.

    References:
        Säilynoja, Bürkner and Vehtari, Graphical Test for Discrete Uniformity and Its Applications in Goodness-of-Fit
            Evaluation and Multiple Sample Comparison, 2022 [sailynoja2022], https://arxiv.org/abs/2103.10522.

    Args:
        found: the result of `pv.criticism.sbc`.

    Returns:
        The figure: the log joint first, then the quantities with the smallest p-values, in their order.
    """
    others = sorted((name for name in found.quantities if name != JOINT), key=found.p_values.__getitem__)
    chosen = {JOINT, *others[: PANELS - 1]}
    names = [name for name in found.quantities if name in chosen]
    rows, columns = -(-len(names) // 4), min(4, len(names))
    picture = figure(0.7 + 1.9 * rows)
    grid = list(picture.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    points = np.linspace(0, 1, min(len(found), 200) + 1)[1:-1]
    low, high = simultaneous_ecdf_band(len(found), points)
    for axes, name in zip(grid, names, strict=False):
        column = np.sort(found.uniforms[:, found.quantities.index(name)])
        share = np.searchsorted(column, points, side="right") / len(found)
        failed = name in found.failed
        axes.fill_between(points, low - points, high - points, color=INK, alpha=0.15, lw=0)
        axes.plot(points, share - points, color=COLOURS[1] if failed else COLOURS[0], lw=1.2)
        axes.axhline(0, color=INK, lw=0.6, ls=":")
        tidy(axes, title=f"{name}  {format_p_value(found.p_values[name])}")
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    verdict = "no sign of a wrong guide" if found.passed else f"{len(found.failed)} of {len(found.quantities)} fail"
    hidden = f", {len(found.quantities) - len(names)} not shown" if len(names) < len(found.quantities) else ""
    picture.suptitle(
        f"{len(found)} simulated truths among {found.draws} draws: {verdict}{hidden}", fontsize=10, color=INK
    )
    picture.supxlabel("level u of the guide's quantile; band: 99 % of uniform curves", fontsize=9)
    picture.supylabel("share of truths below, minus u", fontsize=9)
    return picture
