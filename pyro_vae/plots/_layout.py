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

from pyro_vae.plots._style import COLOURS, INK, WIDTH, figure, tidy

CHARACTER = 0.0072
"""Inches that a character takes at one point of size, on average and with some room."""

DATA, REPLICATES, STANDS_OUT = COLOURS[:3]
"""What is the data's, what is the replicates', and what a test found."""


class Digits(Formatter):
    """Ticks with as few digits as say where they are, and no offset beside the axis."""

    def set_locs(self, locs: Any) -> None:
        """Choose the digits for some ticks."""
        self.locs = locs
        places = np.asarray(locs, float)
        step = np.diff(places).min() if len(places) > 1 else abs(places).max(initial=1.0)
        for self.digits in range(1, 12):
            if all(abs(float(self._written(place)) - place) <= 0.01 * step for place in places):
                break

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Write one tick."""
        return self._written(x)

    def _written(self, x: float) -> str:
        rounded = float(f"{x:.{self.digits}g}") + 0.0  # no -0
        if rounded == 0 or 1e-4 <= abs(rounded) < 1e5:
            return f"{rounded:.{max(self.digits, 6)}g}"
        return f"{rounded:.{self.digits}g}".replace("e+0", "e").replace("e-0", "e-")

    digits = 3


def beside(count: int) -> int:
    """How many of so many panels stand beside each other: few lines, none of them with a single panel."""
    return 5 if count > 9 else 2 if count in (2, 4) else 3


def panels(count: int, *, across: int = 3, height: float = 1.7, head: float = 0.6) -> tuple[Figure, list[Axes]]:
    """Make a page of panels of one size.

    Args:
        count: how many.
        across: how many beside each other.
        height: of each, in inches.
        head: what is above and below all of them, in inches.

    Returns:
        The figure, and its axes.
    """
    across = min(across, count)
    down = -(-count // across)
    alone = count == 1
    picture = figure(head + (2.2 if alone else height * down), 4.6 if alone else WIDTH)
    grid = list(picture.subplots(down, across, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return picture, grid[:count]


def headline(picture: Figure, text: str, size: float = 9) -> None:
    """Write what a whole page shows above it, in as many lines as its width asks for."""
    width = picture.get_figwidth()
    text = re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", text)
    picture.suptitle(wrapped(text, 0.96 * width, size), fontsize=size, color=INK, x=0.12 / width, ha="left")


def wrapped(text: str, inches: float, size: float) -> str:
    """Break a text into lines that fit a width."""
    fits = max(int(inches / (CHARACTER * size)), 8)
    text = plain(text)
    return "\n".join("\n".join(textwrap.wrap(line, fits)) for line in text.splitlines())


def shortened(text: str, inches: float, size: float) -> str:
    """Cut a name to what fits a width."""
    fits = max(int(inches / (CHARACTER * size)), 4)
    return plain(text if len(text) <= fits else f"{text[: fits - 1].rstrip()}…")


def plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics: a column may be called "US$ per $1,000"."""
    return text.replace("$", r"\$")


def small(axes: Axes, title: str, *, xlabel: str = "", ylabel: str = "", size: float = 7, colour: str = INK) -> None:
    """Label a small panel, and leave it few ticks."""
    tidy(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=size, loc="left", color=colour)
    axes.xaxis.label.set_fontsize(size)
    axes.yaxis.label.set_fontsize(size)
    axes.tick_params(labelsize=size - 1, pad=2)


def few_ticks(axes: Axes, *names: str, count: int = 3) -> None:
    """Leave axes, "x" or "y", some ticks with short labels."""
    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
        axis.set_major_formatter(Digits())


def chosen(count: int, most: int) -> list[int]:
    """At most so many numbers below `count`, evenly spread."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))})


def maps(axes: Sequence[Axes], values: NDArray[Any], names: Sequence[str], **options: Any) -> AxesImage:
    """Show numbers of pixels (C, H, W), one map for each channel, on one scale.

    Args:
        axes: where to, one for each channel.
        values: the numbers.
        names: what each channel is called.
        options: the scale, as for `imshow`.

    Returns:
        The first map, for a colour bar.
    """
    shown = [
        each.imshow(channel, interpolation="nearest", **options) for each, channel in zip(axes, values, strict=True)
    ]
    for each, name in zip(axes, names, strict=True):
        small(each, name, xlabel="width", ylabel="height" if each is axes[0] else "", size=8)
        each.spines[:].set_visible(False)
        for axis in (each.xaxis, each.yaxis):
            axis.set_major_locator(MaxNLocator(4, integer=True))
    return shown[0]


def bar(part: Figure | SubFigure, shown: ScalarMappable, axes: Any, label: str) -> None:
    """Put a colour bar beside axes.

    Args:
        part: the figure.
        shown: whose colours they are.
        axes: beside which.
        label: what the colours say, and in which unit.
    """
    drawn = part.colorbar(shown, ax=axes)
    drawn.set_label(label, size=8)
    drawn.ax.tick_params(labelsize=7)
