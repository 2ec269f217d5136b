"""Where the parameters of every family start, and what no parameter may be."""

import dataclasses
import math
import pickle
from typing import Any

import pytest
import torch
from helpers import cases
from helpers.cases import Place
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.distributions.constraints import Bounded, Ordered
from pyro_vae.families import FAMILIES, Family
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.site import SiteSpec
from pyro_vae.networks import MLP


def test_parameters_list_trainable_ones_first() -> None:
    assert list(FAMILIES["BetaBinomial"].parameters) == ["concentration1", "concentration0", "total_count"]
    with pytest.raises(InputError, match=r"nothing would depend on z: leave logits out"):
        Conditional(FAMILIES["Binomial"](10, logits=0), SiteSpec("likelihood", (2,), (3,), MLP()))


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


# ---- starting values -------------------------------------------------------------------------------------------


def test_starting_values_survive_pickling() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    conditional = Conditional(FAMILIES["Gamma"](), SiteSpec("prior", (2,)))
    copied = pickle.loads(pickle.dumps(conditional))
    for one in (conditional, copied):
        one.initialize(x)
    assert torch.equal(copied.trained_value("rate"), conditional.trained_value("rate"))
    assert not torch.equal(copied.trained_value("rate"), torch.ones(2))


TWO_ROWS = torch.zeros(2, 2, dtype=torch.float64)


def started(name: str, x: Tensor) -> Conditional:
    """A likelihood whose network says 0, initialised with rows, in float64."""
    family, event = cases.FAMILIES[name].family, tuple(x.shape[1:])
    with cases.in_float64():
        conditional = Place("likelihood", event, (2,)).build(family, cases.HeadedNetwork.of(family, event, 0.0))
    conditional.initialize(x)
    return conditional


def with_a_constant_element(x: Tensor) -> Tensor:
    """Those rows, the first element of an event alike in all of them."""
    flat = x.reshape(len(x), -1).clone()
    flat[:, 0] = flat[0, 0]
    return flat.reshape(x.shape)


@cases.over_families("likelihood")
def test_starting_values_are_the_datas(name: str) -> None:
    case = cases.FAMILIES[name]
    for event in cases.events(case.family):
        rows = case.data(50, event, cases.seeded())
        for x in (rows, with_a_constant_element(rows), rows[:1]):
            conditional = started(name, x)
            values = conditional.values(TWO_ROWS)
            start, moved = cases.starting_values(conditional, case, x)
            for key, value in values.items():
                if key in start:
                    expected = moved(key, start[key])
                    torch.testing.assert_close(value, expected.expand(value.shape), rtol=1e-6, atol=1e-6)


@cases.over_families("likelihood")
def test_initial_mean_is_the_datas(name: str) -> None:
    case = cases.FAMILIES[name]
    for event in cases.events(case.family):
        x = case.data(50, event, cases.seeded())
        distribution = started(name, x)(TWO_ROWS)
        if not case.closed_mean:
            with pytest.raises(NotImplementedError):
                _ = distribution.mean
        elif case.values is None or case.start_mean is not None:
            expected = (case.start_mean or (lambda x: x.mean(0)))(x)
            torch.testing.assert_close(
                distribution.mean, expected.expand(2, *event), rtol=0, atol=1e-6, equal_nan=not case.moments
            )
        else:  # the shares under Jeffreys's prior, one half of a row for each value
            counts = torch.stack([(x == value).double().sum(0) for value in case.values])
            shares = (counts + 0.5) / (50 + len(case.values) / 2)
            elements = getattr(distribution, "base_dist", distribution)
            for value, share in zip(case.values, shares, strict=True):
                ours = elements.log_prob(torch.full(event, value, dtype=torch.float64)).exp()
                torch.testing.assert_close(ours, share.expand(2, *event), rtol=0, atol=1e-6)


@cases.over_places(variants=True, networks=["MLP"])  # they do not depend on the network
def test_starting_values_are_finite_on_degenerate_data(name: str, family: Family, place: Place) -> None:
    rows = cases.FAMILIES[name].data(6, place.event, cases.seeded()).float()
    for x in (rows, with_a_constant_element(rows), rows[:1], rows[:1].expand(6, *place.event)):
        conditional = place.build(family)
        conditional.initialize(x)
        assert all(bool(torch.isfinite(value).all()) for value in conditional.state_dict().values())
        distribution = conditional(place.contexts((len(x),), cases.seeded()))
        assert bool(torch.isfinite(distribution.log_prob(x)).all())


# ---- what is refused -------------------------------------------------------------------------------------------

each_parameter = pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, family in FAMILIES.items() for key in family.parameters]
)


@each_parameter
def test_wrong_sources_are_refused(name: str, key: str) -> None:
    family = cases.FAMILIES[name].family
    wrong: list[tuple[Any, str]] = [
        ("lerned", r"unknown source of .*, 'lerned': did you mean 'learned'\?"),
        ("perfeature", r"did you mean 'per_feature'\?"),
        (math.nan, "is not a source of a parameter"),
        (math.inf, "is not a source of a parameter"),
        (True, "is not a source of a parameter"),
        ([1.0, None], "is not a source of a parameter"),
        ({"a": 1}, "is not a source of a parameter"),
        (1j, "is not a source of a parameter"),
        ([], "ragged or empty"),
        ([[1.0], [1.0, 2.0]], "ragged or empty"),
        (torch.zeros(2, 0), "ragged or empty"),
    ]
    for value, message in wrong:
        with pytest.raises(InputError, match=message) as error:
            dataclasses.replace(family, **{key: value})
        assert f"{name}.{key}" in str(error.value)


@each_parameter
def test_values_outside_of_the_range_are_refused(name: str, key: str) -> None:
    case = cases.FAMILIES[name]
    constraint = FAMILIES[name].parameters[key].of_fixed_numbers
    if isinstance(constraint, Bounded):
        lower, upper = constraint.lower_bound, constraint.upper_bound
        for value in (lower, upper):
            assert getattr(dataclasses.replace(case.family, **{key: value}), key) == value
        outside: list[Any] = [lower / 2, -1, upper * 2, [1.0, lower / 2]]
    elif constraint.is_discrete:
        assert getattr(dataclasses.replace(case.family, **{key: 3}), key) == 3
        outside = [constraint.lower_bound - 1, constraint.lower_bound + 0.5, constraint.upper_bound + 1, [1, 1.5]]
    elif constraint.event_dim == 2:
        outside = [1.0, [[1, 1], [0, 1]], [[1, 0], [0, -1]]]
    elif isinstance(constraint, Ordered):
        for value in (-constraint.ceiling, constraint.ceiling):
            assert getattr(dataclasses.replace(case.family, **{key: [value]}), key) == (value,)
        outside = [1.0, [0, 0], [1, 0], [0, constraint.gap / 2], [-constraint.ceiling - 1, 0], [[0, 1], [1, 0]]]
    else:
        assert getattr(dataclasses.replace(case.family, **{key: -1e30}), key) == -1e30
        return
    for value in outside:
        with pytest.raises(InputError, match=rf"{name}.{key} = .* is outside of its range: "):
            dataclasses.replace(case.family, **{key: value})


@each_parameter
def test_learned_scalar_is_refused_where_it_has_no_meaning(name: str, key: str) -> None:
    family = cases.FAMILIES[name].family
    if not FAMILIES[name].parameters[key].trainable:
        with pytest.raises(InputError, match=rf"{name}.{key} = 'learned' .* is an integer: write {key}=10"):
            dataclasses.replace(family, **{key: "learned"})
    elif FAMILIES[name].parameters[key].allows_scalar:
        assert getattr(dataclasses.replace(family, **{key: "learned"}), key) == "learned"
    else:
        with pytest.raises(InputError, match=rf"{name}.{key} = 'learned' .* write {key}='per_feature'"):
            dataclasses.replace(family, **{key: "learned"})
