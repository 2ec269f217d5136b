"""The pictures of a predictive check: they show what is in its tree, for every kind of data, and can be read."""

import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import checks as checked
from helpers.exact_models import estimate, rows as ppca_rows
from helpers.pictures import labelled, readable, titles
from matplotlib.patches import Rectangle, StepPatch

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.summary import FDR_LEVEL, order_by_significance
from pyro_vae.plots._datatree import events
from pyro_vae.plots._layout import SIGNIFICANT, Digits

EVENTS = [(), (1,), (4,), (30,), (40,), (6, 5), (1, 6, 5), (3, 6, 5), (4, 3, 3)]
KINDS = ["population", "posterior", "prior"]
OF_A_TREE = [plots.test_statistics, plots.pit, plots.ppc, plots.outliers, plots.two_sample]
LONG = [f"worst fractal dimension of cell {i}" for i in range(30)]

SHAPES = [
    ((), "continuous", "population"),
    ((1,), "counts", "prior"),
    ((4,), "continuous", "posterior"),
    ((30,), "continuous", "population"),
    ((40,), "binary", "posterior"),
    ((1, 6, 5), "continuous", "posterior"),
    ((3, 6, 5), "continuous", "population"),
]
VALUES = [
    ((), "binary", "prior"),
    ((4,), "binary", "population"),
    ((30,), "counts", "posterior"),
    ((6, 5), "counts", "population"),
    ((4, 3, 3), "binary", "population"),
]


def named(part: object) -> str:
    return getattr(part, "__name__", str(part))


CASES = [(draw, *case) for draw in OF_A_TREE[1:] for case in SHAPES] + [(plots.ppc, *case) for case in VALUES]


@pytest.mark.parametrize(
    ("draw", "event", "data", "kind"), CASES, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_picture_of_any_check_can_be_read(draw, event, data, kind) -> None:
    picture = draw(checked.tree(event, data, kind=kind, names=LONG if event == (30,) else None))
    readable(picture)
    labelled(picture)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("statistics", [1, 4, 30])
def test_test_statistics_figure_is_legible_for_any_number(statistics, kind) -> None:
    picture = plots.test_statistics(checked.tree((1,), kind=kind, statistics=statistics))
    readable(picture)
    labelled(picture)


@pytest.mark.parametrize("draw", OF_A_TREE, ids=lambda draw: draw.__name__)
def test_picture_refuses_other_than_a_check(draw) -> None:
    with pytest.raises(pv.InputError, match=r"tree = pv\.predictive_check\(vae, x\)"):
        draw(torch.zeros(3))
    with pytest.raises(pv.InputError, match=r"predictive_check\(vae, x\)"):
        draw(xr.DataTree())


def test_view_that_was_not_computed_is_named() -> None:
    tree = checked.tree()
    with pytest.raises(pv.InputError, match=r"no /two_sample.*two_sample=True"):
        plots.two_sample(tree.filter(lambda node: node.name != "two_sample"))


def test_real_check_is_drawn() -> None:
    vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(4,)))
    tree = pv.predictive_check(vae, torch.randn(60, 3), kind="posterior", draws=40, progress=False)
    for draw in OF_A_TREE:
        readable(draw(tree))


# ---- test statistics ----------------------------------------------------------------------------------------------


def test_significant_statistics_come_first() -> None:
    columns = {
        "q_value": [0.5, 0.01, 0.5, 0.01, np.nan, 0.5],
        "observed": [1.0, 1.0, 5.0, 1.0, 9.0, 2.0],
        "mean": [0.0, 0.0, 0.0, 0.5, 0.0, 2.0],
        "sd": [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    }
    found = xr.Dataset({name: ("statistic", values) for name, values in columns.items()})
    assert order_by_significance(found) == [1, 3, 2, 0, 5, 4]


def test_histograms_show_replicates_and_the_data() -> None:
    tree = checked.tree(statistics=15)
    found, drawn = tree["checks"].to_dataset(), tree["statistics"].to_dataset()
    picture = plots.test_statistics(tree)
    assert len(picture.axes) == 12
    for axes, at in zip(picture.axes, order_by_significance(found), strict=False):
        name, p = str(found["statistic"][at].item()), float(found["p_value"][at])
        assert axes.get_title(loc="left").splitlines()[0] == name
        assert format_p_value(p) in axes.get_title(loc="left")
        (line,) = axes.lines
        assert line.get_xdata() == pytest.approx([float(found["observed"][at])] * 2)
        stairs = [sum(patch.get_data().values) for patch in axes.patches if isinstance(patch, StepPatch)]
        bars = [patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)]
        assert sum(stairs) + sum(bars) == drawn.sizes["draw"]


def test_significant_statistics_are_red_and_counted() -> None:
    tree = checked.tree(statistics=3)
    tree["checks"]["q_value"][:] = [0.2, 0.01, 0.9]
    picture = plots.test_statistics(tree)
    colours = [axes._left_title.get_color() for axes in picture.axes]
    assert [colour == SIGNIFICANT for colour in colours] == [True, False, False]  # and it comes first
    assert "1 of 3" in picture.get_suptitle()


def test_discrepancy_is_drawn_as_pairs_with_the_share_above() -> None:
    tree = checked.tree(kind="posterior", statistics=4)
    drawn = {
        name: tree["statistics"][name].isel(chain=0, statistic=3).to_numpy() for name in ("realized", "replicated")
    }
    place = order_by_significance(tree["checks"].to_dataset()).index(3)
    axes = plots.test_statistics(tree).axes[place]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([drawn["realized"], drawn["replicated"]], 1))
    above = 100 * np.mean(drawn["replicated"] > drawn["realized"])
    assert f"{above:.0f} % above" in axes.get_title(loc="left")
    assert axes.get_xlim() == axes.get_ylim()


@pytest.mark.parametrize("observed", [0.0, 3.0, np.nan])
def test_constant_replicates_are_one_bar(observed: float) -> None:
    tree = checked.tree(statistics=1)
    tree["statistics"]["replicated"][:] = 3.0
    tree["statistics"]["realized"][:] = observed
    tree["checks"]["observed"][:] = observed
    picture = plots.test_statistics(tree)
    (axes,) = picture.axes
    (bar,) = axes.patches
    assert bar.get_x() + bar.get_width() / 2 == pytest.approx(3.0)
    assert len(axes.lines) == int(np.isfinite(observed))
    readable(picture)


def test_ticks_say_where_they_are() -> None:
    for places in ([0.48, 0.495, 0.51], [1000.001, 1000.002], [-1e7, 0, 1e7], [3e-9, 4e-9], [5.0]):
        ticks = Digits()
        written = [float(word) for word in ticks.format_ticks(places)]
        np.testing.assert_allclose(written, places, atol=0.02 * np.diff(places).min() if len(places) > 1 else 0)
    assert Digits().format_ticks([0, 50, 100]) == ["0", "50", "100"]
    assert Digits().format_ticks([0, 0.5, 1]) == ["0", "0.5", "1"]


# ---- calibration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [(), (4,), (40,)], ids=str)
def test_curves_are_those_of_the_tree(event) -> None:
    tree = checked.tree(event)
    found = tree["calibration"].to_dataset()
    left, right = plots.pit(tree).axes
    curves = {line.get_label(): line for line in left.lines}
    u = found["u"].to_numpy()
    np.testing.assert_array_equal(curves["all features together"].get_ydata(), found["ecdf_overall"].to_numpy() - u)
    drawn = [line.get_ydata() for line in left.lines if len(line.get_xdata()) == len(u)]
    assert len(drawn) == 1 + min(found.sizes["feature"], 30)
    for feature in found["feature"].to_numpy()[found["pit_q_value"] < 1e-6]:
        if str(feature) in curves:
            wanted = found["ecdf"].sel(feature=feature).to_numpy() - u
            np.testing.assert_array_equal(curves[str(feature)].get_ydata(), wanted)
    (band,) = left.collections
    edges = band.get_paths()[0].vertices
    assert edges[:, 1].max() == pytest.approx(float((found["band_high"] - u).max()))
    overall = right.containers[0].lines[0]
    np.testing.assert_allclose(overall.get_ydata() / 100, found["coverage_overall"].to_numpy())
    np.testing.assert_allclose(overall.get_xdata() / 100, found["level"].to_numpy())


def test_features_that_fail_are_named_and_others_are_not() -> None:
    tree = checked.tree((30,))
    found = tree["calibration"].to_dataset()
    failed = {str(name) for name in found["feature"].to_numpy()[found["pit_q_value"] < FDR_LEVEL]}
    assert 0 < len(failed) < 30
    words = {text.get_text() for text in plots.pit(tree).legends[0].get_texts()}
    assert {word for word in words if word.startswith("x[")} == failed


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (1.6, "population", "Overconfident"),
        (0.6, "population", "Underconfident"),
        (0.6, "posterior", "Conservative"),
        (1.6, "posterior", "Overconfident"),
        (1.0, "population", "No sign of intervals"),
    ],
)
def test_title_says_which_way_it_fails(wrong, kind, said) -> None:
    picture = plots.pit(checked.tree((4,), wrong=wrong, kind=kind))
    assert picture.get_suptitle().startswith(said)


def test_coverage_too_narrow_and_too_wide_is_a_wrong_shape() -> None:
    tree = checked.tree((2,))
    tree["calibration"]["coverage_overall"][:] = [0.6, 0.8, 0.9, 0.9]
    assert plots.pit(tree).get_suptitle().startswith("Of the wrong shape")


# ---- data beside replicates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_events_come_back_in_their_shape(event) -> None:
    rng = np.random.default_rng(0)
    x, drawn = rng.standard_normal((7, *event)), rng.standard_normal((2, 5, 7, *event))
    tree = checked.tree(event, rows=7, draws=5)
    numbers = np.arange(7) * 3
    tree["observed_data"] = xr.DataTree(checked._kept(event, x, numbers, False))
    tree["posterior_predictive"] = xr.DataTree(checked._kept(event, drawn, numbers, True))
    kept = events(tree)
    np.testing.assert_array_equal(kept.observed, x)
    np.testing.assert_array_equal(kept.replicates, drawn.reshape(10, 7, *event))
    np.testing.assert_array_equal(kept.rows, numbers)


def test_images_are_data_and_then_replicates() -> None:
    tree = checked.tree((1, 6, 5))
    kept = events(tree)
    picture = plots.ppc(tree)
    assert titles(picture)[0] == "data"
    both = np.concatenate([kept.observed[:25].ravel(), kept.replicates[[0, 15, 30, 44, 59], :25].ravel()])
    shown = picture.axes[0].images[0].get_array()[:6, :5]
    wanted = (kept.observed[0, 0] - both.min()) / np.ptp(both)
    np.testing.assert_allclose(shown, wanted, atol=1e-6)
    assert titles(picture)[1:] == [f"replicate {at}" for at in (0, 15, 30, 44, 59)]


def test_bars_of_zeros_and_ones_are_their_shares() -> None:
    tree = checked.tree((4,), "binary")
    kept = events(tree)
    (axes,) = plots.ppc(tree).axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], kept.observed.mean(0))
    ends = np.array([segment[:, 1] for segment in axes.collections[0].get_segments()])
    np.testing.assert_allclose(ends, np.quantile(kept.replicates.mean(1), (0.05, 0.95), axis=0).T)


def test_bars_of_counts_are_their_shares() -> None:
    tree = checked.tree((1,), "counts")
    kept = events(tree)
    (axes,) = plots.ppc(tree).axes
    for bar in axes.patches:
        value = bar.get_x() + bar.get_width() / 2
        assert bar.get_height() == pytest.approx((kept.observed == round(value)).mean())
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1)


def test_densities_integrate_to_one_whatever_lies_outside() -> None:
    tree = checked.tree((1,))
    tree["observed_data"]["x[0]"][:3] = [1e6, -1e6, np.nan]
    (axes,) = plots.ppc(tree).axes
    for patch in axes.patches:
        heights, edges, _ = patch.get_data()
        assert (heights * np.diff(edges)).sum() == pytest.approx(1)
    centres = axes.lines[0].get_xdata()
    assert len(axes.lines) == 20
    for line in axes.lines:
        assert (line.get_ydata() * np.diff(centres)[0]).sum() == pytest.approx(1)


# ---- what fits worst ----------------------------------------------------------------------------------------------


def test_worst_rows_are_those_with_the_smallest_tails() -> None:
    tree = checked.tree((4,))
    tail = tree["rows"]["tail"].to_numpy()
    tree["rows"]["tail"][5] = np.nan  # a row without a test statistic
    tail = np.where(np.isnan(tree["rows"]["tail"].to_numpy()), np.inf, tree["rows"]["tail"].to_numpy())
    axes = plots.outliers(tree).axes[0]
    rows = [int(label.get_text()) for label in axes.get_yticklabels()]
    assert rows == np.argsort(tail.min(1))[:12].tolist()
    columns = [int(label.get_text().split()[-1]) for label in axes.get_xticklabels()]
    np.testing.assert_array_equal(axes.images[0].get_array(), tail[np.ix_(rows, columns)])


def test_rows_that_share_the_least_tail_are_ordered_by_the_others() -> None:
    tree = checked.tree((4,), rows=4)
    tree["rows"]["tail"][:] = 0.5
    tree["rows"]["tail"][:, 0] = 0.01
    tree["rows"]["tail"][9, 1:3] = 0.02
    assert plots.outliers(tree).axes[0].get_yticklabels()[0].get_text() == "9"


def test_worst_images_are_those_that_were_kept() -> None:
    tree = checked.tree((1, 6, 5))
    kept, tail = events(tree), tree["rows"]["tail"].to_numpy().min(1)
    first = [axes for axes in plots.outliers(tree).axes if axes.get_title().startswith("row ")]
    wanted = sorted(kept.rows.tolist(), key=tail.__getitem__)[:12]
    assert [axes.get_title() for axes in first] == [f"row {row}" for row in wanted]
    at = kept.rows.tolist().index(wanted[0])
    image = (kept.observed[at, 0] - kept.observed.min()) / np.ptp(kept.observed)
    np.testing.assert_allclose(first[0].images[0].get_array(), image, atol=1e-6)


def test_check_without_statistics_of_rows_shows_features() -> None:
    for event in ((2,), (1, 6, 5)):
        tree = checked.tree(event)
        readable(plots.outliers(tree.filter(lambda node: node.name != "rows")))


def test_worst_features_come_first_with_their_coverage() -> None:
    tree = checked.tree((4,))
    found = tree["calibration"].to_dataset()
    *_, before, last = plots.outliers(tree).axes
    axes = last if last.get_ylabel() == "feature" else before
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert {names[0], names[1]} == {"x[0]", "x[1]"}
    points = {names[int(y)]: x for line in axes.lines[:2] for x, y in line.get_xydata()}
    for name, at in points.items():
        assert at == pytest.approx(100 * float(found["coverage"].sel(feature=name, level=0.9)))


def test_maps_put_each_pixel_where_it_is() -> None:
    tree = checked.tree((3, 6, 5))
    found = tree["calibration"].to_dataset()
    images = [axes.images[0] for axes in plots.outliers(tree).axes if axes.get_title(loc="left").startswith("channel")]
    shown = np.stack([image.get_array() for image in images])
    np.testing.assert_allclose(shown.ravel(), 100 * (found["coverage"].sel(level=0.9).to_numpy() - 0.9))
    images = [axes.images[0] for axes in plots.two_sample(tree).axes if axes.images]
    shown = np.stack([image.get_array() for image in images[:3]])
    np.testing.assert_array_equal(shown.ravel(), tree["two_sample"]["importance"].to_numpy())


def test_two_sample_bars_are_the_importances_in_order() -> None:
    tree = checked.tree((40,))
    (axes,) = plots.two_sample(tree).axes
    lengths = [bar.get_width() for bar in axes.patches]
    assert lengths == sorted(tree["two_sample"]["importance"].to_numpy().tolist(), reverse=True)[:30]
    assert "30 of 40" in axes.get_title(loc="left")
    title = plots.two_sample(tree).get_suptitle()
    for name in ("accuracy", "Density", "coverage"):
        assert name in title


# ---- k-hat --------------------------------------------------------------------------------------------------------


def test_khat_shows_each_row_and_the_shares() -> None:
    found = estimate(pv.VAE((5,), 2, encoder=pv.MLP(hidden=(4,))), ppca_rows(5).float(), draws=200)
    values = torch.tensor([-0.1, 0.5, 0.55, 0.6, float("inf")])  # 0.6 is above the threshold of 200 draws
    object.__setattr__(found, "khat", values)
    picture = pv.plots.khat(found)
    (axes,) = picture.axes
    points = dict(itertools.chain.from_iterable(line.get_xydata().tolist() for line in axes.lines[:3]))
    assert points == pytest.approx({0: -0.1, 1: 0.5, 2: 0.55, 3: 0.6, 4: 1.5})
    assert [len(line.get_xdata()) for line in axes.lines[:3]] == [2, 1, int(found.unreliable.sum())]
    assert [line.get_ydata()[0] for line in axes.lines[3:]] == [0.5, found.threshold]
    assert "60.0\N{NO-BREAK SPACE}%" in picture.get_suptitle()
    assert "40.0\N{NO-BREAK SPACE}%" in picture.get_suptitle()
    assert "1 above 1.5" in axes.get_title(loc="left")
    readable(picture)
    labelled(picture)


def test_khat_of_few_draws_has_one_threshold() -> None:
    found = estimate(pv.VAE((5,), 2, encoder=pv.MLP(hidden=(4,))), ppca_rows(5).float(), draws=30)
    object.__setattr__(found, "khat", torch.tensor([0.1, 0.3, 0.4, 0.6, 0.8]))  # the threshold of 30 draws is 0.32
    picture = pv.plots.khat(found)
    assert [len(line.get_xdata()) for line in picture.axes[0].lines[:2]] == [2, int(found.unreliable.sum())] == [2, 3]
    assert picture.get_suptitle() == "k-hat is above 0.32 in 60.0\N{NO-BREAK SPACE}% of the rows."


def test_khat_of_too_few_draws_is_refused() -> None:
    found = estimate(pv.VAE((5,), 2, encoder=pv.MLP(hidden=(4,))), ppca_rows(5).float(), draws=10)
    with pytest.raises(pv.InputError, match=r"draws=1000"):
        pv.plots.khat(found)
