"""Training starts at finite numbers for every likelihood on every standard data set, in its raw units."""

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import cases
from sklearn import datasets
from torch import Tensor

import pyro_vae as pv
from pyro_vae.families import FAMILIES, Family


def _table(load: Callable[..., tuple[object, object]]) -> Tensor:
    return torch.as_tensor(load(return_X_y=True)[0], dtype=torch.float32)


DATA: dict[str, Callable[[], Tensor]] = {
    "iris": lambda: _table(datasets.load_iris),
    "wine": lambda: _table(datasets.load_wine),
    "breast cancer": lambda: _table(datasets.load_breast_cancer),
    "digits": lambda: pv.data.load("digits").train.x.flatten(1),
}


def _unit(x: Tensor) -> Tensor:
    """Each column from 0 to 1; a constant one is 0."""
    low, high = x.amin(0), x.amax(0)
    return (x - low) / torch.where(high > low, high - low, 1)


def readings(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The ways of reading a table of real numbers, from as it is to labels."""
    unit = _unit(x)
    yield "raw", x
    yield "from 1", x - x.amin() + 1
    yield "integers", x.clamp(min=0).round()
    yield "share of the range", unit
    yield "inside of the range", 0.01 + 0.98 * unit
    yield "shares of the row", (0.01 + unit) / (0.01 + unit).sum(1, keepdim=True)
    yield "halves", unit.round()
    yield "thirds", (2 * unit).round()
    yield "largest", torch.nn.functional.one_hot(unit.argmax(1), x.shape[1]).float()


def reading(family: Family, x: Tensor) -> Tensor:
    """The first reading that a likelihood takes."""
    vae = pv.VAE((x.shape[1],), 2, likelihood=family, encoder=pv.MLP(hidden=(4,)))
    for _, values in readings(x):
        try:
            vae.check({"x": values})
        except pv.InputError:
            continue
        return values
    raise LookupError(f"no reading of these data lies in the support of {family!r}: add one.")


@pytest.mark.parametrize("name", [name for name in FAMILIES if "likelihood" in cases.FAMILIES[name].roles])
def test_training_starts_at_finite_numbers(name: str) -> None:
    family = cases.FAMILIES[name].family
    for data, load in DATA.items():
        x = reading(family, load())
        torch.manual_seed(0)
        vae = pv.VAE((x.shape[1],), 2, likelihood=family, encoder=pv.MLP(hidden=(16,)))
        history = pv.fit(vae, x[:128], epochs=1, batch_size=64, progress=False)
        assert all(torch.tensor(history["loss"]).isfinite()), data
        assert all(weight.isfinite().all() for weight in vae.parameters()), data
