"""References: every one in the package's docstrings is read whole, and becomes an entry with a key of its own."""

import ast
import re
from pathlib import Path

import pytest

import pyro_vae as pv
from pyro_vae.registry.tables import TABLES
from pyro_vae.reports.bibtex import Reference, cited, references
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


def test_every_reference_of_the_package_is_read() -> None:
    read: dict[str, Reference] = {}
    places = docstrings()
    assert len(places) > 50
    for place, text in places:
        section = re.split(r"\n[ \t]*\n", text.split("References:")[1])[0]
        found = references(text)
        years = re.findall(r", ((?:1[89]|20)\d\d)\b(?! *[a-z]*/)", section)
        assert len(found) == len(years), place
        assert [one.link for one in found if one.link] == [
            link.rstrip(".,") for link in re.findall(r"https?\S+", section)
        ]
        for one in found:
            assert not re.search(r"https?:|\. [A-Z]|\d{4}", one.title), (place, one)
            assert re.fullmatch(r"[a-z]+\d{4}[a-z0-9]+", one.key), (place, one)
            assert all(name[0].isupper() for name in re.split(r", | and | et al\.", one.authors) if name), (place, one)
            before = read.setdefault(one.key, one)
            assert before.authors.split()[0].rstrip(",") == one.authors.split()[0].rstrip(","), (before, one)
            short, long = sorted((before.title, one.title), key=len)
            assert long.startswith(short.split(" (")[0]), f"{before} and {one}"
    assert len(read) > 60


def test_entry_holds_what_was_written() -> None:
    text = """One line.

    References:
        Johnson, Kotz and Balakrishnan, Continuous & Univariate, 1994, chapter 8. Sønderby et al., Ladder
            Variational Autoencoders (with notes), 2016 (as a guide), https://arxiv.org/abs/1602.02282.

    Args:
        x: Not, A Reference, 1999.
    """
    first, second = references(text)
    assert first.bibtex == (
        "@misc{johnson1994continuous,\n  author = {Johnson and Kotz and Balakrishnan},\n"
        "  title = {{Continuous \\& Univariate}},\n  year = {1994},\n  note = {chapter 8},\n}"
    )
    assert second == Reference(
        "Sønderby et al.",
        "Ladder Variational Autoencoders (with notes)",
        2016,
        "https://arxiv.org/abs/1602.02282",
        "as a guide",
    )
    assert "author = {Sønderby and others}" in second.bibtex


def test_malformed_reference_is_refused_with_its_text() -> None:
    with pytest.raises(pv.InputError, match=r"'Somebody said so\.' is no reference"):
        references("A.\n\n    References:\n        Kingma, Adam, 2015. Somebody said so.\n")
    assert references(None) == references("No section.") == []


def test_declarations_inside_declarations_are_cited_once() -> None:
    objective = pv.objectives.ELBO(beta=pv.schedules.Cyclical())
    keys = [one.key for one in cited([pv.ZeroInflated(pv.NegativeBinomial()), objective, objective, pv.VAE])]
    assert keys == sorted(set(keys))
    assert {"lambert1992zero", "hilbe2011negative", "fu2019cyclical", "kingma2014auto"} <= set(keys)


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
