"""What has to hold for every picture: it can be drawn, its axes say what they show, and no words overlap."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def titles(picture: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in picture.axes]


def _words(picture: Figure) -> list[Text]:
    """Every visible text, ticks outside of their axes' range left out."""
    found = [text for text in picture.findobj(Text) if text.get_text().strip() and text.get_visible()]
    unseen = set()
    for axes in picture.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            drawn = {id(tick) for tick in axis._update_ticks()} if axes.axison and axis.get_visible() else set()
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if id(tick) not in drawn:
                    unseen |= {id(tick.label1), id(tick.label2)}
    return [text for text in found if id(text) not in unseen]


def readable(picture: Figure) -> None:
    """Draw it, which must not warn, and measure its words: none on another, none beyond the page."""
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba()).std() > 0
    boxes = [(text, text.get_window_extent(canvas.get_renderer())) for text in _words(picture)]
    boxes = [(text, box) for text, box in boxes if box.width > 0 and box.height > 0]
    for text, box in boxes:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < picture.bbox.x1 + 1 and box.y1 < picture.bbox.y1 + 1
        assert inside, f"{text.get_text()!r} leaves the page: {box}, {picture.bbox}"
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        if one.get_rotation() % 90 or other.get_rotation() % 90:
            continue  # the box around a slanted text is larger than the text
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 1 or up < 1, f"{one.get_text()!r} lies on {other.get_text()!r}"


def labelled(picture: Figure) -> None:
    """Every axis that has ticks has a name: its own, or that of the one it is in line with."""
    panels = [axes for axes in picture.findobj(Axes) if axes.axison]
    boxes = [axes.get_window_extent() for axes in panels]
    for axes, box in zip(panels, boxes, strict=True):
        for name, side in (("x", "x0"), ("y", "y0")):
            axis = getattr(axes, f"{name}axis")
            if not axis.get_visible() or not len(axis.get_ticklocs()):
                continue
            places = [abs(getattr(other, side) - getattr(box, side)) for other in boxes]
            named = [getattr(other, f"get_{name}label")() for other, off in zip(panels, places, strict=True) if off < 3]
            assert any(named), f"{name} of {axes.get_title('left')}"


def rendered(picture: Figure) -> np.ndarray:
    """The pixels (height, width, 4), which also proves that the figure can be drawn without warnings."""
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
