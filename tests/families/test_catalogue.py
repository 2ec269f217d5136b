"""The catalogue says of every family what is true of it."""

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import built_families, cases

import pyro_vae as pv
from pyro_vae import catalogue
from pyro_vae.cli import main
from pyro_vae.cli.fit import fit
from pyro_vae.cli.parser import Parser
from pyro_vae.core import serialization
from pyro_vae.core.errors import InputError
from pyro_vae.core.latex import readable
from pyro_vae.distributions.constraints import supports_equal
from pyro_vae.families import FAMILIES
from pyro_vae.families.catalogue import KINDS, example_of, summary
from pyro_vae.registry import tables

README = Path(__file__).parents[2] / "README.md"


# ---- the list ------------------------------------------------------------------------------------------------------


def test_every_family_is_listed_once_by_kind_and_fits_the_screen() -> None:
    listed = catalogue()
    found = [re.match(r"  (\w+)\(", line) for line in listed.splitlines()]
    assert sorted(match[1] for match in found if match) == sorted(FAMILIES)
    assert max(map(len, listed.splitlines())) <= 120
    headings = [line for line in listed.splitlines() if line.isupper()]
    assert headings == [kind.upper() for kind in KINDS if kind.upper() in headings]
    for family in FAMILIES.values():
        assert summary(family) in " ".join(listed.split())
        assert family.support_text in listed


def test_table_of_the_readme_is_the_catalogues() -> None:
    (table,) = re.findall(r"^\| data \| family .*\n(?:\|.*\n)+", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert table.strip() == catalogue(markdown=True), (
        "the table of families in README.md is not the present one: replace it with what "
        "`pyro-vae families --markdown true` prints."
    )


@cases.over_families()
def test_roles_are_those_that_a_model_takes(name: str) -> None:
    family, case = FAMILIES[name], cases.FAMILIES[name]
    computed = built_families.computed_roles(family)
    assert family.roles == computed
    assert set(computed) <= set(case.roles)
    assert {"likelihood", "guide"} & set(case.roles) <= set(computed)
    partners = {"prior": "guide", "guide": "prior"}
    for role, partner in partners.items():
        others = [other for other in FAMILIES.values() if partner in other.roles]
        mine = getattr(built_families.build(family), role)
        fitting = [
            other
            for other in others
            if mine and supports_equal(mine.support, getattr(built_families.build(other), partner).support)
        ]
        if role in computed:
            pv.VAE((2,), 3, **{role: family(), partner: fitting[0]()}, encoder=pv.MLP(hidden=()))
        else:
            # A guide without rsample over a prior's support is one of RWS alone, and refused by any other objective.
            for other in (pv.Normal, *(fitting if role == "prior" else ())):
                with pytest.raises(InputError):
                    pv.VAE((2,), 3, **{role: family(), partner: other()}, encoder=pv.MLP(hidden=()))


SUPPORTS = {
    "Normal": ("Real numbers", "real numbers", "prior likelihood guide"),
    "Bernoulli": ("Categories", "0 and 1", "likelihood"),
    "Categorical": ("Categories", "integers 0 to classes - 1", "likelihood"),
    "OneHot": ("Categories", "one-hot vectors", "likelihood"),
    "Binomial": ("Counts", "integers 0 to total_count", "likelihood"),
    "NegativeBinomial": ("Counts", "integers 0, 1, ...", "likelihood"),
    "LogNormal": ("Positive numbers", "positive numbers", "prior likelihood guide"),
    "Exponential": ("Positive numbers", "0 and positive numbers", "prior likelihood guide"),
    "Beta": ("Unit interval", "numbers in (0, 1)", "prior likelihood guide"),
    "ContinuousBernoulli": ("Unit interval", "numbers in [0, 1]", "prior likelihood guide"),
    "VonMises": ("Angles", "angles in [-pi, pi]", "likelihood"),
    "Dirichlet": ("Shares that sum to one", "vectors of shares, positive, that sum to one", "prior likelihood guide"),
    "DiscretizedLogistic": ("Pixel levels", "integers 0 to bins - 1", "likelihood"),
    "MultivariateNormal": ("Vectors", "vectors of real numbers", "prior likelihood guide"),
    "Truncated": ("Made of another family", "numbers in [low, inf) by default", "prior likelihood guide"),
    "VampPrior": ("Priors that depend on the model", "real numbers", "prior"),
    "Aggregate": ("Priors that depend on the model", "real numbers by default", "prior"),
    "Mixture": ("Made of another family", "real numbers by default", "prior likelihood guide"),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_kind_support_and_roles(name: str) -> None:
    kind, support, words = SUPPORTS[name]
    family = FAMILIES[name]
    assert (family.data_kind, family.support_text, " ".join(family.roles)) == (kind, support, words)


@cases.over_families()
def test_kind_and_support_are_those_of_the_distributions_it_makes(name: str) -> None:
    family = FAMILIES[name]
    assert family.data_kind == built_families.computed_kind(family)
    assert family.support_text == built_families.computed_support(family)


def test_catalogue_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    assert all(catalogue(name) for name in FAMILIES)
    assert torch.equal(torch.get_rng_state(), before)


# ---- a page --------------------------------------------------------------------------------------------------------


@cases.over_families()
def test_page_is_readable_and_complete(name: str) -> None:
    page = catalogue(name)
    assert page == catalogue(FAMILIES[name])
    assert max(map(len, page.splitlines())) <= 120
    assert not re.search(r"\\|\$|\b(?:frac|mathrm|tfrac|left|right|Big)\b", page)
    for opening, closing in ("()", "[]", "{}"):
        intervals = re.sub(r"[(\[][-\w., ]+, [-\w.+ ]+[)\]]", "", page)  # (0, 1] is no pair
        assert intervals.count(opening) == intervals.count(closing)
    doc = FAMILIES[name].__doc__ or ""
    for title in ("References", "Raises"):
        assert (f"\n{title}\n" in page) == (f"{title}:\n" in doc)
    for field in dataclasses.fields(FAMILIES[name]):
        described = re.search(rf"^ {{8}}{field.name}: (.*?)\n(?: {{0,8}}\S|\n)", doc, re.MULTILINE | re.DOTALL)
        assert described, f"the docstring of {name} says nothing of {field.name}"
        assert f" {field.name} {readable(' '.join(described[1].split()))}" in " ".join(page.split())


@cases.over_families()
def test_three_ways_of_writing_the_example_are_one(name: str) -> None:
    page = catalogue(name)
    python, yaml, command = (
        re.search(rf"^  {way} +(.*)$", page, re.MULTILINE)[1]  # type: ignore[index]
        for way in ("Python", "YAML", "command line")
    )
    role, family = example_of(FAMILIES[name])
    assert isinstance(family, FAMILIES[name])
    namespace: dict[str, Any] = {"pv": pv}
    exec(python, namespace)
    assert getattr(namespace["vae"].declaration, role) == family
    assert tables.from_dict(role, serialization.parse(yaml, "the page")[role]) == family
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("pyro-vae", "fit")
    assert Parser("fit", fit).parse(words)[role] == family


def test_unknown_name_is_given_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown family 'Laplac': did you mean 'Laplace'"):
        catalogue("Laplac")


# ---- the command line ------------------------------------------------------------------------------------------------


def test_verb_prints_the_list_a_page_and_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    for words, text in (
        ([], catalogue()),
        (["Normal"], catalogue("Normal")),
        (["--markdown", "true"], catalogue(markdown=True)),
    ):
        main(["families", *words])
        assert capsys.readouterr().out == text + "\n"
    with pytest.raises(SystemExit) as stopped:
        main(["families", "Norml"])
    assert stopped.value.code == 2
    assert "did you mean 'Normal'" in capsys.readouterr().err


# ---- formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tex", "shown"),
    [
        (r"$a$ and $b$", "a and b"),
        (r"$\frac1N$ of $\frac{a+b}{2c}$", "1/N of (a+b)/(2c)"),
        (r"$$ x \in \{0, 1\} $$", "x ∈ {0, 1}"),
        (r"$\frac{\Gamma(\frac{\nu+1}{2})}{\sqrt{\nu\pi}}$", "Γ((ν+1)/2)/√(νπ)"),
        (r"$\lVert L^{-1}(x - m)\rVert^2$", "‖L^(-1)(x - m)‖²"),
        (r"$\binom{n}{k} p^k$, $x^{23}$", "C(n, k) p^k, x^23"),
        (r"$p(z \mid x) = \mathcal N(0, I)$", "p(z | x) = N(0, I)"),
        (r"no maths, 5 \ 3", r"no maths, 5 \ 3"),
    ],
)
def test_formulas_become_unicode(tex: str, shown: str) -> None:
    assert readable(tex) == shown
