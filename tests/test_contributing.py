"""The family that CONTRIBUTING.md adds is one: its code runs as it is written there, and obeys the laws."""

import doctest
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from families import test_conditional, test_families, test_family_parameters
from helpers import cases
from helpers.run_readme import snippets

import pyro_vae as pv
from pyro_vae.core import serialization
from pyro_vae.families import FAMILIES
from pyro_vae.registry import tables

GUIDE = Path(__file__).parent.parent / "CONTRIBUTING.md"
NAME = "SoftLaplace"


@pytest.fixture(scope="module")
def written() -> Iterator[ModuleType]:
    """The snippets of the page, run in one module, and their family and case in the tables."""
    module = sys.modules["contributing"] = ModuleType("contributing")
    text = GUIDE.read_text(encoding="utf-8")
    for line, code in snippets(text, "python"):
        exec(compile("\n" * (line - 1) + code, GUIDE, "exec"), module.__dict__)
    assert NAME not in FAMILIES, f"{NAME} is in the table by now: let CONTRIBUTING.md add another family"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, NAME, module.SoftLaplace)
        patch.setitem(cases.FAMILIES, NAME, module.CASES[NAME])
        patch.setattr(pv, NAME, module.SoftLaplace, raising=False)
        yield module
    del sys.modules["contributing"]


LAWS: tuple[Callable[..., None], ...] = (
    test_families.test_table_and_cases_agree,
    test_families.test_family_is_a_guide_where_it_can_be_reparameterised,
    test_families.test_family_prints_hashes_and_compares_by_value,
    test_families.test_family_shapes_are_batch_and_event,
    test_families.test_density_is_normalised,
    test_families.test_draws_follow_the_density,
    test_families.test_log_prob_is_scipys,
    test_families.test_parameters_differ_between_rows,
    test_families.test_extreme_outputs_give_finite_densities,
    test_family_parameters.test_starting_values_are_the_datas,
    test_family_parameters.test_starting_values_are_finite_on_degenerate_data,
    test_family_parameters.test_wrong_sources_are_refused,
    test_conditional.test_gradient_reaches_every_parameter,
    test_conditional.test_saved_weights_give_the_same_distribution,
)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_contributed_family_obeys_the_laws(law: Callable[..., None], written: ModuleType) -> None:
    case = cases.FAMILIES[NAME]
    asked = set(inspect.signature(law).parameters)
    given: list[dict[str, Any]] = [{"name": NAME, "dtype": torch.float32, "event": ()}]
    if "key" in asked:
        given = [{"name": NAME, "key": key} for key in case.family.parameters]
    elif "place" in asked:
        given = [{"name": NAME, "family": one, "place": place} for one, place in some_places(case)]
    elif "family" in asked:
        given = [{"family": one} for one in case.declarations]
    for arguments in given:
        law(**{name: value for name, value in arguments.items() if name in asked})


def some_places(case: Any) -> Iterator[tuple[Any, Any]]:
    """Every declaration in one place for each role."""
    for role in case.roles:
        place = next(place for place in cases.places(case) if place.role == role and place.event == (3,))
        yield from ((family, place) for family in case.declarations if cases.fits(family, place))


def test_contributed_family_trains_in_every_role(written: ModuleType) -> None:
    family = written.SoftLaplace
    x = 5 + 3 * torch.randn(256, 1, generator=cases.seeded()) * torch.ones(4)  # one factor, and no noise
    roles = {"prior": family(0, 1), "likelihood": family(scale="learned"), "guide": family()}
    vae = pv.VAE((4,), 2, encoder=pv.MLP(hidden=(8,)), **roles)
    history = pv.fit(vae, x, epochs=10, batch_size=32, optimizer=pv.Adam(2e-2), progress=False)
    assert history["loss"][-1] < history["loss"][0] - 0.5
    assert vae.sample(3).shape == (3, 4)


def test_contributed_family_is_found_everywhere(written: ModuleType) -> None:
    family = written.SoftLaplace(scale="learned")
    assert tables.from_dict("prior", serialization.to_dict(family)) == family
    page = pv.catalogue(NAME)
    assert "p(x) = ∏_j 1/(π s_j) sech((x_j - m_j)/s_j)" in page
    assert "roles      prior, likelihood, guide" in page
    assert f"  {NAME}(loc, scale) " in pv.catalogue()


def test_contributed_family_has_a_docstring_that_runs(written: ModuleType) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(written.SoftLaplace, NAME, globs=vars(written))
    assert doctest.DocTestRunner().run(test) == doctest.TestResults(0, 1)
