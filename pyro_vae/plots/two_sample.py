"""Figure of a classifier two-sample test: the importance of each feature."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataTree

from pyro_vae.core.calls import explained
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.summary import FDR_LEVEL
from pyro_vae.data.images import is_image
from pyro_vae.plots._datatree import Numbers, as_maps, event_shape, group
from pyro_vae.plots._layout import FEATURES, channel_maps, colour_bar, few_ticks, headline, shorten, small
from pyro_vae.plots._style import COLOURS, INK, figure


@explained
def two_sample(tree: DataTree) -> Figure:
    """Figure of the importance of each feature to a classifier of replicates against data.

    References:
        Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017 [lopezpaz2017],
            https://arxiv.org/abs/1610.06545.
        Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020 [naeem2020],
            https://arxiv.org/abs/2002.09797.

    Args:
        tree: the tree that `pv.predictive_check` returned.

    Returns:
        The figure: bars, the largest first, or for images a map; the title has accuracy, density and coverage.
    """
    found, shape = group(tree, "two_sample"), event_shape(tree)
    importance = np.nan_to_num(found["importance"].to_numpy())  # NaN where a classifier has none
    if is_image(shape):
        picture = _draw_maps(importance, shape)
    else:
        shown = np.argsort(-importance, kind="stable")[:FEATURES]
        picture = figure(1.2 + 0.17 * max(len(shown), 3))
        names = [str(name) for name in found["feature"].to_numpy()[shown]]
        _draw_bars(picture.subplots(), importance[shown], names, len(importance))
    headline(picture, _title(found))
    return picture


def _title(found: Any) -> str:
    value = {name: float(found[name]) for name in found.data_vars if name != "importance"}
    p, of_mmd = value["classifier_p_value"], value["mmd_p_value"]
    distinguishes = "distinguishes" if p < FDR_LEVEL else "does not distinguish"
    return (
        f"A classifier {distinguishes} replicates and data: accuracy {value['classifier_accuracy']:.2f} ± "
        f"{value['classifier_error']:.2f} (chance 0.50), {format_p_value(p)}; kernel MMD² {value['mmd2']:.2g}, "
        f"{format_p_value(of_mmd)}.\nDensity {value['density']:.2f} (1 expected), coverage {value['coverage']:.2f} "
        f"({value['coverage_expected']:.2f} expected)."
    )


def _draw_bars(axes: Axes, importance: Numbers, names: list[str], count: int) -> None:
    places = np.arange(len(names))
    axes.barh(places, importance, color=COLOURS[0], height=0.7)
    axes.axvline(0, color=INK, lw=0.6)
    axes.set_yticks(places, [shorten(name, 2.2, 7) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    few_ticks(axes, "x", count=5)
    note = f", the first {len(names)} of {count}" if len(names) < count else ""
    small(axes, f"Importance{note}", xlabel="share of the classifier's importance", ylabel="feature", size=9)
    axes.tick_params(axis="y", labelsize=7, length=0)


def _draw_maps(importance: Numbers, shape: tuple[int, ...]) -> Figure:
    values, names = as_maps(importance, shape)
    picture = figure(3.8 if len(values) == 1 else 3.0, 5.2 if len(values) == 1 else 7.0)
    picture.set_layout_engine("compressed")
    grid = list(picture.subplots(1, len(values), squeeze=False).flat)
    top = float(values.max())
    drawn = channel_maps(
        grid, values, names, cmap="cividis", vmin=min(0.0, float(values.min())), vmax=top if top > 0 else 1.0
    )
    colour_bar(picture, drawn, grid, "share of the classifier's importance")
    return picture
