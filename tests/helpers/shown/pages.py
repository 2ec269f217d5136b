"""Laws of pages."""

import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text

import pyro_vae as pv
from helpers.shown.base import NAMES, World, entries, law, same, statistics_order
from helpers.shown.results import (
    _coverage_words,
    _furthest_level,
)
from pyro_vae import plots
from pyro_vae.reports import page as pages
from pyro_vae.reports.comparison_report import comparison_page
from pyro_vae.reports.run_report import run_page


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
