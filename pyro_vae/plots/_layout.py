"""Layout of many small panels on one page: sizes, ticks, and text wrapped to fit."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import Formatter, MaxNLocator
from numpy.typing import NDArray

from pyro_vae.plots._style import COLOURS, INK, figure, tidy

CHARACTER = 0.0072
"""Width of a character, in inches per point of font size, on average and with some margin."""

FEATURES = 30
"""Maximum number of features in a picture."""

DATA, REPLICATES, SIGNIFICANT = COLOURS[:3]
"""Colours of data, of replicates, and of significant differences."""


class Digits(Formatter):
    """Tick labels with as few digits as identify their places, and no offset beside the axis."""

    digits = 3

    def set_locs(self, locs: Any) -> None:
        """Choose the number of digits for some ticks."""
        self.locs = locs
        places = np.asarray(locs, float)
        step = np.diff(places).min() if len(places) > 1 else abs(places).max(initial=1.0)
        for self.digits in range(1, 12):
            if all(abs(float(self(place)) - place) <= 0.01 * step for place in places):
                break

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Label of one tick."""
        rounded = float(f"{x:.{self.digits}g}") + 0.0  # no -0
        if rounded == 0 or 1e-4 <= abs(rounded) < 1e5:
            return f"{rounded:.{max(self.digits, 6)}g}"
        return f"{rounded:.{self.digits}g}".replace("e+0", "e").replace("e-0", "e-")


def columns_of(count: int) -> int:
    """Number of columns for a number of panels, such that no row has a single panel."""
    return 5 if count > 9 else 2 if count in (2, 4) else 3


def panels(count: int, *, columns: int = 3, height: float = 1.7, head: float = 0.6) -> tuple[Figure, list[Axes]]:
    """Page of panels of one size: the figure, and its axes.

    `height` is that of a panel, `head` the space above and below all of them, in inches.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    picture = figure(head + 2.2, 4.6) if count == 1 else figure(head + height * rows)
    grid = list(picture.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return picture, grid[:count]


def headline(picture: Figure, text: str, size: float = 9) -> None:
    """Write a title above a page, wrapped to its width."""
    width = picture.get_figwidth()
    text = re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", text)
    picture.suptitle(wrap(text, 0.96 * width, size), fontsize=size, color=INK, x=0.12 / width, ha="left")


def legend_below(picture: Figure, handles: Sequence[Any], *, columns: int = 2, **options: Any) -> None:
    """Draw a legend below a page, with further options of `Figure.legend`."""
    options = {"fontsize": 8, **options}
    picture.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, **options)


def wrap(text: str, inches: float, size: float) -> str:
    """Text in lines that fit a width."""
    fits = max(int(inches / (CHARACTER * size)), 8)
    return "\n".join("\n".join(textwrap.wrap(line, fits)) for line in escape(text).splitlines())


def shorten(text: str, inches: float, size: float) -> str:
    """Name, cut to fit a width."""
    fits = max(int(inches / (CHARACTER * size)), 4)
    return escape(text if len(text) <= fits else f"{text[: fits - 1].rstrip()}…")


def escape(text: str) -> str:
    """Text that matplotlib does not read as mathematics: a column may be called "US$ per $1,000"."""
    return text.replace("$", r"\$")


def small(axes: Axes, title: str, *, xlabel: str = "", ylabel: str = "", size: float = 7, colour: str = INK) -> None:
    """Label a small panel."""
    tidy(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=size, loc="left", color=colour)
    axes.xaxis.label.set_fontsize(size)
    axes.yaxis.label.set_fontsize(size)
    axes.tick_params(labelsize=size - 1, pad=2)


def label_outer(grid: Sequence[Axes], *, columns: int, xlabel: str, ylabel: str) -> None:
    """Label the lowest panel of each column and the first one of each row."""
    for place, axes in enumerate(grid):
        axes.set_xlabel(xlabel if place + columns >= len(grid) else "")
        axes.set_ylabel(ylabel if place % columns == 0 else "")


def few_ticks(axes: Axes, *names: str, count: int = 3) -> None:
    """Leave axes, "x" or "y", some ticks with short labels."""
    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
        axis.set_major_formatter(Digits())


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, evenly spaced."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))})


def channel_maps(axes: Sequence[Axes], values: NDArray[Any], names: Sequence[str], **options: Any) -> AxesImage:
    """First map of pixels (C, H, W), drawn on axes for each channel with options of `imshow`; for a colour bar."""
    shown = [
        each.imshow(channel, interpolation="nearest", **options) for each, channel in zip(axes, values, strict=True)
    ]
    for each, name in zip(axes, names, strict=True):
        small(each, name, xlabel="width", ylabel="height" if each is axes[0] else "", size=8)
        each.spines[:].set_visible(False)
        for axis in (each.xaxis, each.yaxis):
            axis.set_major_locator(MaxNLocator(4, integer=True))
    return shown[0]


def colour_bar(part: Figure | SubFigure, shown: ScalarMappable, axes: Any, label: str) -> None:
    """Draw a colour bar beside axes; the label names quantity and unit."""
    drawn = part.colorbar(shown, ax=axes)
    drawn.set_label(label, size=8)
    drawn.ax.tick_params(labelsize=7)
