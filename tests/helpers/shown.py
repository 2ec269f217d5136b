"""The law of what readers are shown: numbers, orders and colours of pictures and pages equal the entries they show.

Each function under `LAWS` reads one picture, list of sentences or page back from its artists or its HTML, and compares
it with the result that it is made of, which small real fits made. `tests/plots/test_shown_faults.py` puts faults into
the package by hand, and each has to break the law that it names.
"""

import atexit
import hashlib
import math
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle, StepPatch
from matplotlib.text import Text
from numpy.typing import NDArray
from scipy.stats import ks_2samp, norm

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.core.formatting import format_p_value
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.session import evaluation
from pyro_vae.plots import _run_figures
from pyro_vae.plots._style import COLOURS, INK
from pyro_vae.reports import page as pages
from pyro_vae.reports.comparison_report import comparison_page
from pyro_vae.reports.results import ReportSettings, RunResults, load_rows, load_run
from pyro_vae.reports.run_report import run_page

Array = NDArray[Any]
LAWS: dict[str, Callable[["World"], None]] = {}
QUIET: dict[str, Any] = {"progress": False}
NAMES = ["age", "income", "US$", "share"]
COLOUR = {"red": COLOURS[2], "blue": COLOURS[0], "orange": COLOURS[1]}


def law(check: Callable[["World"], None]) -> Callable[["World"], None]:
    """Enter a function into the table of laws."""
    LAWS[check.__name__] = check
    return check


# ---- what is shown: small real fits ---------------------------------------------------------------------------------


class World:
    """Fits, and everything that was computed of them, each once."""

    @cached_property
    def folder(self) -> Path:
        """Two runs on one table of 600 rows, which no Gaussian fits."""
        at = Path(tempfile.mkdtemp(prefix="pyro-vae-shown-"))
        atexit.register(shutil.rmtree, at, ignore_errors=True)
        rng = np.random.default_rng(1)
        x = rng.normal(size=(600, 4))
        x[:, 1], x[:, 2], x[:, 3] = np.exp(x[:, 1]), x[:, 0] + 0.3 * x[:, 2], rng.standard_t(3, 600)
        lines = [",".join([*NAMES, "label"])]
        lines += [",".join([*(f"{value:.6f}" for value in row), "abc"[i % 7 % 3]]) for i, row in enumerate(x)]
        (at / "table.csv").write_text("\n".join(lines))
        data = pv.data.load(str(at / "table.csv"), test=0.4)
        with pytest.MonkeyPatch.context() as patch, seeded(0):
            patch.setattr(_run_figures, "write", lambda *given: None)
            for name, latents, likelihood in (("small", 3, pv.Normal()), ("wide", 2, pv.Normal(scale=4))):
                vae = pv.VAE((4,), latents, likelihood=likelihood, encoder=pv.MLP(hidden=(8,)))
                with torch.no_grad():
                    vae.posterior.network.heads["loc"].weight[-1] *= 1e-4  # a latent that is not used
                pv.fit(vae, data.train, validation=data.validation, epochs=6, run=at / name, **QUIET)
        return at

    settings = ReportSettings("test", 400, 160, pv.criticism.Importance(draws=200), 0, False)

    @cached_property
    def results(self) -> RunResults:
        run, vae = load_run(self.folder / "small")
        return RunResults.of(run, vae, load_rows(run, None, "test"), self.settings)

    @cached_property
    def other(self) -> RunResults:
        run, vae = load_run(self.folder / "wide")
        return RunResults.of(run, vae, load_rows(run, None, "test"), self.settings)

    @property
    def vae(self) -> pv.VAE:
        return self.results.vae

    @property
    def x(self) -> torch.Tensor:
        return self.results.rows.x

    @cached_property
    def posterior(self) -> Any:
        return pv.predictive_check(self.vae, self.results.rows, kind="posterior", draws=400, **QUIET)

    def _check(self, event: tuple[int, ...], likelihood: Any, x: torch.Tensor, **options: Any) -> Any:
        with seeded(0):
            vae = pv.VAE(event, 2, likelihood=likelihood, encoder=pv.MLP(hidden=(8,)))
            pv.fit(vae, x, epochs=2, **QUIET)
            return vae, pv.predictive_check(vae, x, draws=40, **QUIET, **options)

    @cached_property
    def images(self) -> tuple[pv.VAE, torch.Tensor, Any]:
        x = torch.rand(90, 1, 6, 5, generator=torch.Generator().manual_seed(0)).square()
        return (vae_tree := self._check((1, 6, 5), pv.Normal(), x, kind="posterior"))[0], x, vae_tree[1]

    @cached_property
    def binary(self) -> Any:
        x = (torch.rand(90, 5, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 5)).float()
        return self._check((5,), pv.Bernoulli(), x)[1]

    @cached_property
    def counts(self) -> Any:
        with seeded(0):
            x = torch.poisson(torch.tensor([1.0, 6.0]).expand(90, 2))
        return self._check((2,), pv.Poisson(), x)[1]

    @cached_property
    def sbc(self) -> pv.criticism.SBC:
        return pv.criticism.sbc(self.vae, simulations=150, draws=39, **QUIET)

    @cached_property
    def gap(self) -> Any:
        return pv.criticism.inference_gap(self.vae, self.x[:40], draws=100, steps=30, **QUIET)

    @cached_property
    def comparison(self) -> Any:
        return pv.compare({"wide": self.other.evidence, "small": self.results.evidence})

    def given(self) -> dict[str, Any]:
        return dict(self.results.rows.batch())


# ---- reading pictures back -----------------------------------------------------------------------------------------


def same(shown: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(shown, float), np.asarray(wanted, float), rtol=tolerance, atol=tolerance)


def title(axes: Any) -> str:
    return plain(axes.get_title(loc="left"))


def plain(text: str) -> str:
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").replace(r"\$", "$").split())


def head(picture: Any) -> str:
    return plain(picture.get_suptitle())


def colour_of(artist: Any) -> str:
    found = artist.get_facecolor() if hasattr(artist, "get_facecolor") else artist.get_color()
    return to_hex(found[0] if np.ndim(found) == 2 else found)


def key(holder: Any) -> dict[str, str]:
    """Colours of a legend by label."""
    legend = holder.get_legend() if hasattr(holder, "get_legend") else holder.legends[0]
    return {
        plain(text.get_text()): colour_of(handle)
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


def tiles(axes: Any, columns: int, size: tuple[int, int]) -> Array:
    """Images (M, H, W) of a grid with a border of one pixel between them."""
    sheet, (height, width) = np.asarray(axes.images[0].get_array(), float), size
    rows = (sheet.shape[0] + 1) // (height + 1)
    places = [(i * (height + 1), j * (width + 1)) for i in range(rows) for j in range(columns)]
    return np.stack([sheet[up : up + height, left : left + width] for up, left in places])


def grey(images: Any, scale: Any) -> Array:
    images, scale = np.asarray(images, float), np.asarray(scale, float)
    scaled = (images - scale.min()) / np.ptp(scale)
    return np.clip(scaled, 0, 1).reshape(-1, *images.shape[-2:])


def entries(tree: Any, group: str) -> dict[str, Array]:
    found = tree[group].to_dataset()
    return {str(name): found[name].to_numpy() for name in (*found.data_vars, *found.coords)}


def statistics_order(found: dict[str, Array]) -> list[int]:
    """By q, then by the distance of data and replicates in standard deviations, largest first."""
    distance = []
    for observed, mean, sd in zip(found["observed"], found["mean"], found["sd"], strict=True):
        distance.append(abs(observed - mean) / sd if sd > 0 else math.inf if observed != mean else 0.0)
    return sorted(range(len(distance)), key=lambda at: (found["q_value"][at], -distance[at], at))


def worst_features(found: dict[str, Array]) -> list[int]:
    distance = abs(found["ecdf"] - found["u"]).max(1)
    keys = zip(found["pit_q_value"], found["pit_p_value"], -distance, strict=True)
    return [at for _, at in sorted((each, at) for at, each in enumerate(keys))]


# ---- pictures of models and of training ----------------------------------------------------------------------------


@law
def training(world: World) -> None:
    history = world.results.history
    picture = plots.training(history)
    panels = {title(axes): axes for axes in picture.axes if axes.axison}
    wanted = {"minus the bound": "loss", "log-likelihood": "log_likelihood", "KL from guide to prior": "kl"}
    assert list(panels)[:3] == list(wanted)
    splits = key(picture.axes[0])
    for name, column in wanted.items():
        for split, prefix in (("training", ""), ("validation", "validation_")):
            (line,) = [line for line in panels[name].lines if to_hex(line.get_color()) == splits[split]]
            same(line.get_xdata(), history["epoch"])
            same(line.get_ydata(), history[prefix + column])
            assert line.get_linestyle() == {"training": "-", "validation": "--"}[split]
    assert panels["minus the bound"].get_ylabel() == "nats per row"


@law
def prior_predictive(world: World) -> None:
    with evaluation(world.vae, 0):
        drawn = world.vae.sample(2000)
    (axes,) = plots.prior_predictive(world.vae, world.x).axes
    for line, values in zip(axes.lines, (world.x, drawn), strict=True):
        levels = np.quantile(values.detach().double().numpy(), [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        same(line.get_ydata(), levels[2], 1e-5)
        assert line.get_label() == ("data" if values is world.x else "draws")
        colour = to_hex(line.get_markeredgecolor())
        bars = {part.get_linewidths()[0]: part for part in axes.collections if to_hex(part.get_color()[0]) == colour}
        for width, ends in ((1, levels[[0, 4]]), (4, levels[[1, 3]])):
            same([segment[:, 1] for segment in bars[width].get_segments()], ends.T, 1e-5)
    vae, x, _ = world.images
    with evaluation(vae, 0):
        wanted = {
            "data": x[:64],
            "draws: z ~ p(z), x ~ p(x|z)": vae.sample(64),
            "means of p(x|z), z ~ p(z)": vae.sample(64, mean=True),
        }
    _grids(plots.prior_predictive(vae, x), wanted, 8, x)


@law
def reconstructions(world: World) -> None:
    with evaluation(world.vae, 0):
        drawn = world.vae.reconstruct(world.x)
    (axes,) = plots.reconstructions(world.vae, world.x).axes
    mean, spread = world.x.mean(0), world.x.std(0)
    for feature, line in enumerate(axes.lines[:4]):
        assert line.get_label() == f"feature {feature}"
        same(line.get_xdata(), ((world.x - mean) / spread)[:, feature], 1e-5)
        same(line.get_ydata(), ((drawn - mean) / spread)[:, feature].detach(), 1e-5)
    assert axes.get_xlabel().startswith("original")
    assert axes.get_ylabel().startswith("replicate")
    vae, x, _ = world.images
    with evaluation(vae, 0):
        wanted = {
            "originals": x[:12],
            "replicates: z ~ q(z|x), x' ~ p(x|z)": vae.reconstruct(x[:12]),
            "means of p(x|z), z ~ q(z|x)": vae.reconstruct(x[:12], mean=True),
        }
    _grids(plots.reconstructions(vae, x), wanted, 12, x)


def _grids(picture: Figure, wanted: dict[str, torch.Tensor], columns: int, scale: torch.Tensor) -> None:
    assert [axes.get_title(loc="left") for axes in picture.axes] == list(wanted)
    for axes, images in zip(picture.axes, wanted.values(), strict=True):
        same(tiles(axes, columns, (6, 5)), grey(images.detach(), scale), 1e-5)


@law
def image_grid(world: World) -> None:
    _, x, _ = world.images
    same(tiles(plots.image_grid(x[:8], columns=4).axes[0], 4, (6, 5)), grey(x[:8], x[:8]), 1e-5)
    both = tiles(plots.image_grid(x[:4], x[4:8], columns=4).axes[0], 4, (6, 5))
    same(both, grey(torch.cat([x[4:8], x[:4]]), x[4:8]), 1e-5)


@law
def latent(world: World) -> None:
    usage, labels = world.results.latents, world.results.rows.labels
    picture = plots.latent(world.vae, labels=labels, usage=usage, **world.given())
    axes = picture.axes[0]
    first, second = sorted(np.argsort(-usage.spread.numpy())[:2])
    assert (axes.get_xlabel(), axes.get_ylabel()) == (f"latent {first}", f"latent {second}")
    posterior = world.vae.encode(world.x)
    mean, scale = (part.detach().numpy()[:, [first, second]] for part in (posterior.mean, posterior.stddev))
    (ellipses,) = [part for part in axes.collections if isinstance(part, EllipseCollection)]
    assert abs(ellipses.get_offsets() - mean).max() < 6 * scale.max() / 16  # means of 256 draws
    across, up = _extents(ellipses)
    same(np.stack([across, up], 1) / (2 * scale), np.ones((len(mean), 2)), 0.3)
    assert labels is not None
    classes = {text: colour for text, colour in key(axes).items() if not text.startswith("prior")}
    wanted = [classes[str(int(label))] for label in labels]
    assert [to_hex(colour) for colour in ellipses.get_facecolors()] == wanted
    circles = [line for line in axes.lines if line.get_ls() == "--"]
    radii = [np.hypot(*line.get_xydata().T).mean() for line in circles]
    same(1 - np.exp(-np.square(radii) / 2), [0.5, 0.9, 0.99], 1e-6)
    kl = usage.surgery
    assert f"prior: {'at most ' * kl.saturated}{kl.aggregate:.2f} nats" in title(axes)
    parts = f"{kl.mean:.2f} = {kl.information:.2f} information + {kl.aggregate:.2f}; {kl.rows} rows"
    assert f"(mean KL per row {parts})" in title(axes)


def _extents(ellipses: EllipseCollection) -> tuple[Array, Array]:
    """Full widths and heights of the boxes around ellipses."""
    width, height, angle = ellipses.get_widths(), ellipses.get_heights(), np.deg2rad(ellipses.get_angles())
    across = np.hypot(width * np.cos(angle), height * np.sin(angle))
    return across, np.hypot(width * np.sin(angle), height * np.cos(angle))


@law
def aggregate_posterior(world: World) -> None:
    with evaluation(world.vae, 0):
        z = world.vae.encode(world.x).sample((10,)).flatten(0, 1).numpy()
        prior = world.vae.prior().sample((20_000,)).numpy()
    picture = plots.aggregate_posterior(world.vae, world.x)
    assert set(key(picture)) == {"aggregate posterior", "prior"}
    distances = []
    for latent, axes in enumerate(picture.axes):
        distances.append(ks_2samp(z[:, latent], prior[:, latent]).statistic)
        assert title(axes) == f"latent {latent}: {distances[-1]:.2f}"
        for patch in axes.patches:
            heights, edges, _ = patch.get_data()
            values = (z if patch.get_fill() else prior)[:, latent]
            same(heights * np.diff(edges) * len(values), np.histogram(values, edges)[0], 1e-6)
    assert f"the largest {max(distances):.2f}." in head(picture)
    assert f"for {len(world.x)} rows" in head(picture)


@law
def traversals(world: World) -> None:
    vae, x = world.vae, world.x
    picture = plots.traversals(vae, x, row=3, steps=5)
    with evaluation(vae, 0):
        start, levels = vae.encode(x[3]).mean, np.array([0.01, 0.25, 0.5, 0.75, 0.99])
        for latent, axes in enumerate(picture.axes[:3]):
            assert title(axes) == f"latent {latent}"
            for level, line in zip(levels, axes.lines, strict=True):
                z = start.clone()
                z[latent] = float(norm.ppf(level))
                ends = vae.decode(torch.stack([z, start])).mean
                slack = 0.1 * float(abs(vae.decode(z + torch.eye(3)[latent]).mean - ends[0]).max()) + 1e-3
                assert np.abs(line.get_ydata() - ends[0].numpy()).max() < slack  # quantiles of 20,000 draws
        brightness = [np.mean(line.get_color()[:2]) for line in picture.axes[0].lines]
    assert brightness == sorted(brightness)
    assert "posterior mean of row 3" in head(picture)


@law
def interpolations(world: World) -> None:
    vae, x = world.vae, world.x
    picture = plots.interpolations(vae, x, [(4, 7)], steps=3)
    with evaluation(vae, 0):
        one, other = vae.encode(x[[4, 7]]).mean
        wanted = vae.decode(torch.stack([one, (one + other) / 2, other])).mean
    first, *_ = picture.axes
    same([line.get_ydata() for line in first.lines[:3]], wanted, 1e-5)
    same([line.get_ydata() for line in first.lines[3:]], x[[4, 7]], 1e-5)
    assert title(first) == "rows 4, 7"
    assert [line.get_ls() for line in first.lines] == ["-", "-", "-", ":", ":"]


@law
def manifold(world: World) -> None:
    vae, _, _ = world.images
    axes = plots.manifold(vae, side=3).axes[0]
    at = norm.ppf([1 / 6, 1 / 2, 5 / 6])
    z = torch.tensor([[[across, up] for across in at] for up in at[::-1]]).float()
    with evaluation(vae, 0):
        images = vae.decode(z.flatten(0, 1)).mean
    same(tiles(axes, 3, (6, 5)), grey(images, images), 0.1)
    found = tiles(axes, 3, (6, 5)).reshape(3, 3, -1)
    close = grey(images, images).reshape(3, 3, -1)
    assert np.abs(found - close).mean() < 0.3 * np.abs(found - close[::-1]).mean()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.83", "0.5", "0.17"]
    assert axes.get_xlabel().startswith("latent 0")


@law
def graph(world: World) -> None:
    (axes,) = plots.graph(world.vae, world.x[:2]).axes
    nodes = {text.get_text(): text.xy for text in axes.texts}
    shaded = {tuple(p.center): to_hex(p.get_facecolor()) != "#ffffff" for p in axes.patches if isinstance(p, Circle)}
    assert shaded == {nodes["z"]: False, nodes["x"]: True}
    arrows = [(*map(tuple, p._posA_posB), p.get_linestyle()) for p in axes.patches if isinstance(p, FancyArrowPatch)]
    assert {((a, b), style) for a, b, style in arrows} == {
        ((nodes["z"], nodes["x"]), "-"),
        ((nodes["x"], nodes["z"]), "--"),
    }


# ---- pictures of results -------------------------------------------------------------------------------------------


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
        assert 0.08 < edges.max() < 0.17  # 1.63 / sqrt(150) = 0.13 for one curve of 99 %
    verdict = f"{len(found.failed)} of {len(found.quantities)} fail"
    assert head(picture) == f"{len(found)} simulated truths among {found.draws} draws: {verdict}"


@law
def test_statistics(world: World) -> None:
    for tree in (world.results.tree, world.posterior):
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
    for tree in (world.results.tree, world.other.tree, world.posterior):
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
    tree = world.results.tree
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
    shown = plots.two_sample(world.images[2]).axes[0].images[0].get_array()
    same(np.asarray(shown).ravel(), entries(world.images[2], "two_sample")["importance"])


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


# ---- sentences -----------------------------------------------------------------------------------------------------


@law
def findings(world: World) -> None:
    for tree in (world.results.tree, world.other.tree, world.posterior):
        found, drawn = entries(tree, "checks"), entries(tree, "statistics")
        said = pv.criticism.findings(tree)
        assert said[0].startswith(f"{tree.attrs['draws']} {tree.attrs['kind']} replicates")
        assert f"of {tree.attrs['rows']} rows" in said[0]
        order, count = statistics_order(found), len(found["q_value"])
        out = [at for at in order if found["q_value"][at] < 0.05]
        if not out:
            assert any(each.startswith(f"None of {count} test statistics") for each in said)
        else:
            start = said.index(f"{len(out)} of {count} test statistics stand out at a false discovery rate of 5 %.")
            assert said[start + 1 : start + 1 + len(out[:8])] == [str(found["sentence"][at]) for at in out[:8]]
            if len(out) > 8:
                assert said[start + 9].startswith(f"Further ones: {found['statistic'][out[8]]}")
        for at in range(count):
            _comparison(found, drawn, at, int(tree.attrs["draws"]))
        calibration = entries(tree, "calibration")
        sentence = next(each for each in said if "intervals hold" in each)
        assert sentence.startswith(_held(calibration, 2))
        _verdict(tree, sentence)
        failed = np.flatnonzero(calibration["pit_q_value"] < 0.05)
        if tree.attrs["kind"] == "population" and len(failed):
            ranked = ", ".join(NAMES[at] for at in sorted(failed, key=lambda at: calibration["pit_p_value"][at]))
            assert f"The distribution of {len(failed)} of 4 features is off (they are {ranked})." in said
        _two_sample_sentences(entries(tree, "two_sample"), " ".join(said))


def _comparison(found: dict[str, Array], drawn: dict[str, Array], at: int, draws: int) -> None:
    """The sentence of one test statistic has its label, its direction, its numbers and its p-value."""
    sentence, label = str(found["sentence"][at]), str(found["label"][at])
    replicated, realized = drawn["replicated"][0, :, at], drawn["realized"][0, :, at]
    observed, median = realized.mean(), np.median(replicated)
    assert label in sentence
    assert sentence.endswith(f"{format_p_value(found['p_value'][at], least=2 / (draws + 1))}.")
    if found["scope"][at] == "discrepancy":
        above = (replicated > realized).mean()
        assert sentence.startswith(f"In {100 * max(above, 1 - above):.1f} % of draws")
        assert f" a {'smaller' if above < 0.5 else 'larger'} {label}" in sentence
        return
    assert f"({median:.3g} against {observed:.3g})" in sentence
    if median != observed:
        assert ("larger" in sentence) == (median > observed)
        assert ("smaller" in sentence) == (median < observed)
        by = abs(median - observed)
        assert f" {by:.3g} " in sentence or f" {100 * by / observed:.0f} % " in sentence


def _verdict(tree: Any, sentence: str) -> None:
    words = _coverage_words(tree, 2).split(":")[0]
    expected = {
        "Overconfident": "overconfident, its distributions too narrow",
        "Underconfident": "underconfident, its distributions too wide",
        "Conservative": "covers more than its level",
        "Of the wrong shape": "too narrow at some levels and too wide at others",
    }
    assert expected.get(words, "no sign of distributions") in sentence


def _two_sample_sentences(found: dict[str, Array], said: str) -> None:
    p, accuracy = float(found["classifier_p_value"]), 100 * float(found["classifier_accuracy"])
    if p < 0.05:
        most = ", ".join(NAMES[at] for at in np.argsort(-found["importance"])[:3])
        sentence = f"A classifier distinguishes replicates from data {accuracy:.1f} % of the time ({format_p_value(p)})"
        assert f"{sentence}, most of all by {most}" in said
    else:
        assert f"does not distinguish replicates from data ({accuracy:.1f} % of the time, {format_p_value(p)})" in said
    covered, expected = (100 * float(found[name]) for name in ("coverage", "coverage_expected"))
    assert f"near {covered:.0f} % of the data ({expected:.0f} % if they were data)" in said
    assert f"their density among the data is {float(found['density']):.2f} " in said


@law
def summaries(world: World) -> None:
    """Sentences of evidence, latents, calibration, gaps and comparisons."""
    evidence, latents, ranks, gap = world.results.evidence, world.results.latents, world.sbc, world.gap
    values = evidence.pointwise.double().numpy()
    said = repr(evidence)
    assert f"log p(x) = {values.mean():.3f} nats per row" in said
    over_draws = math.sqrt(float(evidence.mcse.double().square().sum())) / len(values)
    over_rows = values.std(ddof=1) / math.sqrt(len(values))
    assert f"standard error {over_rows:.2g} over rows, {over_draws:.2g} over draws" in said
    assert f"bias about {-float(evidence.mcse.double().square().mean()) / 2:.1g}" in said
    unsure = int((evidence.khat > evidence.threshold).sum())
    assert f"k-hat is above {evidence.threshold:.2f} in {unsure} of {len(values)} rows" in said or not unsure
    kl, errors, said = latents.surgery, latents.mcse, repr(latents)
    assert f"KL from guide to prior {kl.mean:.2f} nats per row" in said
    assert f"{kl.information:.2f} +- {errors[1]:.2g} of mutual information" in said
    assert f"{kl.aggregate:.2f} +- {errors[2]:.2g} from aggregate to prior ({kl.rows} rows)" in said
    unused = [at for at, spread in enumerate(latents.spread.tolist()) if spread <= 0.01]
    assert f"Collapse: latent {unused[0]} is not used; {3 - len(unused)} of 3 are active" in said
    assert latents.kl is not None
    assert f"KL of each latent, in nats: {', '.join(f'{each:.2g}' for each in latents.kl.tolist())}" in said
    assert ("aggregate is not the prior" in said) == (2 * min(latents.mmd.p_value, latents.classifier.p_value) < 0.05)
    _sbc_sentences(ranks)
    said = repr(gap)
    for name, values in (
        ("inference", gap.total),
        ("approximation", gap.approximation),
        ("amortisation", gap.amortisation),
    ):
        assert f"{name} gap = {float(values.mean()):.3f} nats" in said
        assert f"standard error {float(values.std()) / math.sqrt(len(values)):.2g} over rows" in said
    assert f"L* = {float(gap.refined.mean()):.3f} after 30 steps, L = {float(gap.amortised.mean()):.3f}" in said
    found = world.comparison
    best, second = found.models
    difference = (world.results.evidence.pointwise - world.other.evidence.pointwise).double().mean().abs()
    said = repr(found)
    assert said.splitlines()[1].startswith(best.name)
    assert said.splitlines()[2].startswith(second.name)
    if second.differs:
        assert f"{best.name} is ahead of {second.name} by {float(difference):.3g} nats per row" in said


def _sbc_sentences(ranks: Any) -> None:
    said = repr(ranks)
    smallest = min(ranks.quantities, key=lambda name: ranks.p_values[name])
    assert f"smallest {format_p_value(ranks.p_values[smallest])} ({smallest})" in said
    assert len(ranks.findings) == len(ranks.failed)
    for name, sentence in zip(ranks.failed, ranks.findings, strict=True):
        u = ranks.uniforms[:, ranks.quantities.index(name)]
        assert sentence.startswith(f"{name}: ")
        if "median in" in sentence:
            above = (u > 0.5).mean()
            assert f"lies {'above' if above > 0.5 else 'below'} its median in {max(above, 1 - above):.0%}" in sentence
            assert ("too low" in sentence) == (above > 0.5)
        if "confident" in sentence:
            assert ("overconfident" in sentence) == (u.var() > 1 / 12)
            assert f"{(abs(u - 0.5) < 0.45).mean():.0%} of the time" in sentence
        if "more probable" in sentence:
            assert f"than {u.mean():.0%} of the guide's draws" in sentence
            assert ("too narrow" in sentence) == (u.mean() < 0.5)


# ---- pages ---------------------------------------------------------------------------------------------------------


class Read(HTMLParser):
    """Sections of a page: sentences, paragraphs, pictures as (source, alt), and tables by caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, dict[str, Any]] = {}
        self.section = self._empty()
        self.open: list[str] = []
        self.words = ""
        self.facts: list[str] = []
        self.feed(text)

    @staticmethod
    def _empty() -> dict[str, Any]:
        return {"li": [], "p": [], "img": [], "tables": {}, "h3": [], "code": []}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "img":
            self.section["img"].append((found["src"], found["alt"]))
        elif tag == "table":
            self.table: list[list[tuple[str, str | None]]] = []
        elif tag == "tr":
            self.table.append([])
        if tag in ("li", "p", "h1", "h2", "h3", "caption", "th", "td", "code"):
            self.words, self.value = "", found.get("data-value")

    def handle_data(self, data: str) -> None:
        self.words += data

    def handle_endtag(self, tag: str) -> None:
        words = self.words.strip()
        if tag == "h2":
            self.section = self.sections[words] = self._empty()
        elif tag in ("li", "p", "h3", "code"):
            self.section[tag].append(words)
        elif tag == "caption":
            self.caption = words
        elif tag in ("th", "td"):
            self.table[-1].append((words, self.value))
        elif tag == "table":
            self.section["tables"][self.caption] = self.table


def signature(picture: Figure) -> str:
    """Hash of what a figure's artists show, in place of its rendering."""
    found = hashlib.sha256()
    for artist in picture.findobj():
        parts: list[Any] = []
        if isinstance(artist, Line2D):
            parts = [artist.get_xydata(), artist.get_color()]
        elif isinstance(artist, AxesImage):
            parts = [np.ma.filled(artist.get_array(), 0.0)]
        elif isinstance(artist, Text):
            parts = [artist.get_text()]
        elif isinstance(artist, Rectangle):
            parts = [artist.get_bbox().bounds, artist.get_facecolor()]
        elif isinstance(artist, StepPatch):
            parts = [artist.get_data().values]
        elif isinstance(artist, EllipseCollection):
            parts = [artist.get_offsets().data, artist.get_widths()]
        found.update(repr([np.asarray(part).tolist() for part in parts]).encode())
    return f"data:{found.hexdigest()}"


def read_page(make: Callable[[], Any]) -> Read:
    """The sections of a page, whose pictures are signatures."""

    def of(figure: Figure, alt: str, caption: str = "") -> Any:
        return pages.Picture(signature(figure), alt, (1, 1), caption)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(pages.Picture, "of", staticmethod(of))
        return Read(make().html())


def column(table: list[list[tuple[str, str | None]]], name: str) -> list[Any]:
    """Cells of a column: words, or numbers with all of their digits, which are sorted and rounded to be read."""
    at = [words for words, _ in table[0]].index(name)
    found: list[Any] = []
    for row in table[1:]:
        words, value = row[at]
        found.append(words if value is None else float(value))
        if value is not None and words:
            assert abs(float(words.replace(",", "")) - float(value)) <= 6e-4 * abs(float(value)) + 1e-12
    return found


@law
def run_report(world: World) -> None:
    results, tree = world.results, world.results.tree
    page = read_page(lambda: run_page(results, None))
    part = page.sections["What the checks say"]
    assert part["li"] == pv.criticism.findings(tree)
    drawn = (plots.ppc, plots.test_statistics, plots.pit, plots.two_sample)
    assert [source for source, _ in part["img"]] == [signature(draw(tree)) for draw in drawn]
    found = entries(tree, "checks")
    out = [at for at in statistics_order(found) if found["q_value"][at] < 0.05]
    alts = [alt for _, alt in part["img"]]
    assert f"{len(out)} stand out: {', '.join(str(found['label'][at]) for at in out)}" in alts[1] or not out
    calibration = entries(tree, "calibration")
    assert alts[2] == f"Calibration: {_coverage_words(tree, _furthest_level(calibration))}"
    assert alts[3].endswith(f"accuracy {float(tree['two_sample']['classifier_accuracy']):.2f}")
    (table,) = part["tables"].values()
    assert column(table, "test statistic") == found["label"].tolist()
    assert column(table, "of") == found["scope"].tolist()
    for name, entry in (
        ("data", "observed"),
        ("replicates", "mean"),
        ("their sd", "sd"),
        ("p", "p_value"),
        ("error of p", "p_error"),
        ("q (false discovery rate)", "q_value"),
    ):
        same(column(table, name), found[entry])
    _report_data(world, page)
    _report_training(world, page)
    _report_latents(world, page)
    _report_evidence(world, page)


def _report_data(world: World, page: Read) -> None:
    tables, rows = page.sections["The data"]["tables"], world.results.rows
    values = next(table for caption, table in tables.items() if caption.startswith("Values in"))
    assert "Values in the first 160 of 240 test rows" in tables
    x = rows.x.double().numpy()
    assert column(values, "feature") == NAMES
    for name, wanted in (("mean", x.mean(0)), ("sd", x.std(0, ddof=1)), ("least", x.min(0)), ("largest", x.max(0))):
        same(column(values, name), wanted, 1e-6)
    classes = tables["Classes, which the model never saw"]
    assert rows.labels is not None
    same(column(classes, "rows"), np.unique(rows.labels.numpy(), return_counts=True)[1])


def _report_training(world: World, page: Read) -> None:
    part, history = page.sections["Training"], world.results.history
    table = next(table for caption, table in part["tables"].items() if caption == "After epoch 6, in nats per row")
    last = history.last
    wanted = {"loss, minus the bound": "loss", "log-likelihood": "log_likelihood", "KL from guide to prior": "kl"}
    assert column(table, "quantity") == list(wanted)
    same(column(table, "training"), [last[name] for name in wanted.values()])
    same(column(table, "validation"), [last[f"validation_{name}"] for name in wanted.values()])
    ((source, alt),) = part["img"]
    assert source == signature(plots.training(history))
    assert f"over 6 epochs: the loss goes from {history['loss'][0]:.4g} to {history['loss'][-1]:.4g} nats" in alt
    assert f"6 epochs took {float(history['seconds'].sum()):,.0f} s." in part["p"]


def _report_latents(world: World, page: Read) -> None:
    part, found = page.sections["Latents"], world.results.latents
    assert part["li"] == repr(found).splitlines()
    given = world.given()
    labels = world.results.rows.labels
    assert [source for source, _ in part["img"]] == [
        signature(plots.latent_usage(found)),
        signature(plots.latent(world.vae, labels=labels, usage=found, **given)),
        signature(plots.aggregate_posterior(world.vae, **given)),
        signature(plots.traversals(world.vae, **given)),
    ]
    alts = [alt for _, alt in part["img"]]
    assert alts[0].endswith(f"{len(found.active)} of {len(found)} latents are active")
    assert alts[1].endswith(f"aggregate KL {found.surgery.aggregate:.2f} nats")
    text = [artist.get_text() for artist in plots.latent(world.vae, usage=found, **given).findobj(Text)]
    shown = {number for each in text for number in re.findall(r"prior: (?:at most )?([\d.]+) nats", each)}
    shown |= set(re.findall(r"aggregate KL ([\d.]+) nats", alts[1]))
    shown |= set(re.findall(r"\+ ([\d.]+) \+- \S+ from aggregate", " ".join(part["li"])))
    assert shown == {f"{found.surgery.aggregate:.2f}"}, "the aggregate KL is one number on the page"
    (table,) = part["tables"].values()
    assert found.kl is not None
    same(column(table, "latent"), range(len(found)))
    same(column(table, "KL [nats]"), found.kl)
    same(column(table, "variance of the posterior mean"), found.spread)
    assert column(table, "active") == ["yes" if spread > 0.01 else "no" for spread in found.spread.tolist()]


def _report_evidence(world: World, page: Read) -> None:
    part, found, tree = page.sections["Evidence"], world.results.evidence, world.results.tree
    assert part["li"] == repr(found).splitlines()
    ((source, alt),) = part["img"]
    assert source == signature(plots.khat(found))
    unsure = int((found.khat > found.threshold).sum())
    assert alt == f"k-hat of {len(found)} rows: {unsure} are above the threshold {found.threshold:.2f}"
    part = page.sections["Worst-fitted rows and features"]
    ((source, _),) = part["img"]
    assert source == signature(plots.outliers(tree))
    rows, features = part["tables"].values()
    order = np.argsort(found.pointwise.numpy(), kind="stable")[:10]
    same(column(rows, "row"), order)
    same(column(rows, "log p(x) [nats]"), found.pointwise[order])
    same(column(rows, "error"), found.mcse[order])
    same(column(rows, "k-hat"), found.khat[order])
    held = entries(tree, "calibration")
    worst = np.argsort(held["pit_q_value"], kind="stable")
    assert column(features, "feature") == [NAMES[at] for at in worst]
    same(column(features, "data in the 90% interval"), held["coverage"][worst, 2])
    same(column(features, "p of a uniform PIT"), held["pit_p_value"][worst])
    same(column(features, "q (false discovery rate)"), held["pit_q_value"][worst])


@law
def comparison_report(world: World) -> None:
    folders = [world.folder / "wide", world.folder / "small"]
    page = read_page(lambda: comparison_page(folders, None, world.settings))
    results = {"wide": world.other, "small": world.results}
    found = world.comparison
    ranked = [at.name for at in found.models]
    part = page.sections["Which fits"]
    (table,) = part["tables"].values()
    assert column(table, "model") == ranked
    ordered = [results[name] for name in ranked]
    same(column(table, "log p(x)"), [float(one.evidence.mean) for one in ordered], 1e-6)
    same(column(table, "error"), [at.log_p.se for at in found.models], 1e-6)
    best = ordered[0].evidence.pointwise.double()
    same(
        column(table, "difference to the best"),
        [float((one.evidence.pointwise.double() - best).mean()) for one in ordered],
        1e-6,
    )
    same(column(table, "its error"), [at.difference.se for at in found.models], 1e-6)
    trees = [one.tree for one in ordered]
    same(column(table, "data in 90 % intervals"), [entries(t, "calibration")["coverage_overall"][2] for t in trees])
    out = [int((entries(tree, "checks")["q_value"] < 0.05).sum()) for tree in trees]
    same(column(table, "significant test statistics"), out)
    same(column(table, "accuracy of a classifier"), [float(t["two_sample"]["classifier_accuracy"]) for t in trees])
    same(column(table, "active latents"), [int((one.latents.spread > 0.01).sum()) for one in ordered])
    unsure = [int((one.evidence.khat > one.evidence.threshold).sum()) for one in ordered]
    same(column(table, "rows of large k-hat"), unsure)
    same(column(table, "seeds"), [1, 1])
    assert part["img"][0] == (
        signature(plots.compare(found)),
        f"Mean log p(x) of each model and its difference to the best, {ranked[0]}",
    )
    for name, tree, count in zip(ranked, trees, out, strict=True):
        checks = entries(tree, "checks")
        sentence = next(each for each in part["li"] if each.startswith(f"{name}: "))
        assert f"{count} of {len(checks['q_value'])} test statistics stand out" in sentence
        if count:
            assert f"most of all the {checks['label'][statistics_order(checks)[0]]};" in sentence
        share = 100 * entries(tree, "calibration")["coverage_overall"][2]
        assert f"its 90 % intervals hold {share:.0f} % of the data" in sentence
        right = 100 * float(tree["two_sample"]["classifier_accuracy"])
        assert f"right about data and replicates in {right:.0f} %" in sentence
    least = [name for name, count in zip(ranked, out, strict=True) if count == min(out)]
    assert any("do not agree" in each for each in part["li"]) == (ranked[0] not in least)
    _side_by_side(page, ranked, trees)


def _side_by_side(page: Read, ranked: list[str], trees: list[Any]) -> None:
    said = page.sections["What the checks say"]
    assert said["h3"] == ranked
    assert said["li"] == [sentence for tree in trees for sentence in pv.criticism.findings(tree)]
    for name, draw in (
        ("Replicates", plots.ppc),
        ("Test statistics", plots.test_statistics),
        ("Calibration", plots.pit),
    ):
        part = page.sections[name]
        assert [source for source, _ in part["img"]] == [signature(draw(tree)) for tree in trees]
        for model, (_, alt) in zip(ranked, part["img"], strict=True):
            assert alt.endswith(f"({model})")
    (table,) = page.sections["Test statistics"]["tables"].values()
    checks = [entries(tree, "checks") for tree in trees]
    assert column(table, "test statistic") == checks[0]["label"].tolist()
    same(column(table, "data"), checks[0]["observed"])
    for model, found in zip(ranked, checks, strict=True):
        same(column(table, f"{model}: replicates"), found["mean"])
        same(column(table, f"{model}: q"), found["q_value"])
