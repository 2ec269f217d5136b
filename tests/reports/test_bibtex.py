"""References: every citation of a docstring has an entry that says the same, and every entry is cited."""

import ast
import re
from importlib.resources import files
from pathlib import Path

import pyro_vae as pv
from pyro_vae.registry.tables import TABLES
from pyro_vae.reports.bibtex import bibliography, cited
from pyro_vae.reports.formulas import density_formulas, mathml

PACKAGE = Path(pv.__file__).parent
KINDS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings() -> list[tuple[str, str]]:
    """Every docstring of the package that has references, with its place."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            text = ast.get_docstring(node, clean=False) if isinstance(node, KINDS) else None
            if text and re.search(r"^\s*References:\s*$", text, re.MULTILINE):
                found.append((f"{file.relative_to(PACKAGE)}:{getattr(node, 'name', '')}", text))
    return found


def citations() -> list[tuple[str, str, str, str]]:
    """Place, text before the key, key and text after it of every citation in the sections of references."""
    found = []
    for place, text in docstrings():
        section = " ".join(re.split(r"\n[ \t]*\n", text.split("References:")[1])[0].split())
        before, *rest = re.split(r" \[(\w+)\]", section)
        for key, after in zip(rest[::2], rest[1::2], strict=True):
            found.append((place, before, key, after))
            before = after
        assert not re.search(r", (?:1[89]|20)\d\d\b(?!/)", after), f"{place}: a reference has no key"
    return found


def test_every_citation_agrees_with_its_entry() -> None:
    entries, found = bibliography(), citations()
    assert len(found) > 120
    assert {key for _, _, key, _ in found} == set(entries)
    for place, before, key, after in found:
        one = entries[key]
        assert re.fullmatch(r"[a-z]+\d{4}[a-z]?", key)
        assert str(one.year) in key
        first = re.split(r",| and | et al", one.authors)[0]
        said = [f"{authors}, {one.title}, {one.year}" for authors in (one.authors, f"{first} et al.")]
        assert before.endswith(tuple(said)), (place, before, one)
        link = re.match(r"(?: \([^)]*\))?, (https?:\S+?)(?:[.,]?(?: |$))", after)
        assert (link[1] if link else "") == one.link, (place, one)


def test_every_entry_is_read_completely() -> None:
    text = files("pyro_vae.reports").joinpath("references.bib").read_text(encoding="utf-8")
    assert "\n\n".join(one.bibtex for one in bibliography().values()) + "\n" == text
    assert list(bibliography()) == sorted(bibliography())
    for one in bibliography().values():
        lines = {"author", "title", "year"} | ({"url"} if one.link else set()) | ({"note"} if one.note else set())
        assert set(re.findall(r"^  (\w+) = ", one.bibtex, re.MULTILINE)) == lines
        assert not set(one.title + one.authors) & set("{}\\")


def test_declarations_inside_declarations_are_cited_once() -> None:
    objective = pv.objectives.ELBO(beta=pv.schedules.Cyclical())
    keys = [one.key for one in cited([pv.ZeroInflated(pv.NegativeBinomial()), objective, objective, pv.VAE])]
    assert keys == sorted(set(keys))
    assert {"lambert1992", "hilbe2011", "fu2019", "kingma2014"} <= set(keys)


def test_every_formula_of_the_tables_becomes_mathml() -> None:
    from xml.etree import ElementTree

    for table in TABLES.values():
        for component in table.values():
            for tex in re.findall(r"\$\$(.*?)\$\$", component.__doc__ or "", re.DOTALL):
                made = str(mathml(tex))
                tree = ElementTree.fromstring(made)
                assert tree.get("alttext"), component
                left = [part.text for part in tree.iter() if part.text and "\\" in part.text]
                assert left == [], f"{component.__name__}: {left} are no MathML"


def test_density_formulas_of_a_model_are_those_of_its_families() -> None:
    likelihood = pv.ZeroInflated(pv.NegativeBinomial())
    vae = pv.VAE((3,), 2, likelihood=likelihood, guide=pv.Laplace(), encoder=pv.MLP(hidden=(4,)))
    assert [name for name, _ in density_formulas(vae)] == ["Normal", "ZeroInflated", "NegativeBinomial", "Laplace"]
