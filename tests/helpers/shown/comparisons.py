"""Laws of pictures that compare models or inferences."""

import math

import numpy as np
from matplotlib.colors import to_hex

from helpers.shown.base import COLOUR, World, key, law, same, title
from pyro_vae import plots
from pyro_vae.plots._style import INK


@law
def compare(world: World) -> None:
    found = world.comparison
    means = {"small": world.results.evidence.mean, "wide": world.other.evidence.mean}
    ranked = sorted(means, key=means.__getitem__, reverse=True)
    picture = plots.compare(found)
    left, right = picture.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ranked
    low, high = left.get_ylim()
    assert low > high, "the best is at the top"
    best = found.best
    for axes, pick in ((left, lambda at: at.log_p), (right, lambda at: at.difference)):
        models = [at for at in found.models if axes is left or at is not best]
        pairs = list(zip(axes.lines[0 : 2 * len(models) : 2], axes.lines[1 : 2 * len(models) : 2], strict=True))
        for (interval, dot), at in zip(pairs, models, strict=True):
            place = found.models.index(at)
            middle, half = pick(at).value, pick(at).half_width
            same(interval.get_xydata(), [[middle - half, place], [middle + half, place]])
            same(dot.get_xydata(), [[middle, place]])
            behind = abs(at.difference.value) > at.difference.half_width
            assert to_hex(dot.get_color()) == (to_hex(INK) if behind else COLOUR["blue"])
            unsure = bool(at.warning or (axes is right and best.warning))
            assert (dot.get_markerfacecolor() == "white") == unsure
    same([at.log_p.value for at in found.models], [means[name] for name in ranked], 1e-6)
    assert picture.legends[0].get_title().get_text() == f"95 % intervals, {found.rows} rows"


@law
def inference_gap(world: World) -> None:
    gap = world.gap
    left, right = plots.inference_gap(gap).axes
    means = {"approximation": gap.approximation, "amortisation": gap.amortisation}
    for label, bar, errors, (name, values) in zip(
        left.get_xticklabels(), left.patches, left.containers[1::2], means.items(), strict=True
    ):
        assert label.get_text().startswith(name)
        same(bar.get_height(), values.mean(), 1e-6)
        (ends,) = errors.lines[2][0].get_segments()
        same(np.diff(ends[:, 1]), 4 * values.std() / math.sqrt(len(values)), 1e-5)
    assert title(left) == f"mean, in total {float(gap.total.mean()):.2f}"
    order = np.argsort(gap.total.numpy(), kind="stable")
    lower, upper = (part.numpy()[order] for part in (gap.approximation, gap.total))
    first, second = right.patches
    same(first.get_data().values, lower, 1e-6)
    same(second.get_data().values, upper, 1e-6)
    same(second.get_data().baseline, lower, 1e-6)
    legend = key(right)
    for patch, bar, name in zip((first, second), left.patches, means, strict=True):
        (colour,) = [each for text, each in legend.items() if text.startswith(name)]
        assert to_hex(patch.get_facecolor()) == to_hex(bar.get_facecolor()) == colour
