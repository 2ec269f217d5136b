"""Every family is the distribution that its formula says, in every place that it allows."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import cases
from helpers.cases import Place, Shape
from helpers.family_case import FamilyCase
from torch import Tensor
from torch.distributions import biject_to, transform_to
from torch.distributions.constraints import real_vector, simplex

import pyro_vae as pv
from pyro_vae.core.errors import InputError
from pyro_vae.distributions.constraints import element_of
from pyro_vae.families import FAMILIES, Family
from pyro_vae.families.site import SiteSpec

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def small_events(case: FamilyCase) -> Sequence[Shape]:
    """Event shapes small enough to integrate over: a number, or vectors of one and two where only vectors are."""
    ranks = case.family.event_ranks
    return case.small or ([()] if ranks is None or 0 in ranks else [(1,), (2,)])


over_small_events = pytest.mark.parametrize(
    ("name", "event"),
    [
        pytest.param(name, event, id=f"{name}-{len(event) and event[0]}")
        for name in FAMILIES
        for event in small_events(cases.FAMILIES[name])
    ],
)


def random_prior(name: str, event: Shape) -> Any:
    """A family with random fixed parameters as a prior, in float64: its distribution, on a simplex by log ratios."""
    with cases.in_float64():
        distribution = Place("prior", event).build(cases.FAMILIES[name].fixed(event, cases.seeded())[0])()
    return LogRatios(distribution) if distribution.support is simplex else distribution


class LogRatios:
    """A density over a simplex as one of log(x_d / x_D), d < D, without an edge: its measure is that of D-1 shares."""

    support = real_vector

    def __init__(self, distribution: Any) -> None:
        self.distribution = distribution
        self.event_shape = (distribution.event_shape[0] - 1,)

    def sample(self, shape: Shape) -> Tensor:
        logs = self.distribution.sample(shape).log()
        return logs[..., :-1] - logs[..., -1:]

    def log_prob(self, ratios: Tensor) -> Tensor:
        logs = torch.nn.functional.pad(ratios, (0, 1)).log_softmax(-1)
        shares = logs.exp().clamp(min=torch.finfo(logs.dtype).tiny)
        density: Tensor = self.distribution.log_prob(shares)
        return density + logs.sum(-1)


def atoms(
    distribution: Any, values: tuple[float, ...] | None, apart: tuple[float, ...] = ()
) -> tuple[list[Tensor], Tensor]:
    """Grid values of each element, and the probability mass at each point of their product.

    A discrete element takes its `values`; a continuous one lies on the nodes of a double-exponential rule, on the
    real line that its support is mapped to. Values with a mass of their own, `apart`, come first.
    """
    draws = distribution.sample((1000,)).reshape(1000, -1).T
    size = len(draws)
    axes, log_weights = [], []
    for element in draws:
        if values is not None:
            axes.append(torch.tensor(values, dtype=torch.float64))
            log_weights.append(torch.zeros(len(values), dtype=torch.float64))
            continue
        transform = biject_to(element_of(distribution.support))
        lower, centre, upper = transform.inv(element.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)))
        t, step = (
            torch.linspace(-4.2, 4.2, 4001 if size == 1 else 401, dtype=torch.float64),
            8.4 / (4000, 400)[size > 1],
        )
        inner, width = math.pi / 2 * t.sinh(), (upper - lower) / 2
        line = centre + width * inner.sinh()
        slope = width * inner.cosh() * math.pi / 2 * t.cosh()
        x = transform(line)
        inside = element_of(distribution.support)
        number = inside.check(x) & x.isfinite()  # and not 0 or infinity for want of exponents
        axes.append(torch.cat([torch.tensor(apart, dtype=torch.float64), x[number]]))
        slope, jacobian = slope[number], transform.log_abs_det_jacobian(line, x)[number]
        log_weights.append(torch.cat([torch.zeros(len(apart), dtype=torch.float64), (slope * step).log() + jacobian]))
    points = torch.cartesian_prod(*axes).reshape(-1, *distribution.event_shape)
    log_weight = torch.cartesian_prod(*log_weights).reshape(len(points), -1).sum(-1)
    masses = (distribution.log_prob(points).detach() + log_weight).exp()
    if values is not None:  # a formula may give any number where nothing can be
        masses = masses.where(distribution.support.check(points), 0)
    return axes, masses.reshape([len(axis) for axis in axes])


# ---- the table ---------------------------------------------------------------------------------------------------


def test_table_and_cases_agree() -> None:
    assert set(cases.FAMILIES) == set(FAMILIES)
    for name, family in FAMILIES.items():
        assert family.__name__ == name
        assert getattr(pv, name) is family
        assert all(isinstance(declared, family) for declared in cases.FAMILIES[name].declarations)
        assert set(family.parameters) <= {field.name for field in dataclasses.fields(family)}


def test_table_entry_without_a_case_fails() -> None:
    with pytest.raises(LookupError, match=r"tests/helpers/cases\.py"):
        cases.FAMILIES["Unheard"]


@cases.over_families()
def test_family_is_a_guide_where_it_can_be_reparameterised(name: str) -> None:
    case = cases.FAMILIES[name]
    if case.closed:
        assert ("guide" in case.roles) == Place("prior", (2,)).build(case.family)().has_rsample
    parts: dict[str, Any] = {"prior": case.family, "guide": case.family, "encoder": pv.MLP(hidden=(2,))}
    if "guide" in case.roles:
        pv.VAE((2,), 3, **parts)
    else:
        with pytest.raises(
            InputError,
            match=r"cannot be reparameterised.* objective=pv.objectives.RWS\(\)|can only be a prior|has point masses",
        ):
            pv.fit(pv.VAE((2,), 3, **parts), torch.randn(10, 2), epochs=1, progress=False)


@cases.over_declarations()
def test_family_prints_hashes_and_compares_by_value(family: Family) -> None:
    assert eval(repr(family), dict(vars(pv))) == family
    assert hash(eval(repr(family), dict(vars(pv)))) == hash(family)
    assert copy.deepcopy(family) == family
    assert len({family, dataclasses.replace(family)}) == 1


@cases.over_families()
def test_ways_of_writing_differ(name: str) -> None:
    declarations = cases.FAMILIES[name].declarations
    assert len(set(declarations)) == len(declarations)


# ---- shapes ----------------------------------------------------------------------------------------------------


@cases.over_places(variants=True)
def test_family_shapes_are_batch_and_event(name: str, family: Family, place: Place) -> None:
    conditional = place.build(family)
    for leading in ((), *(cases.LEADING[1:] if place.context is not None else ())):
        distribution = conditional(place.contexts(leading, cases.seeded()))
        assert distribution.batch_shape == leading
        assert distribution.event_shape == place.event
        draws = distribution.sample((2, 1))
        assert draws.shape == (2, 1, *leading, *place.event)
        assert distribution.log_prob(draws).shape == (2, 1, *leading)
        x = cases.FAMILIES[name].data(3, place.event, cases.seeded()).float()
        assert distribution.log_prob(x.reshape(3, *[1] * len(leading), *place.event)).shape == (3, *leading)


@cases.over_families()
def test_event_ranks_are_kept(name: str) -> None:
    family = cases.FAMILIES[name].family
    for event in ((), (3,), (4, 3), (1, 5, 7)):
        if family.event_ranks is None or len(event) in family.event_ranks:
            assert Place("prior", event).build(family)().event_shape == event
        else:
            ranks = " or ".join(map(str, family.event_ranks))
            with pytest.raises(InputError, match=rf"^prior: {name} describes events of rank {ranks}, and .* has rank"):
                Place("prior", event).build(family)


# ---- densities -------------------------------------------------------------------------------------------------


@over_small_events
def test_density_is_normalised(name: str, event: Shape) -> None:
    _, masses = atoms(random_prior(name, event), cases.FAMILIES[name].values, cases.FAMILIES[name].masses)
    assert masses.sum().item() == pytest.approx(1, abs=1e-5)


@over_small_events
def test_draws_follow_the_density(name: str, event: Shape) -> None:
    distribution, count, values = random_prior(name, event), 20_000, cases.FAMILIES[name].values
    apart = cases.FAMILIES[name].masses
    axes, masses = atoms(distribution, values, apart)
    draws = distribution.sample((count,)).double().reshape(count, -1).T
    for i, (axis, drawn) in enumerate(zip(axes, draws, strict=True)):
        mass = masses.sum([j for j in range(len(axes)) if j != i]) if len(axes) > 1 else masses
        if cases.FAMILIES[name].moments:
            mean = (mass * axis).sum()
            second, fourth = (torch.where(mass > 0, mass * (axis - mean) ** k, 0).sum() for k in (2, 4))
            assert abs(drawn.mean() - mean) / (second / count).sqrt() < 4
            assert abs((drawn - mean).square().mean() - second) / ((fourth - second**2) / count).sqrt() < 4
        if values is not None:
            counts = torch.stack([(drawn == value).sum() for value in values]).double()
            assert counts.sum() == count
            expected = count * mass / mass.sum()
            seldom = expected < 5  # a tail, which is one class
            pooled = torch.stack([torch.cat([n[~seldom], n[seldom].sum()[None]]) for n in (counts, expected)])
            assert scipy.stats.chisquare(*pooled[:, pooled.sum(0) > 0]).pvalue > 1e-3
        else:
            for value, share in zip(apart, mass, strict=False):
                assert scipy.stats.binomtest(int((drawn == value).sum()), count, float(share)).pvalue > 1e-3
            drawn = drawn[~torch.isin(drawn, torch.tensor(apart, dtype=torch.float64))]
            axis, mass = axis[len(apart) :], mass[len(apart) :] / (1 - mass[: len(apart)].sum())
            below = (mass.cumsum(0) - mass / 2).numpy()
            cdf: Callable[[Any], Any] = lambda x, axis=axis, below=below: np.interp(x, axis.numpy(), below)  # noqa: E731
            assert scipy.stats.kstest(drawn.numpy(), cdf).pvalue > 1e-3
    for i, j in itertools.combinations(range(len(axes)), 2):
        a, b = ((draw - draw.mean()) for draw in (draws[i], draws[j]))
        joint = masses.movedim((i, j), (0, 1)).flatten(2).sum(-1) if len(axes) > 2 else masses
        grid = torch.cartesian_prod(axes[i], axes[j]).reshape(*joint.shape, 2)
        centred = grid - (joint[..., None] * grid).sum((0, 1))
        covariance = (joint * centred.prod(-1)).sum()
        assert abs((a * b).mean() - covariance) / ((a * b).std() / math.sqrt(count)) < 4


@cases.over_families()
def test_log_prob_is_scipys(name: str) -> None:
    case = cases.FAMILIES[name]
    if case.log_prob is None:
        pytest.skip("scipy does not have it")
    for event in cases.events(case.family):
        generator = cases.seeded()
        family, parameters = case.fixed(event, generator)
        x = case.data(20, event, generator)
        with cases.in_float64():
            ours = Place("prior", event).build(family)().log_prob(x)
        scipys = [np.sum(case.log_prob(row, **parameters)) for row in x.numpy()]
        np.testing.assert_allclose(ours.numpy(), scipys, rtol=1e-10, atol=1e-10)


@cases.over_families("likelihood")
def test_parameters_differ_between_rows(name: str) -> None:
    """A network that emits the raw form of random parameters, other ones for each row, gives scipy's densities."""
    case = cases.FAMILIES[name]
    if case.log_prob is None:
        pytest.skip("scipy does not have it")
    for event in cases.events(case.family):
        generator = cases.seeded()
        by_row = [case.parameters(event, generator) for _ in range(8)]
        stacked = {key: torch.stack([row[key] for row in by_row]) for key in by_row[0]}
        slots = case.family.bind(SiteSpec("likelihood", event, (2,))).slots
        raw = {
            key: transform_to(slot.constraint).inv(stacked[key]) for key, slot in slots.items() if slot.source is None
        }
        x = case.data(8, event, generator)
        with cases.in_float64():
            conditional = Place("likelihood", event, (2,)).build(case.family, cases.HeadedNetwork(raw, by_row=True))
            ours = conditional(torch.zeros(2, 4, 2)).log_prob(x.reshape(2, 4, *event))
        scipys = [
            np.sum(case.log_prob(row, **{key: value.numpy() for key, value in parameters.items()}))
            for row, parameters in zip(x.numpy(), by_row, strict=True)
        ]
        np.testing.assert_allclose(ours.detach().reshape(8).numpy(), scipys, rtol=1e-10, atol=1e-10)


def test_grey_bernoulli_says_that_it_is_unnormalised() -> None:
    assert all(not cases.FAMILIES[name].family.caveat for name in FAMILIES)
    assert "not a density" in pv.Bernoulli(grey=True).caveat
    grey = Place("prior", ()).build(pv.Bernoulli(logits=0.5, grey=True))()
    x = torch.linspace(0, 1, 101)
    assert bool(grey.support.check(x).all())
    assert torch.trapezoid(grey.log_prob(x).exp(), x).item() < 0.9
    plain = Place("prior", ()).build(pv.Bernoulli(logits=0.5))()
    assert plain.support.check(x).sum() == 2
    torch.testing.assert_close(grey.log_prob(x.round()), plain.log_prob(x.round()))


@cases.over_places()
def test_draws_and_data_lie_in_the_support(name: str, family: Family, place: Place) -> None:
    distribution = place.build(family)(place.contexts((6,), cases.seeded()))
    data = cases.FAMILIES[name].data(6, place.event, cases.seeded())
    for x in (distribution.sample(), data):
        assert bool(distribution.support.check(x).all())


# ---- extremes --------------------------------------------------------------------------------------------------


@DTYPES
@cases.over_families("likelihood")
def test_extreme_outputs_give_finite_densities(name: str, dtype: torch.dtype) -> None:
    case = cases.FAMILIES[name]
    event = cases.events(case.family)[-1]
    x = case.data(2, event, cases.seeded()).to(dtype)
    shapes, generator = cases.raw_shapes(case.family, event), cases.seeded()
    signs = [
        dict(zip(shapes, signs, strict=True)) for signs in itertools.product((-50.0, 0.0, 50.0), repeat=len(shapes))
    ]
    raws = [{key: torch.full(shape, sign[key]) for key, shape in shapes.items()} for sign in signs]
    raws += [
        {key: 50.0 * (2 * torch.randint(2, shape, generator=generator) - 1) for key, shape in shapes.items()}
        for _ in range(5)
    ]
    for raw in raws:
        emitter = cases.HeadedNetwork({key: value.to(dtype) for key, value in raw.items()})
        conditional = Place("likelihood", event, (2,)).build(case.family, emitter).to(dtype)
        distribution = conditional(torch.zeros(2, 2, dtype=dtype))
        for data in (x, distribution.sample()):
            log_prob = distribution.log_prob(data)
            assert log_prob.dtype == dtype
            assert bool(torch.isfinite(data).all())
            assert bool(torch.isfinite(log_prob).all())
            log_prob.sum().backward(retain_graph=True)
            for key, value in emitter.outputs.items():
                assert bool(torch.isfinite(value.grad).all()), key


@DTYPES
@cases.over_places()
def test_families_run_in_both_floating_types(name: str, family: Family, place: Place, dtype: torch.dtype) -> None:
    conditional = place.converted(place.build(family), dtype)
    distribution = conditional(place.contexts((2,), cases.seeded(), dtype))
    draws = distribution.sample()
    assert distribution.log_prob(draws).dtype == dtype
    assert draws.dtype == dtype or name in ("Categorical", "OrderedLogistic")
    conditional.initialize(cases.FAMILIES[name].data(4, place.event, cases.seeded()).to(dtype))
    assert conditional.dummy_distribution().log_prob(draws).dtype == dtype
    assert {t.dtype for t in conditional.state_dict().values() if t.is_floating_point()} <= {dtype}


@cases.over_places()
def test_draws_follow_the_seed(name: str, family: Family, place: Place) -> None:
    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return place.build(family)(place.contexts((5,), cases.seeded())).sample((50,))

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
