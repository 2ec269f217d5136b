"""One rule for every parameter of every family in every role: where its value comes from."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from helpers import cases
from helpers.cases import Place, Shape
from torch import Tensor, nn
from torch.distributions import transform_to

import pyro_vae as pv
from pyro_vae.core.errors import InputError
from pyro_vae.distributions.constraints import Ordered
from pyro_vae.families import FAMILIES, Family
from pyro_vae.families.base import Composite
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.site import SiteSpec

CLOSED = [name for name in FAMILIES if cases.FAMILIES[name].closed]

each_parameter = pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in CLOSED for key in FAMILIES[name].parameters]
)


def trained(name: str) -> list[str]:
    """The parameters of a family that can be trained: all but integers."""
    return [key for key, parameter in FAMILIES[name].parameters.items() if parameter.trainable]


each_trained = pytest.mark.parametrize(("name", "key"), [(name, key) for name in CLOSED for key in trained(name)])


def event_of(name: str) -> Shape:
    """The first event shape that is not one number, if there is one."""
    shapes = cases.events(cases.FAMILIES[name].family)
    return next((shape for shape in shapes if shape), shapes[0])


def with_source(name: str, key: str, source: Any) -> Family:
    return dataclasses.replace(cases.FAMILIES[name].family, **{key: source})


def likelihood(family: Family, event: Shape, network: nn.Module | None = None) -> Conditional:
    """That family as a likelihood, its other parameters from a network."""
    if not any(getattr(family, name) is None for name in family.parameters):  # it would not depend on z
        pytest.skip("its only parameter is a constant, which is refused: see below")
    return Place("likelihood", event, (2,)).build(family, network)


def everywhere(family: Family, event: Shape) -> list[tuple[Conditional, Any]]:
    """A family as a prior and, if something is left to compute, as a likelihood, each with a context for it."""
    built: list[tuple[Conditional, Any]] = [(Place("prior", event).build(family), None)]
    if any(getattr(family, name) is None for name in family.parameters):
        built.append((Place("likelihood", event, (2,)).build(family), torch.randn(3, 2)))
    return built


def constants(conditional: Conditional) -> dict[str, Shape]:
    """The trained tensors that no network holds."""
    names = conditional.named_parameters()
    return {name: tuple(p.shape) for name, p in names if not name.startswith("network.")}


def value_of(conditional: Conditional, key: str, context: Tensor | None) -> Tensor:
    return conditional.values(context)[key].detach()


def full_shape(name: str, key: str, event: Shape) -> Shape:
    family = cases.FAMILIES[name].family
    return tuple(family.parameters[key].shape(event, family))


# ---- the source rule ---------------------------------------------------------------------------------------------


@each_parameter
def test_array_is_fixed(name: str, key: str) -> None:
    event = event_of(name)
    array = cases.FAMILIES[name].parameters(event, cases.seeded())[key]
    family = with_source(name, key, array)
    for written in (array.tolist(), tuple(array.tolist()), array.numpy()):
        assert with_source(name, key, written) == family
        assert hash(with_source(name, key, written)) == hash(family)
    for conditional, context in everywhere(family, event):
        assert f"constants.{key}" not in constants(conditional)
        assert not [entry for entry in conditional.state_dict() if key in entry.split(".")[-1].split("_", 1)]
        value = value_of(conditional, key, context)
        expected = array.float()
        torch.testing.assert_close(value, expected.expand(value.shape), rtol=1e-6, atol=1e-6)


@each_parameter
def test_number_is_fixed_for_every_element(name: str, key: str) -> None:
    if FAMILIES[name].parameters[key].constraint.event_dim:
        with pytest.raises(InputError, match="outside of its range"):
            with_source(name, key, 1)
        return
    event = event_of(name)
    for conditional, context in everywhere(with_source(name, key, 1), event):
        assert f"constants.{key}" not in constants(conditional)
        value = value_of(conditional, key, context)
        assert torch.equal(value.expand(full_shape(name, key, event)), torch.ones(full_shape(name, key, event)))


@each_trained
def test_learned_is_one_trained_number(name: str, key: str) -> None:
    if not FAMILIES[name].parameters[key].allows_scalar:
        with pytest.raises(InputError, match="learned"):
            with_source(name, key, "learned")
        return
    event = event_of(name)
    transform = transform_to(FAMILIES[name].parameters[key].constraint)
    for conditional, context in everywhere(with_source(name, key, "learned"), event):
        assert constants(conditional)[f"constants.{key}"] == ()
        with torch.no_grad():
            conditional.constants[key].fill_(0.7)
        value, expected = value_of(conditional, key, context), transform(torch.tensor(0.7))
        torch.testing.assert_close(value, expected.expand(value.shape))
        assert value.expand(full_shape(name, key, event)).numel() > 1
        torch.testing.assert_close(conditional.trained_value(key), expected)


@each_trained
def test_per_feature_is_one_trained_number_for_each_element(name: str, key: str) -> None:
    event = event_of(name)
    shape = cases.raw_shapes(cases.FAMILIES[name].family, event)[key]
    raw = torch.randn(shape, generator=cases.seeded())
    expected = transform_to(FAMILIES[name].parameters[key].constraint)(raw)
    for conditional, context in everywhere(with_source(name, key, "per_feature"), event):
        assert constants(conditional)[f"constants.{key}"] == shape
        with torch.no_grad():
            conditional.constants[key].copy_(raw)
        torch.testing.assert_close(conditional.trained_value(key), expected)
        assert expected.shape == full_shape(name, key, event)
        value = value_of(conditional, key, context)
        torch.testing.assert_close(value, expected.expand(value.shape))


@each_trained
def test_parameters_without_constants_depend_on_the_context(name: str, key: str) -> None:
    event, family = event_of(name), cases.FAMILIES[name].family
    for network in (None, cases.NETWORKS["MLP"].network):
        conditional = likelihood(family, event, network)
        assert constants(conditional) == {}
        value = value_of(conditional, key, torch.randn(3, 2))
        assert value.shape == (3, *full_shape(name, key, event))
        assert not torch.allclose(value[0], value[1])


@each_trained
def test_parameters_without_a_context_are_per_feature(name: str, key: str) -> None:
    event, family = event_of(name), cases.FAMILIES[name].family
    prior, explicit = (Place("prior", event).build(f) for f in (family, with_source(name, key, "per_feature")))
    assert constants(prior) == constants(explicit)
    assert constants(prior)[f"constants.{key}"] == cases.raw_shapes(family, event)[key]
    assert prior.network is None


@each_trained
def test_parameters_may_be_constants_except_one(name: str, key: str) -> None:
    """Every mixture of sources has the context's batch shape, whichever parameter follows it."""
    family, event = cases.FAMILIES[name].family, event_of(name)
    values = cases.FAMILIES[name].parameters(event, cases.seeded())
    for source in ("per_feature", "fixed"):
        others = {k: values[k] if source == "fixed" else source for k in trained(name) if k != key}
        distribution = likelihood(dataclasses.replace(family, **others), event)(torch.randn(2, 4, 2))
        assert (distribution.batch_shape, distribution.event_shape) == ((2, 4), event)
        x = cases.FAMILIES[name].data(1, event, cases.seeded()).float()
        log_prob = distribution.log_prob(x)
        assert log_prob.shape == (2, 4)
        assert len(log_prob.flatten().unique()) > 1


@pytest.mark.parametrize("name", CLOSED)
def test_fixed_values_follow_the_type(name: str) -> None:
    event = event_of(name)
    family, values = cases.FAMILIES[name].fixed(event, cases.seeded())
    conditional = Place("prior", event).build(family)
    assert list(conditional.parameters()) == []
    assert list(conditional.state_dict()) == ["initialized"]
    x = cases.FAMILIES[name].data(2, event, cases.seeded())
    assert conditional().log_prob(x.float()).dtype == torch.float32
    conditional.to(torch.float64)
    assert conditional.device_tensor.dtype == torch.float64
    assert conditional().log_prob(x).dtype == torch.float64
    for key in values:
        assert conditional.values()[key].dtype == torch.float64


# ---- a conditional is a module -------------------------------------------------------------------------------------


@cases.over_places(variants=True)
def test_gradient_reaches_every_parameter(name: str, family: Family, place: Place) -> None:
    conditional = place.build(family)
    trained = [key for key, slot in conditional.slots.items() if not is_fixed(slot.source)]
    if cases.FAMILIES[name].closed:
        assert bool(list(conditional.parameters())) == bool(trained)
    else:  # an Aggregate's density has its turn after training
        trained = [key for key, _ in conditional.named_parameters() if "density" not in key]
    distribution = conditional(place.contexts((8,), cases.seeded()))
    x = cases.FAMILIES[name].data(8, place.event, cases.seeded()).float()
    losses = [distribution.log_prob(x).sum()]
    if distribution.has_rsample and trained:
        losses.append(distribution.rsample((5,)).pow(3).sum())
    for loss in losses:
        conditional.zero_grad()
        if trained:
            loss.backward(retain_graph=True)
        for key, weight in conditional.named_parameters():
            if "density" in key:
                continue
            assert weight.grad is not None, key
            assert bool(torch.isfinite(weight.grad).all()), key
            assert bool((weight.grad != 0).any()), key


def is_fixed(source: Any) -> bool:
    return source is not None and not isinstance(source, str)


@cases.over_places(variants=True, networks=["MLP"])
def test_saved_weights_give_the_same_distribution(name: str, family: Family, place: Place) -> None:
    x = cases.FAMILIES[name].data(8, place.event, cases.seeded()).float()
    first, second = place.build(family), place.build(family)
    first.initialize(x)
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    context = place.contexts((8,), cases.seeded())
    ours = first(context).log_prob(x)
    if cases.FAMILIES[name].closed and list(first.parameters()):
        assert not torch.equal(second(context).log_prob(x), ours)
    second.load_state_dict(first.state_dict())
    for again in (second, copy.deepcopy(first)):
        assert torch.equal(again(context).log_prob(x), ours)
        assert bool(again.initialized)


@cases.over_places(variants=True, networks=["MLP"])
def test_initializing_twice_changes_nothing(name: str, family: Family, place: Place) -> None:
    x = cases.FAMILIES[name].data(20, place.event, cases.seeded()).float()
    other = cases.FAMILIES[name].data(9, place.event, cases.seeded(1)).float()
    conditional = place.build(family)
    before = copy.deepcopy(conditional.state_dict())
    assert not bool(conditional.initialized)
    conditional.initialize(x)
    after = copy.deepcopy(conditional.state_dict())
    assert bool(conditional.initialized)
    starting = [key for key, slot in conditional.slots.items() if slot.init and not is_fixed(slot.source)]
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed - {"shift", "unit"} <= {
        "initialized",
        *(f"{kind}{key}" for key in starting for kind in ("constants.", "offset_")),
    }
    assert {"initialized"} <= changed
    conditional.initialize(other)
    assert cases.same(after, conditional.state_dict())
    loaded = place.build(family)
    loaded.load_state_dict(after)
    loaded.initialize(other)
    assert cases.same(after, loaded.state_dict())


@each_trained
def test_starting_values_reach_every_source(name: str, key: str) -> None:
    case, event = cases.FAMILIES[name], event_of(name)
    x = case.data(30, event, cases.seeded())
    start = case.start(x)[key]
    parameter = FAMILIES[name].parameters[key]
    for source in ("per_feature", "learned") if parameter.allows_scalar else ("per_feature",):
        with cases.in_float64():
            conditional = Place("prior", event).build(with_source(name, key, source))
        conditional.initialize(x)
        expected = start.mean() if source == "learned" else start
        torch.testing.assert_close(conditional.trained_value(key), expected, rtol=1e-6, atol=1e-6)


@each_trained
def test_network_adds_to_the_starting_value(name: str, key: str) -> None:
    case, event = cases.FAMILIES[name], event_of(name)
    x, transform = case.data(30, event, cases.seeded()), transform_to(FAMILIES[name].parameters[key].constraint)
    emitter = cases.HeadedNetwork({k: torch.randn(s) for k, s in cases.raw_shapes(case.family, event).items()}).double()
    with cases.in_float64():
        conditional = Place("likelihood", event, (2,)).build(case.family, emitter)
    conditional.initialize(x)
    start, moved = cases.starting_values(conditional, case, x)
    expected = moved(key, transform(transform.inv(start[key]) + emitter.outputs[key]))
    value = value_of(conditional, key, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(value, expected.detach(), rtol=1e-6, atol=1e-6)


class Frozen(nn.Module):
    """A user's own network, one part of which stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen, self.body = nn.BatchNorm1d(2), nn.BatchNorm1d(2).eval(), nn.Linear(2, 3)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.body(self.frozen(self.norm(rows)))
        return out


def test_dry_run_leaves_modes_and_statistics_as_they_were() -> None:
    conditional = Place("likelihood", (3,), (2,)).build(pv.Normal(scale=1), Frozen())
    before = copy.deepcopy(conditional.state_dict())
    modes = {name: part.training for name, part in conditional.named_modules()}
    assert set(modes.values()) == {True, False}
    assert conditional.dummy_distribution().batch_shape == (2,)
    assert conditional.support.event_dim == 1
    assert {name: part.training for name, part in conditional.named_modules()} == modes
    assert cases.same(before, conditional.state_dict())


@cases.over_places()
def test_dry_run_knows_the_support(name: str, family: Family, place: Place) -> None:
    conditional = place.converted(place.build(family), torch.float64)
    distribution = conditional.dummy_distribution()
    assert distribution.batch_shape == (() if place.context is None else (2,))
    assert distribution.event_shape == place.event
    assert bool(conditional.support.check(cases.FAMILIES[name].data(5, place.event, cases.seeded())).all())
    assert repr(family) in repr(conditional)


# ---- what is refused ---------------------------------------------------------------------------------------------


def constant(family: Family) -> Family:
    """That family, nothing of it or of what it is made of left to a network."""
    changes: dict[str, Any] = dict.fromkeys(trained(type(family).__name__), "per_feature")
    if isinstance(family, Composite):
        changes["family"] = constant(family.family)
    return dataclasses.replace(family, **changes)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize(("role", "context"), [("likelihood", "z"), ("guide", "x")])
def test_constants_alone_are_refused_where_there_is_a_context(name: str, role: str, context: str) -> None:
    event = event_of(name)
    family = constant(cases.FAMILIES[name].family)
    free = next(iter(family.parameters or family.bind(SiteSpec("prior", event)).slots))
    message = rf"^{role}: every parameter of .* nothing would depend on {context}: leave {free} out, as in {name}\("
    with pytest.raises(InputError, match=message):
        Place(role, event, (2,)).build(family)


@each_parameter
def test_array_of_another_shape_is_refused(name: str, key: str) -> None:
    event = event_of(name)
    if FAMILIES[name].parameters[key].constraint.event_dim == 2:
        wrong, shape = torch.eye(2), r"\(2, 2\)"
    elif isinstance(FAMILIES[name].parameters[key].constraint, Ordered):
        wrong, shape = torch.arange(2.0), r"\(2,\)"
    else:
        size = full_shape(name, key, event)[-1] + 1
        wrong, shape = torch.ones(size), rf"\({size},\)"
    with pytest.raises(InputError, match=rf"^prior: {name}.{key} has shape {shape}, .* the parameter's shape \("):
        Place("prior", event).build(with_source(name, key, wrong))


@pytest.mark.parametrize("network", [None, pv.MLP])
def test_context_needs_a_network(network: Any) -> None:
    with pytest.raises(InputError, match=r"^guide Normal: .* is not a network: declare one, such as pv.MLP"):
        Conditional(pv.Normal(), SiteSpec("guide", (3,), (2,), network))


def test_wrong_own_network_is_refused_with_the_parameters_it_has_to_return() -> None:
    with pytest.raises(InputError, match=r"likelihood Normal: .* returns 1 tensor; .*loc: \(N, 3\), scale: \(N, 3\)"):
        Place("likelihood", (3,), (2,)).build(pv.Normal(), nn.Linear(2, 3))
    with pytest.raises(InputError, match=r"likelihood Normal: .* loc of shape \(2, 4\) .* has to be \(2, 3\)"):
        Place("likelihood", (3,), (2,)).build(pv.Normal(scale="learned"), nn.Linear(2, 4))
    with pytest.raises(InputError, match=r"likelihood Normal: your network fails on rows of shape \(2, 2\)"):
        Place("likelihood", (3,), (2,)).build(pv.Normal(scale="learned"), nn.Linear(5, 3))
