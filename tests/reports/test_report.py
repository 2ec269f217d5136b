"""The report: one file that holds all it shows, escapes what it is given, and replaces nothing but reports."""

import base64
import functools
import itertools
import os
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from helpers.reports import NAMES, QUICK, fit, pages, write_table

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.plots import _run_figures
from pyro_vae.reports import results
from pyro_vae.reports.page import GENERATOR, Page, Section, Table

SECTIONS = [
    "What the checks say",
    "What to try next",
    "The model",
    "The data",
    "Training",
    "Latents",
    "Evidence",
    "Worst-fitted rows and features",
    "How to reproduce",
    "References",
]
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Parsed(HTMLParser):
    """A page's elements, and the text of some of them."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page.read_text())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture
def folder() -> Path:
    """Two runs on one table, and the pages on one of them and on both."""
    return pages()


def unseen(*given: object, **named: object) -> None:
    raise pv.InputError("40 rows are too few.")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, latents and two-sample tests, which take most of the time."""
    monkeypatch.setattr(Section, "draw", lambda *given: None)
    monkeypatch.setattr(results, "predictive_check", functools.partial(pv.predictive_check, two_sample=False))
    monkeypatch.setattr(results, "latents", unseen)


@pytest.fixture(params=["learned/report.html", "comparison.html"])
def page(request: pytest.FixtureRequest, folder: Path) -> Path:
    return folder / request.param


def test_page_holds_all_that_it_shows(page: Path) -> None:
    parsed = Parsed(page)
    text = page.read_text()
    references = {link["href"] for link in parsed.all("a") if str(link["href"]).startswith("http")}
    plain = re.sub(r'xmlns="http://www.w3.org/1998/Math/MathML"', "", text)
    assert set(re.findall(r"https?://[^\s\"'<>}]+", plain)) <= references
    assert not [tag for tag in ("iframe", "object", "embed", "base", "form", "audio", "video") if parsed.all(tag)]
    assert [script for script in parsed.all("script") if "src" in script] == []
    assert [link["href"] for link in parsed.all("link")] == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text
    policy = next(meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_pictures_are_embedded_and_described(page: Path) -> None:
    pictures = Parsed(page).all("img")
    assert len(pictures) > 6
    for picture in pictures:
        kind, _, code = str(picture["src"]).partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(code).startswith(b"\x89PNG")
        assert len(str(picture["alt"])) > 20
        assert int(str(picture["width"])) > 100
    assert len({picture["alt"] for picture in pictures}) == len(pictures)


def test_page_is_well_formed(page: Path) -> None:
    parsed = Parsed(page)
    assert parsed.open == []
    assert parsed.all("html") == [{"lang": "en"}]
    assert len(parsed.said("title")) == 1
    assert any("width=device-width" in str(meta.get("content")) for meta in parsed.all("meta"))
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    anchors = [str(link["href"])[1:] for link in parsed.all("a") if str(link["href"]).startswith("#")]
    assert anchors[0] == "content"
    assert set(anchors) == set(ids)
    assert len(parsed.all("caption")) == len(parsed.all("table")) > 2
    assert {head.get("scope") for head in parsed.all("th")} == {"col", "row"}
    regions = [attributes["aria-label"] for attributes in parsed.all("div") if attributes.get("role") == "region"]
    assert len(set(regions)) == len(regions)


def test_names_of_features_are_escaped(folder: Path) -> None:
    text = (folder / "learned" / "report.html").read_text()
    assert "<script>alert" not in text
    parsed = Parsed(folder / "learned" / "report.html")
    assert len(parsed.all("script")) == 1
    assert set(NAMES) <= set(parsed.said("th"))


def test_whatever_a_page_is_given_is_escaped(tmp_path: Path) -> None:
    evil = "<script>\"&'</script>"
    blocks = [evil, Table(evil, [evil, evil], [[evil, evil]])]
    made = Page(evil, [evil], [Section(evil, blocks)]).write(tmp_path / "p.html")
    assert len(Parsed(made).all("script")) == 1
    assert Parsed(made).said("caption") == [evil]


def test_report_of_one_run_is_complete(folder: Path) -> None:
    parsed = Parsed(folder / "learned" / "report.html")
    assert parsed.said("h2") == SECTIONS
    first = parsed.texts.index(("h2", SECTIONS[0]))
    assert parsed.texts[first + 1][0] == "li", "sentences come first"
    said = " ".join(text for _, text in parsed.texts)
    plain = (folder / "learned" / "spec.yaml").read_text()
    code = "".join(parsed.said("code"))
    assert yaml.safe_load(plain)["fingerprint"] in said
    assert "seed: 0" in code
    assert "--method Importance --method.draws 60 --seed 0" in code
    assert "pyro-vae fit --config" in code
    assert "Evaluated on all 90 test rows." in said
    assert "x | z ~ Normal(loc=loc(z), scale=scale)" in code
    formulas = [math["alttext"] for math in parsed.all("math")]
    assert "x_n | z_n ~ Normal(loc=loc_θ(z_n), scale=scale)" in formulas
    assert len(parsed.all("mfrac")) >= 2
    tree = pv.predictive_check(
        pv.load(folder / "learned"), pv.data.load(str(folder / "table.csv"), test=0.3).test, draws=60, progress=False
    )
    assert set(pv.criticism.findings(tree)) <= set(parsed.said("li"))
    assert {str(label) for label in tree["checks"]["label"].values} <= set(parsed.said("th"))


def test_next_step_of_a_report_is_the_suggestion_as_runnable_commands(
    tmp_path: Path,
    undrawn: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run_figures, "write", lambda *given: None)
    table = tmp_path / "counts.csv"
    x = np.random.default_rng(0).poisson(4, size=(300, 3))
    np.savetxt(table, x, fmt="%d", delimiter=",", header="a,b,c", comments="")
    pv.report(fit(tmp_path, table, "real"), **QUICK)
    parsed = Parsed(tmp_path / "real" / "report.html")
    said = " ".join(parsed.said("p"))
    assert "suggest proposes Poisson: counts whose variance is" in said
    assert "Or likelihood=pv.NegativeBinomial()." in said
    typed = next(text for text in parsed.said("code") if "--likelihood" in text).splitlines()
    assert [line.split()[:2] for line in typed] == [["pyro-vae", "fit"], ["pyro-vae", "report"]]
    main(shlex.split(typed[0])[1:])
    main([*shlex.split(typed[1])[1:], "--draws", "30", "--method.draws", "60", "--progress=false"])
    assert capsys.readouterr().out.endswith(f"The report in {tmp_path / 'comparison.html'}\n")
    pv.report(tmp_path / "real-Poisson", **QUICK)
    parsed = Parsed(tmp_path / "real-Poisson" / "report.html")
    assert "suggest proposes Poisson, which this run has: counts" in " ".join(parsed.said("p"))
    assert not [text for text in parsed.said("code") if "--likelihood" in text]


def test_references_are_those_of_what_was_used(folder: Path) -> None:
    code = "".join(Parsed(folder / "comparison.html").said("code"))
    keys = re.findall(r"@misc{(\w+),", code)
    assert keys == sorted(set(keys))
    used = {"kingma2014", "kingma2015", "burda2016", "mclachlan2000", "rubin1984"}
    assert used <= set(keys)
    assert not {"tomczak2018", "neal2001"} & set(keys)
    single = "".join(Parsed(folder / "learned" / "report.html").said("code"))
    assert "mclachlan2000" not in single


def test_comparison_says_which_fits_and_why(folder: Path) -> None:
    parsed = Parsed(folder / "comparison.html")
    assert parsed.said("h2")[:2] == ["Which fits", "What the checks say"]
    order = parsed.said("h3")[:2]
    assert order == ["learned", "fixed"]
    said = parsed.said("li")
    assert any(re.search(r"is ahead of fixed by \d", sentence) for sentence in said)
    assert any(re.match(r"fixed: \d+ of \d+ test statistics stand out", sentence) for sentence in said)
    assert "Normal(loc=None, scale=4.0)" in parsed.said("td")
    assert sum("Data beside" in str(picture["alt"]) for picture in parsed.all("img")) == 2


def test_model_without_a_density_is_described_beside_the_others(tmp_path: Path, undrawn: None) -> None:
    x = (torch.rand(150, 3) > 0.5).float() * 0.8 + 0.1
    likelihoods = {"grey": pv.Bernoulli(grey=True), "cb": pv.ContinuousBernoulli(), "beta": pv.Beta()}
    np.save(tmp_path / "x.npy", x.numpy())
    for name, likelihood in likelihoods.items():
        vae = pv.VAE((3,), 2, likelihood=likelihood, encoder=pv.MLP(hidden=(4,)))
        pv.fit(
            vae, pv.data.load(str(tmp_path / "x.npy"), test=0.4).train, epochs=1, run=tmp_path / name, progress=False
        )
    page = pv.report([tmp_path / name for name in likelihoods], **QUICK)
    said = Parsed(page).said("li")
    assert any(sentence.startswith("grey is not among them") and "cross-entropy" in sentence for sentence in said)
    assert Parsed(page).said("h3")[2] == "grey"
    pair = pv.report([tmp_path / "grey", tmp_path / "cb"], to=tmp_path / "pair.html", **QUICK)
    assert any("no two of these models can be compared" in sentence for sentence in Parsed(pair).said("li"))


def test_report_is_replaced_when_the_new_one_is_complete(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    target = tmp_path / "r.html"
    pv.report(folder / "learned", to=target, **QUICK)
    before = target.read_bytes()
    pv.report(folder / "learned", to=target, **QUICK)
    assert target.read_bytes() == before, "the same page for the same seed"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda path, to: os.stat("no such file"))
        with pytest.raises(pv.InputError, match="cannot be written"):
            pv.report(folder / "learned", to=target, rows=60, **QUICK)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    pv.report(folder / "learned", to=target, rows=60, **QUICK)
    assert "the first 60 of 90 test rows" in target.read_text()
    assert GENERATOR in target.read_text()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["report", *words, "--progress=false"])
    assert stopped.value.code == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1), error
    return error


def test_wrong_input_is_a_sentence_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "predictive_check", lambda *given, **named: 1 / 0)
    run = str(folder / "learned")
    assert "is not a run folder" in refused(capsys, str(folder / "none"))
    assert "ends in .html" in refused(capsys, run, "--to", str(tmp_path / "r.pdf"))
    assert "not a folder" in refused(capsys, run, "--to", str(tmp_path / "none" / "r.html"))
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    assert "is not a report" in refused(capsys, run, "--to", str(tmp_path / "mine.html"))
    assert "rows = 1" in refused(capsys, run, "--rows", "1")
    assert "draws = 0" in refused(capsys, run, "--draws", "0")
    assert "two or more different" in refused(capsys, run, run)
    assert "--split" in refused(capsys, run, "--split", "all")
    with pytest.raises(pv.InputError, match="split = 'all'"):
        pv.report(run, split="all")
    with pytest.raises(pv.InputError, match="takes a run folder"):
        pv.report([])
    with pytest.raises(pv.InputError, match="method = 'AIS'"):
        pv.report(run, method="AIS")  # type: ignore[arg-type]


def test_missing_data_is_requested(tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn: None) -> None:
    data = write_table(tmp_path / "moved.csv")
    run = fit(tmp_path, data, "run")
    data.rename(tmp_path / "elsewhere.csv")
    assert "--data" in refused(capsys, run)
    main(["report", run, "--data", str(tmp_path / "elsewhere.csv"), "--draws", "30", "--progress=false"])
    assert capsys.readouterr().out == f"The report in {run}/report.html\n"
    assert f"--data {tmp_path / 'elsewhere.csv'}" in (Path(run) / "report.html").read_text()
    x = torch.randn(40, 3)
    pv.fit(pv.VAE((3,), 2, encoder=pv.MLP(hidden=(4,))), x, epochs=1, run=tmp_path / "memory", progress=False)
    assert "--data" in refused(capsys, str(tmp_path / "memory"))
    page = pv.report(tmp_path / "memory", data=x, **QUICK)
    said = " ".join(text for _, text in Parsed(page).texts)
    assert "Not evaluated: 40 rows are too few." in said
    assert "were in memory" in said


def test_programs_of_the_users_own_are_refused_in_a_sentence(tmp_path: Path) -> None:
    vae = pv.VAE((3,), 2, encoder=pv.MLP(hidden=(4,)))
    own = SimpleNamespace(model=vae.model, guide=vae.guide)
    pv.fit(own, torch.randn(40, 3), epochs=1, run=tmp_path / "own", progress=False)
    with pytest.raises(pv.InputError, match=r"a report needs a VAE .* declares no VAE"):
        pv.report(tmp_path / "own", data=torch.randn(40, 3))
    vae = pv.VAE((3,), 2, guide=pv.Normal(scale=1), encoder=torch.nn.Linear(3, 2), decoder=pv.MLP(hidden=(4,)))
    pv.fit(vae, torch.randn(40, 3), epochs=1, run=tmp_path / "part", progress=False)
    with pytest.raises(pv.InputError, match="part of your own"):
        pv.report(tmp_path / "part", data=torch.randn(40, 3))


def test_graph_shows_what_depends_on_what() -> None:
    vae = pv.VAE((3,), 2, likelihood=pv.ZeroInflated(pv.Poisson()), encoder=pv.MLP(hidden=(4,)))
    (axes,) = pv.plots.graph(vae, torch.ones(2, 3)).axes
    nodes = {text.get_text(): text.xy for text in axes.texts}
    assert set(nodes) == {"z", "x", "Normal", "ZeroInflated[Poisson]", "plate data"}
    assert nodes["z"][1] > nodes["x"][1]
    circles = [patch for patch in axes.patches if hasattr(patch, "center")]
    shaded = {tuple(circle.center): circle.get_facecolor()[:3] != (1, 1, 1) for circle in circles}
    assert shaded == {nodes["z"]: False, nodes["x"]: True}
    arrows = {(patch._posA_posB[0], patch.get_linestyle()) for patch in axes.patches if hasattr(patch, "_posA_posB")}
    assert arrows == {(nodes["z"], "-"), (nodes["x"], "--")}
    box = next(patch for patch in axes.patches if hasattr(patch, "get_boxstyle"))
    for site in "zx":
        assert box.get_x() < nodes[site][0] < box.get_x() + box.get_width()
        assert box.get_y() < nodes[site][1] < box.get_y() + box.get_height()
    assert pv.plots.graph(vae, torch.ones(2, 3)).get_size_inches()[0] < 7
