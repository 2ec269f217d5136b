"""Laws of pictures of results."""

import math
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle, StepPatch

from helpers.shown.base import (
    COLOUR,
    NAMES,
    Array,
    World,
    entries,
    grey,
    head,
    key,
    law,
    plain,
    same,
    statistics_order,
    tiles,
    title,
    worst_features,
)
from pyro_vae import plots
from pyro_vae.core.formatting import format_p_value


@law
def latent_usage(world: World) -> None:
    found = world.results.latents
    assert 0 < len(found.active) < len(found), "the law needs both kinds"
    picture = plots.latent_usage(found)
    legend = key(picture)
    active, unused = (next(c for text, c in legend.items() if text.startswith(word)) for word in ("active", "not used"))
    assert f"active ({len(found.active)})" in legend
    assert f"not used ({len(found.collapsed)}): below 0.01" in legend
    assert found.kl is not None
    titles = ["KL from guide to prior, mean over rows", "Variance over rows of the posterior mean"]
    assert [title(axes) for axes in picture.axes] == titles
    for axes, values in zip(picture.axes, (found.kl, found.spread), strict=True):
        same([bar.get_height() for bar in axes.patches], values.clamp(min=1e-12))
        same([bar.get_x() + bar.get_width() / 2 for bar in axes.patches], range(len(found)))
        for bar, spread in zip(axes.patches, found.spread.tolist(), strict=True):
            assert to_hex(bar.get_facecolor()) == (active if spread > 0.01 else unused)
    (line,) = picture.axes[1].lines
    same(line.get_ydata(), [0.01, 0.01])


@law
def khat(world: World) -> None:
    found = world.results.evidence
    values, threshold = found.khat.numpy(), min(1 - 1 / math.log10(found.draws), 0.7)
    picture = plots.khat(found)
    (axes,) = picture.axes
    limits = sorted({min(0.5, threshold), threshold})
    zones, lines = axes.lines[: len(limits) + 1], axes.lines[len(limits) + 1 :]
    same([line.get_ydata()[0] for line in lines], limits)
    for zone, low, high in zip(zones, [-math.inf, *limits], [*limits, math.inf], strict=True):
        inside = np.flatnonzero((values > low) & (values <= high))
        same(zone.get_xdata(), inside)
        same(zone.get_ydata(), np.minimum(values[inside], 1.5))
        assert zone.get_label().endswith(f"({len(inside)} of {len(values)})")
    assert zones[-1].get_label().startswith(f"above {threshold:.2g}: unreliable")
    assert zones[-1].get_label().endswith(f"({int(found.unreliable.sum())} of {len(values)})")
    assert set(key(picture)) == {line.get_label() for line in zones}
    for limit in limits:
        assert f"above {limit:.2g} in {100 * (values > limit).mean():.1f} %" in head(picture)


@law
def sbc(world: World) -> None:
    found = world.sbc
    assert 0 < len(found.failed) < len(found.quantities), "the law needs both kinds"
    picture = plots.sbc(found)
    shown = [axes for axes in picture.axes if axes.get_visible()]
    p_values = [format_p_value(found.p_values[name]) for name in found.quantities]
    assert [title(axes) for axes in shown] == [
        f"{name} {p}" for name, p in zip(found.quantities, p_values, strict=True)
    ]
    for axes, name in zip(shown, found.quantities, strict=True):
        curve, _ = axes.lines
        u = np.asarray(curve.get_xdata())
        column = found.uniforms[:, found.quantities.index(name)]
        same(curve.get_ydata(), [(column <= level).mean() - level for level in u])
        assert to_hex(curve.get_color()) == (
            COLOUR["orange"] if found.adjusted_p_values[name] < 0.05 else COLOUR["blue"]
        )
        edges = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert edges.min() < 0 < edges.max()
        same([edges.max()], [-edges.min()], 0.05)
        assert 0.98 < _share_within(axes.collections[0], len(found)) < 0.998  # 0.99 simultaneously
    verdict = f"{len(found.failed)} of {len(found.quantities)} fail"
    assert head(picture) == f"{len(found)} simulated truths among {found.draws} draws: {verdict}"


def _share_within(band: Any, count: int) -> float:
    """Share of 4,000 uniform samples whose ECDF stays within a drawn band (about the diagonal)."""
    vertices = band.get_paths()[0].vertices
    points = np.unique(vertices[:, 0])[1:-1]
    low, high = (np.array([pick(vertices[vertices[:, 0] == at, 1]) for at in points]) for pick in (min, max))
    u = np.sort(np.random.default_rng(5).random((4000, count)), axis=1)
    deviations = np.stack([np.searchsorted(each, points, side="right") for each in u]) / count - points
    return float(((deviations >= low - 1e-9) & (deviations <= high + 1e-9)).all(1).mean())


@law
def test_statistics(world: World) -> None:
    chance = entries(world.faithful, "checks")
    assert ((chance["p_value"] < 0.05) & (chance["q_value"] >= 0.05)).any(), "the law needs one that q spares"
    for tree in (world.results.tree, world.posterior, world.faithful):
        found, drawn = entries(tree, "checks"), entries(tree, "statistics")
        picture = plots.test_statistics(tree)
        order = statistics_order(found)[:12]
        assert len(picture.axes) == len(order)
        for axes, at in zip(picture.axes, order, strict=True):
            replicated, realized = drawn["replicated"][0, :, at], drawn["realized"][0, :, at]
            p, error = format_p_value(found["p_value"][at]), found["p_error"][at]
            numbers = (
                f"{p} ± {error:.1g}, q {found['q_value'][at]:.2g}" if error else f"{p}, q {found['q_value'][at]:.2g}"
            )
            if np.ptp(realized) > 1e-9 * abs(realized).max():
                same(axes.lines[0].get_xydata(), np.stack([realized, replicated], 1))
                numbers += f"; {100 * (replicated > realized).mean():.0f} % above"
                assert (plain(axes.get_xlabel()), axes.get_ylabel()) == ("of data, for each z", "of replicates, same z")
            else:
                (line,) = axes.lines
                same(line.get_xdata(), [found["observed"][at]] * 2)
                assert to_hex(line.get_color()) == key(picture)["data"]
                _histogram(axes, replicated, key(picture)["replicates"])
                assert plain(axes.get_xlabel()) == plain(str(found["label"][at]))
            assert title(axes) == plain(f"{found['statistic'][at]} {numbers}")
            significant = found["q_value"][at] < 0.05
            assert (to_hex(axes._left_title.get_color()) == COLOUR["red"]) == significant
        count, out = len(found["q_value"]), int((found["q_value"] < 0.05).sum())
        assert f"{out or 'none'} of {count} at a false discovery rate of 5 % (red)" in head(picture)
        assert f"{tree.attrs['kind'].capitalize()} replicates" in head(picture)


def _histogram(axes: Any, values: Array, colour: str) -> None:
    total = 0.0
    for patch in axes.patches:
        assert to_hex(patch.get_facecolor()) == colour
        if isinstance(patch, StepPatch):
            counts, edges, _ = patch.get_data()
            same(counts, np.histogram(values, edges)[0])
            total += counts.sum()
        elif isinstance(patch, Rectangle):
            at = patch.get_x() + patch.get_width() / 2
            assert patch.get_height() == np.isclose(values, at).sum()
            total += patch.get_height()
    assert total == len(values)


@law
def pit(world: World) -> None:
    for tree in (world.results.tree, world.other.tree, world.posterior, world.narrow):
        _pit(tree)


def _pit(tree: Any) -> None:
    found = entries(tree, "calibration")
    picture = plots.pit(tree)
    left, right = picture.axes
    u, legend = found["u"], key(picture)
    curves = {plain(line.get_label()): line for line in left.lines if len(line.get_xdata()) == len(u)}
    same(curves["all features together"].get_ydata(), found["ecdf_overall"] - u)
    same(curves["all features together"].get_xdata(), u)
    failed = [at for at in range(4) if found["pit_q_value"][at] < 0.05]
    assert {text for text in legend if text in NAMES} == {NAMES[at] for at in failed}
    for at in failed:
        same(curves[NAMES[at]].get_ydata(), found["ecdf"][at] - u)
        colour = legend[NAMES[at]]
        (line,) = [each for each in right.lines if to_hex(each.get_color()) == colour and len(each.get_xdata()) == 4]
        same(line.get_ydata(), 100 * found["coverage"][at])
        same(line.get_xdata(), 100 * found["level"])
    edges = left.collections[0].get_paths()[0].vertices
    for name, pick in (("band_high", max), ("band_low", min)):
        ends = [pick(y for x, y in edges if np.isclose(x, level)) for level in u[5:-5]]
        same(ends, (found[name] - u)[5:-5])
    (bars,) = right.containers
    same(bars.lines[0].get_xydata(), 100 * np.stack([found["level"], found["coverage_overall"]], 1))
    heights = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
    same(np.diff(heights)[:, 0], 400 * found["coverage_error"], 1e-6)
    same(right.lines[0].get_xydata(), [[45, 45], [100, 100]])
    assert [label.get_text() for label in right.get_xticklabels()] == ["50", "80", "90", "95"]
    same(right.get_xticks(), 100 * found["level"])
    assert head(picture) == _coverage_words(tree, _furthest_level(found))


def _furthest_level(found: dict[str, Array]) -> int:
    return int(np.argmax(abs(found["coverage_overall"] - found["level"]) / found["coverage_error"]))


def _coverage_words(tree: Any, at: int) -> str:
    """Verdict on coverage: a level at which it is 3 standard errors off, and the share at one level."""
    found = entries(tree, "calibration")
    gap, error = found["coverage_overall"] - found["level"], found["coverage_error"]
    low, high = bool((gap < -3 * error).any()), bool((gap > 3 * error).any())
    high_word = "Conservative" if tree.attrs["kind"] == "posterior" else "Underconfident"
    quiet = "Conservative" if tree.attrs["kind"] == "posterior" else "No sign of intervals too narrow or too wide"
    word = "Of the wrong shape" if low and high else "Overconfident" if low else high_word if high else quiet
    return f"{word}: {_held(found, at)}"


def _held(found: dict[str, Array], at: int) -> str:
    share, error = 100 * found["coverage_overall"][at], 100 * found["coverage_error"][at]
    return f"{100 * found['level'][at]:g} % intervals hold {share:.1f} % +- {error:.1f} % of the values"


@law
def ppc(world: World) -> None:
    tree = world.results.tree
    observed, drawn = entries(tree, "observed_data"), entries(tree, "posterior_predictive")
    picture = plots.ppc(tree)
    rows = len(next(iter(observed.values())))
    assert head(picture).startswith(f"{rows} rows of data. Population replicates: new data")
    legend = key(picture)
    for name, axes in zip(NAMES, picture.axes, strict=True):
        assert title(axes) == name
        sets = [round(at) for at in np.linspace(0, len(drawn[name][0]) - 1, 20)]
        for patch in axes.patches:
            assert to_hex(patch.get_facecolor() if patch.get_fill() else patch.get_edgecolor()) == legend["data"]
            heights, edges, _ = patch.get_data()
            same(heights * np.diff(edges), _binned(observed[name], edges))
        for line, at in zip(axes.lines, sets, strict=True):
            assert to_hex(line.get_color()) == legend["replicate data sets"]
            same(line.get_ydata() * np.diff(edges), _binned(drawn[name][0, at], edges), 1e-6)
    for other in (world.binary, world.counts):
        _bars(other)
    _ppc_images(world)


def _binned(values: Array, edges: Array) -> Array:
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)


def _bars(tree: Any) -> None:
    observed, drawn = entries(tree, "observed_data"), entries(tree, "posterior_predictive")
    names = [name for name in observed if name.startswith("x[")]
    picture = plots.ppc(tree)
    if len(picture.axes) == 1:
        values, replicates = np.stack([observed[n] for n in names], -1), np.stack([drawn[n][0] for n in names], -1)
        panels = [(picture.axes[0], values.mean(0), replicates.mean(1))]
        assert [label.get_text() for label in picture.axes[0].get_xticklabels()] == names
    else:
        panels = []
        for axes, name in zip(picture.axes, names, strict=True):
            edges = np.array([bar.get_x() - 0.125 * bar.get_width() for bar in axes.patches])
            edges = np.append(edges, 2 * edges[-1] - edges[-2])
            shares = [np.histogram(each, edges)[0] / len(each) for each in (observed[name], *drawn[name][0])]
            panels.append((axes, shares[0], np.stack(shares[1:])))
    for axes, data, replicates in panels:
        same([bar.get_height() for bar in axes.patches], data)
        (ranges,) = [part for part in axes.collections if isinstance(part, LineCollection)]
        low, median, high = np.quantile(replicates, (0.05, 0.5, 0.95), axis=0)
        same([segment[:, 1] for segment in ranges.get_segments()], np.stack([low, high], 1), 1e-6)
        same(axes.lines[0].get_ydata(), median, 1e-6)
        assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {key(picture)["data"]}


def _ppc_images(world: World) -> None:
    _, _, tree = world.images
    observed = entries(tree, "observed_data")["x"].reshape(-1, 6, 5)
    drawn = entries(tree, "posterior_predictive")["x"][0].reshape(40, -1, 6, 5)
    sets = [round(at) for at in np.linspace(0, 39, 5)]
    picture = plots.ppc(tree)
    assert [title(axes) for axes in picture.axes] == ["data", *(f"replicate {at}" for at in sets)]
    scale = np.concatenate([observed[:25], *(drawn[at, :25] for at in sets)])
    for axes, images in zip(picture.axes, (observed, *(drawn[at] for at in sets)), strict=True):
        same(tiles(axes, 5, (6, 5)), grey(images[:25], scale), 1e-5)


@law
def outliers(world: World) -> None:
    tree = world.results.tree
    rows, found = entries(tree, "rows"), entries(tree, "calibration")
    picture = plots.outliers(tree)
    order, tail = _worst_rows(rows["tail"]), rows["tail"]
    heat = next(axes for axes in picture.axes if axes.images)
    assert [int(label.get_text()) for label in heat.get_yticklabels()] == rows["row"][order].tolist()
    names = [label.get_text() for label in heat.get_xticklabels()]
    columns = [list(rows["row_statistic"]).index(name) for name in names]
    same(heat.images[0].get_array(), tail[np.ix_(order, columns)])
    written = [float(text.get_text()) for text in heat.texts]
    same(written, tail[np.ix_(order, columns)].ravel(), 0.06)
    flat = tail[~np.isnan(tail)]
    assert f"{len(tail)} rows, {tail.shape[1]} test statistics of each: {100 * (flat < 0.05).mean():.1f} %" in head(
        picture
    )
    dots = next(axes for axes in picture.axes if title(axes).startswith("Features"))
    worst = worst_features(found)
    assert [plain(label.get_text()) for label in dots.get_yticklabels()] == [NAMES[at] for at in worst]
    shown, legend = {}, key(dots)
    for line in dots.lines:
        if line.get_marker() == "o":
            shown |= {int(y): (x, to_hex(line.get_color())) for x, y in line.get_xydata()}
    failed = next(colour for text, colour in legend.items() if text.startswith("PIT is not uniform"))
    for place, at in enumerate(worst):
        same(shown[place][0], 100 * found["coverage"][at, 2])
        assert (shown[place][1] == failed) == (found["pit_q_value"][at] < 0.05)
    same([line.get_xdata()[0] for line in dots.lines if line.get_marker() != "o"], [90])
    low, high = dots.get_ylim()
    assert low > high, "the worst is at the top"
    _outlier_images(world)


def _worst_rows(tail: Array) -> list[int]:
    keys = [(np.nanmin(row), np.log(row[~np.isnan(row)]).sum(), at) for at, row in enumerate(tail)]
    return [at for _, _, at in sorted(keys)][:12]


def _outlier_images(world: World) -> None:
    _, x, tree = world.images
    picture = plots.outliers(tree)
    rows, found = entries(tree, "rows"), entries(tree, "calibration")
    order = [int(rows["row"][at]) for at in _worst_rows(rows["tail"])]
    shown = [axes for axes in picture.axes if axes.get_title().startswith("row ")]
    assert [int(axes.get_title().split()[1]) for axes in shown] == order
    drawn = entries(tree, "posterior_predictive")["x"][0].reshape(40, -1, 6, 5)
    for axes, row in zip(shown, order, strict=True):
        same(tiles(axes, 1, (6, 5)), grey(np.stack([x[row, 0], drawn[0, row]]), x), 1e-5)
    maps = {title(axes): np.asarray(axes.images[0].get_array()) for axes in picture.axes if axes.images}
    same(maps["Pixels: 90 % intervals"].ravel(), 100 * (found["coverage"][:, 2] - 0.9))
    same(maps["Pixels: mean PIT, minus 1/2"].ravel(), (found["u"] - found["ecdf"]).mean(1))


@law
def two_sample(world: World) -> None:
    for tree, distinguished in ((world.results.tree, True), (world.faithful, False)):
        assert (float(entries(tree, "two_sample")["classifier_p_value"]) < 0.05) == distinguished
        _two_sample(tree)
    shown = plots.two_sample(world.images[2]).axes[0].images[0].get_array()
    same(np.asarray(shown).ravel(), entries(world.images[2], "two_sample")["importance"])


def _two_sample(tree: Any) -> None:
    found = entries(tree, "two_sample")
    picture = plots.two_sample(tree)
    (axes,) = picture.axes
    order = np.argsort(-found["importance"], kind="stable")
    same([bar.get_width() for bar in axes.patches], found["importance"][order])
    assert [plain(label.get_text()) for label in axes.get_yticklabels()] == [NAMES[at] for at in order]
    low, high = axes.get_ylim()
    assert low > high, "the largest is at the top"
    p = float(found["classifier_p_value"])
    verb = "distinguishes" if p < 0.05 else "does not distinguish"
    number = {name: float(value) for name, value in found.items() if not np.ndim(value)}
    assert head(picture) == (
        f"A classifier {verb} replicates and data: accuracy {number['classifier_accuracy']:.2f} ± "
        f"{number['classifier_error']:.2f} (chance 0.50), {format_p_value(p)}; kernel MMD² {number['mmd2']:.2g}, "
        f"{format_p_value(number['mmd_p_value'])}. Density {number['density']:.2f} (1 expected), coverage "
        f"{number['coverage']:.2f} ({number['coverage_expected']:.2f} expected)."
    )
