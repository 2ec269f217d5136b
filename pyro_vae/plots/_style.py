"""Style of all pictures: sizes that fit a report, and colours that colour-blind readers distinguish."""

from collections.abc import Sequence

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

WIDTH = 7.0
"""Width of a page, in inches."""

COLOURS: Sequence[str] = matplotlib.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"]
"""Ten distinguishable colours (Petroff, Accessible color sequences for data visualization, 2021)."""

INK = "#333333"


def figure(height: float, width: float = WIDTH) -> Figure:
    """Empty figure of a page's width; it belongs to no window and needs no closing."""
    picture = Figure(figsize=(width, height), dpi=150)
    picture.set_layout_engine("constrained", w_pad=0.06, h_pad=0.08)
    return picture


def tidy(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> Axes:
    """Axes, labelled and without the upper and right side of their frame."""
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return axes


def array(x: Tensor) -> NDArray[np.float64]:
    """Array of a tensor's values, for matplotlib."""
    return x.detach().cpu().double().numpy()
