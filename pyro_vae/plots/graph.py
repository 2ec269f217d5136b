"""Figure of a model as a directed graph: random variables, dependencies and plates."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.model.programs import Programs, check_programs, evaluation
from pyro_vae.model.summary import formula
from pyro_vae.model.vae import VAE
from pyro_vae.plots._style import INK, figure

RADIUS, DOWN, LETTER = 0.32, 1.35, 0.135
"""Radius of a node, distance from one node down to the next, and width of a letter beside a node."""

SHADE = "#d5dbe3"


@explained
def graph(vae: Programs, x: Tensor, **given: Tensor) -> Figure:
    """Figure of a model as a directed graph, from Pyro's `get_model_relations`.

    Random variables are circles, observed ones shaded; an arrow leads from a variable to those that depend on it, a
    dashed one is the guide, from the data to its latents; a box is a plate.

    References:
        Buntine, Operations for Learning with Graphical Models, 1994 [buntine1994], https://arxiv.org/abs/cs/9412102.

    Args:
        vae: a `VAE`, or any object whose `model` and `guide` are Pyro programs.
        x: rows (N, *event_shape), of which only the shape matters: two are enough.
        given: further named tensors of these rows, as for `model`.

    Raises:
        InputError: `model` or `guide` is missing.
    """
    from pyro.infer.inspect import get_model_relations  # here, for importing it takes time

    check_programs(vae, "graph")
    batch = {"x": x, **given}
    with evaluation(vae, seed=0):
        relations = get_model_relations(vae.model, (), batch)
        guided = get_model_relations(vae.guide, (), batch)["sample_sample"]
    parents: Mapping[str, Sequence[str]] = relations["sample_sample"]
    places = {site: (0.0, -DOWN * order) for order, site in enumerate(parents)}
    families = {"z": formula(vae.prior, ""), "x": formula(vae.likelihood, "z")} if isinstance(vae, VAE) else {}
    words = {site: families.get(site, relations["sample_dist"][site]).partition("(")[0] for site in places}
    room = RADIUS + 0.3 + LETTER * max(map(len, (*words.values(), "plate data")))
    axes = _canvas(len(places), room)
    for plate, sites in relations["plate_sample"].items():
        _box(axes, plate, [places[site] for site in sites], room)
    for site, before in parents.items():
        for parent in before:
            _arrow(axes, places[parent], places[site])
    for site in relations["observed"]:
        for latent in guided:
            _arrow(axes, places[site], places[latent], guide=True)
    for site, place in places.items():
        shade = SHADE if site in relations["observed"] else "white"
        axes.add_patch(Circle(place, RADIUS, facecolor=shade, edgecolor=INK, lw=1.2, zorder=3))
        axes.annotate(site, place, ha="center", va="center", fontsize=11, style="italic", color=INK, zorder=4)
        axes.annotate(words[site], (place[0] + RADIUS + 0.12, place[1]), va="center", fontsize=9, color=INK, zorder=4)
    picture = axes.get_figure()
    assert isinstance(picture, Figure)  # for the type checker: axes of a figure have one
    return picture


def _canvas(nodes: int, room: float) -> Axes:
    left, right, top, bottom = -0.85, room + 0.15, 0.75, -DOWN * (nodes - 1) - 0.95
    picture = figure(0.6 * (top - bottom), 0.6 * (right - left))
    axes = picture.subplots()
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return axes


def _box(axes: Axes, plate: str, members: Sequence[tuple[float, float]], room: float) -> None:
    low, high = min(y for _, y in members) - 0.8, max(y for _, y in members) + 0.6
    shape = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((-0.7, low), room + 0.7, high - low, boxstyle=shape, fill=False, edgecolor=INK, lw=1))
    axes.annotate(f"plate {plate}", (room - 0.1, low + 0.1), ha="right", va="bottom", fontsize=8, color=INK)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], guide: bool = False) -> None:
    curve: dict[str, Any] = {"connectionstyle": "arc3,rad=-0.55", "linestyle": "--"} if guide else {"linestyle": "-"}
    ends: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 12, "shrinkA": 16, "shrinkB": 16}
    axes.add_patch(FancyArrowPatch(start, end, color=INK, lw=1, zorder=2, **ends, **curve))
