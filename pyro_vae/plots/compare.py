"""Figure of a comparison of models: mean log p(x), and paired differences with intervals."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pyro_vae.core.calls import explained
from pyro_vae.criticism.compare import Comparison, Estimate
from pyro_vae.plots._layout import legend_below
from pyro_vae.plots._style import COLOURS, INK, figure, tidy


@explained
def compare(found: Comparison) -> Figure:
    """Figure of each model's mean log p(x) with its interval, and its paired difference to the best, best first.

    Args:
        found: the comparison that `pv.compare` returned.

    Returns:
        A figure with two panels, in nats per row; models with unreliable numbers are hollow.
    """
    count = len(found.models)
    picture = figure(1.6 + 0.32 * count)
    left, right = picture.subplots(1, 2, sharey=True)
    for place, at in enumerate(found.models):
        colour = INK if at.differs else COLOURS[0]
        _dot(left, place, at.log_p, colour, hollow=bool(at.warning))
        if at is not found.best:
            _dot(right, place, at.difference, colour, hollow=bool(at.warning or found.best.warning))
    right.axvline(0, color=INK, lw=0.8, ls="--")
    labels = [f"{at.name} ({at.seeds} seeds)" if at.seeds > 1 else at.name for at in found.models]
    left.set_yticks(range(count), labels)
    left.set_ylim(count - 0.5, -0.5)
    tidy(left, title="Mean log p(x)", xlabel="nats per row")
    tidy(right, title="Difference to the best, row by row", xlabel="nats per row")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    right.tick_params(axis="y", length=0)
    handles = [_key(COLOURS[0], "best, or not significantly different"), _key(INK, "behind")]
    if any(at.warning for at in found.models):
        handles.append(_key("0.6", "unreliable (k-hat or bias)", hollow=True))
    legend_below(picture, handles, columns=3, title=f"95 % intervals, {found.rows} rows", title_fontsize=8)
    return picture


def _dot(axes: Axes, place: int, at: Estimate, colour: str, hollow: bool) -> None:
    axes.plot(at.interval, [place, place], color=colour, lw=1.6, solid_capstyle="butt")
    axes.plot(at.value, place, "o", ms=6, color=colour, markerfacecolor="white" if hollow else colour)


def _key(colour: str, label: str, hollow: bool = False) -> Line2D:
    return Line2D(
        [], [], marker="o", ms=6, lw=1.6, color=colour, markerfacecolor="white" if hollow else colour, label=label
    )
