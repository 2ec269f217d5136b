"""Equivariance: fitting a x + b is fitting x, by the same random numbers, for every family closed under it."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from helpers.family_cases import CASES
from helpers.slow import slow_but
from torch import Tensor

import pyro_vae as pv
from pyro_vae.distributions.constraints import element_of
from pyro_vae.distributions.transformed import is_real
from pyro_vae.families import Family, units

EVENT, ROWS = (3,), 40

CLOSE = {"Flow": 1e-9}
"""Largest difference of weights after 60 epochs where it is not 1e-10: splines amplify the rounding of a x itself."""


def build(family: Family, dtype: torch.dtype = torch.float64) -> pv.VAE:
    torch.manual_seed(1)
    return pv.VAE(EVENT, 2, likelihood=family, encoder=pv.MLP(hidden=(8,))).to(dtype)


def is_in_the_users_unit(vae: pv.VAE) -> bool:
    """Whether a fixed number of the family has a unit, which stays the user's."""
    slots = vae.likelihood.slots.values()
    return any(slot.motion is not None and isinstance(slot.source, float | tuple) for slot in slots)


def closed_declarations() -> list[Any]:
    """Every declaration of a likelihood that is closed under changes of unit."""
    found = []
    for name, case in CASES.items():
        for number, family in enumerate(case.declarations if "likelihood" in case.roles else ()):
            try:
                vae = build(family)
            except pv.InputError:  # of other events, or a constant
                continue
            if vae.likelihood.group is not None and not is_in_the_users_unit(vae):
                found.append(pytest.param(name, family, id=f"{name}-{number}"))
    return found


def moved(family: Family, a: Tensor, b: Tensor) -> Family:
    """The family with the numbers that a user writes in the data's unit moved along."""
    if isinstance(family, pv.Truncated | pv.Censored):
        scale, shift = float(a.flatten()[0]), float(b.flatten()[0])
        ends = {name: getattr(family, name) for name in ("low", "high")}
        return dataclasses.replace(
            family, **{n: None if end is None else scale * end + shift for n, end in ends.items()}
        )
    if isinstance(family, pv.Scaled):
        loc, scale = (torch.as_tensor(number, dtype=torch.float64) for number in (family.loc, family.scale))
        return dataclasses.replace(family, loc=a * loc + b, scale=a * scale)
    return family


def fitted(family: Family, x: Tensor, epochs: int, dtype: torch.dtype = torch.float64) -> tuple[pv.VAE, float]:
    vae = build(family, dtype)
    history = pv.fit(vae, x, epochs=epochs, batch_size=20, optimizer=pv.Adam(0.01, clip_norm=5.0), progress=False)
    return vae, history.last["loss"]


def require_equivariance(name: str, family: Family, size: Tensor, place: float, epochs: int) -> None:
    """The weights after fitting a x + b are those after fitting x, and the loss is moved by log a per element."""
    case, generator = CASES[name], torch.Generator().manual_seed(3)
    x = case.data(ROWS, EVENT, generator).double()
    first, loss = fitted(family, x, epochs)
    moves_one_by_one = first.likelihood.unit.ndim and not isinstance(family, pv.Truncated | pv.Censored)
    a = size if moves_one_by_one else size[:1].expand(3)
    b = place * a * x.std(0) if first.likelihood.group == "location_scale" else torch.zeros(3, dtype=torch.float64)
    b = b if moves_one_by_one else b[:1].expand(3)
    second, other = fitted(moved(family, a, b), a * x + b, epochs)
    for (weight, value), twin in zip(first.named_parameters(), second.parameters(), strict=True):
        tolerance = CLOSE.get(name, 1e-10) if epochs > 2 else 1e-10
        torch.testing.assert_close(
            twin, value, rtol=0, atol=tolerance, msg=lambda said, weight=weight: f"{weight}: {said}"
        )
    ends = [getattr(family, name, None) for name in ("low", "high")] if isinstance(family, pv.Censored) else []
    masses = sum(int((x == end).sum()) for end in ends if end is not None)  # which are probabilities, and do not move
    per_row = float(a.log().sum()) * (1 - masses / x.numel())
    assert other - loss == pytest.approx(per_row, abs=1e-8)


@pytest.mark.parametrize(("name", "family"), closed_declarations())
def test_fit_is_equivariant(name: str, family: Family) -> None:
    require_equivariance(name, family, torch.tensor([1e-3, 7.0, 1e4], dtype=torch.float64), 1.0, epochs=2)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0.0, -1e3])
@pytest.mark.parametrize("size", [(1e-6, 1.0, 1e6), (1e6, 1e-6, 3.0)])
@pytest.mark.parametrize(("name", "family"), closed_declarations())
def test_long_fit_is_equivariant(name: str, family: Family, size: tuple[float, ...], place: float) -> None:
    require_equivariance(name, family, torch.tensor(size, dtype=torch.float64), place, epochs=60)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "likelihood" in case.roles])
def test_family_over_reals_or_positive_numbers_is_closed(name: str) -> None:
    try:
        likelihood = build(CASES[name].family).likelihood
    except pv.InputError:  # of vectors of another length
        pytest.skip("describes other events")
    support = element_of(likelihood.support)
    ends = [getattr(support, end, math.inf) for end in ("lower_bound", "upper_bound")]
    if support.is_discrete or support.event_dim:
        expected: Any = {None}
    elif is_real(support):
        expected = {"location_scale"}
    elif ends == [0.0, math.inf]:
        expected = {"scale", "location_scale"}  # of a truncated family the bound moves along
    else:
        expected = {None, "location_scale"}
    assert likelihood.group in expected


@pytest.mark.parametrize("place", [0.0, 1e3])
def test_fit_in_float32_is_equivariant(place: float) -> None:
    x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    first, loss = fitted(pv.Normal(), x, 20, torch.float32)
    a = torch.tensor([1e-6, 1.0, 1e6])
    second, other = fitted(pv.Normal(), a * x + place * a, 20, torch.float32)
    assert other - loss == pytest.approx(float(a.log().sum()), abs=3e-3)
    if not place:
        for value, twin in zip(first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(twin, value, rtol=0, atol=1e-5)


def test_measure_follows_from_each_column_alone() -> None:
    x = torch.randn(200, 3, dtype=torch.float64)
    alone = units.measure(x)[1]
    torch.testing.assert_close(units.measure(x * torch.tensor([1.0, 1e9, 1.0]))[1][::2], alone[::2])
    torch.testing.assert_close(units.measure(5 * x + 2)[1], 5 * alone)
    torch.testing.assert_close(units.measure(5 * x + 2)[0], 5 * units.measure(x)[0] + 2)


def test_measure_of_constant_columns_is_one() -> None:
    x = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    shift, unit = units.measure(x)
    assert unit.tolist() == [1.0, 1.0]
    assert shift.tolist() == [2.0, 7.0]
    assert units.measure(torch.tensor([[0.0, 7.0], [6.0, 7.0]]), is_common=True)[1].item() == 3.0


def test_measure_of_a_rare_exception_is_a_tenth_of_the_range() -> None:
    x = torch.zeros(10_001, 1)
    x[0] = 50.0
    assert units.measure(x)[1].item() == 5.0


def test_measure_of_images_leaves_unit_intensities_as_they_are() -> None:
    x = torch.rand(5, 1, 4, 4)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0.0, 1.0
    shift, unit = units.measure(x, is_image=True)
    assert unit.item() == 1.0
    assert shift.abs().max() == 0.0
    assert units.measure(255 * x, is_image=True)[1].item() == 255.0


def test_measure_of_heavy_tails_follows_quartiles() -> None:
    x = torch.distributions.Cauchy(3.0, 2.0).sample((4001, 1))
    shift, unit = units.measure(x, is_heavy=True)
    assert shift.item() == pytest.approx(3.0, abs=0.3)
    assert unit.item() == pytest.approx(2 * 2.0 / 1.349, rel=0.1)


@pytest.mark.parametrize("unit", slow_but([1e-3, 100.0], [1e-3, 0.1, 100.0, 1e4]))
def test_one_factor_is_found_in_any_unit(unit: float) -> None:
    generator = torch.Generator().manual_seed(0)
    loadings = torch.tensor([[1.0, -1.0, 1.0]])
    x = torch.randn(300, 1, generator=generator) @ loadings + 0.3 * torch.randn(300, 3, generator=generator)
    best = 0.5 * torch.logdet(2 * math.pi * math.e * torch.cov(x.T)).item()
    torch.manual_seed(0)
    vae = pv.VAE((3,), 1, likelihood=pv.Normal(scale="learned"), encoder=pv.MLP(hidden=(16,)))
    loss = pv.fit(vae, unit * x, epochs=40, batch_size=32, optimizer=pv.Adam(5e-3), progress=False).last["loss"]
    assert loss - 3 * math.log(unit) < best + 0.25
