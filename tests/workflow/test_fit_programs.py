"""Fitting programs that are no VAE, and what of programs, rows and settings is refused."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.cases import same
from helpers.fitting import ELBO, fit, rows, small, weights
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints

import pyro_vae as pv

# Programs that are no VAE: x_n ~ N(mean, 1), mean ~ N(0, 1), whose posterior is N(sum x / (N+1), 1 / (N+1))

NUMBERS = torch.linspace(0, 3, 20)
EVIDENCE = float(dist.MultivariateNormal(torch.zeros(20), torch.eye(20) + 1).log_prob(NUMBERS))


def model(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def fixed(x: Tensor) -> None:
    pyro.sample("mean", dist.Normal(0.0, 1.0))


def empty(x: Tensor) -> None:
    pass


def functions() -> Any:
    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("mean", dist.Normal(loc, scale))

    return SimpleNamespace(model=model, guide=guide, posterior=lambda: (pyro.param("loc"), pyro.param("scale")))


def pyro_modules() -> Any:
    class Model(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.mean = PyroSample(dist.Normal(0.0, 1.0))

        def forward(self, x: Tensor) -> None:
            mean = self.mean
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    mean_field = Model()
    guide = AutoNormal(mean_field)
    return SimpleNamespace(model=mean_field, guide=guide, posterior=lambda: (guide.locs.mean, guide.scales.mean))


def plain_modules() -> Any:
    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc, self.log_scale = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> None:
            pyro.sample("mean", dist.Normal(self.loc, self.log_scale.exp()))

    class Pair:
        def __init__(self) -> None:
            self.model, self.guide = model, Guide()

        def posterior(self) -> tuple[Tensor, Tensor]:
            return self.guide.loc, self.guide.log_scale.exp()

    return Pair()


def pyro_module_function() -> Any:
    weights = nn.ParameterDict({"loc": torch.zeros(()), "log_scale": torch.zeros(())})

    def guide(x: Tensor) -> None:
        pyro.module("weights", weights)
        pyro.sample("mean", dist.Normal(weights["loc"], weights["log_scale"].exp()))

    return SimpleNamespace(model=model, guide=guide, posterior=lambda: (weights["loc"], weights["log_scale"].exp()))


PROGRAMS = {
    "pyro.param": functions,
    "PyroModule and AutoNormal": pyro_modules,
    "torch modules": plain_modules,
    "pyro.module": pyro_module_function,
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_own_programs_train_to_the_exact_posterior(kind: str) -> None:
    pair = PROGRAMS[kind]()
    for lr in (0.1, 0.02):
        history = fit(
            pair, NUMBERS, epochs=70, batch_size=20, optimizer=pv.Adam(lr), objective=ELBO(20), seed=int(100 * lr)
        )
    loc, scale = (value.detach() for value in pair.posterior())
    deviation = math.sqrt(1 / 21)
    assert float(loc) == pytest.approx(float(NUMBERS.sum()) / 21, abs=0.25 * deviation)
    assert float(scale) == pytest.approx(deviation, rel=0.15)
    # one latent for all rows, and still the history counts nats per row
    assert history["loss"][-20:].mean() == pytest.approx(-EVIDENCE / 20, abs=0.01)


def test_parameter_in_the_store_trains_in_place_and_by_name() -> None:
    pair = functions()
    pyro.get_param_store().setdefault("loc", torch.tensor(5.0))
    fit(pair, NUMBERS, optimizer=pv.Adam(0.1, lr_by_part={"loc": 0}))
    assert pyro.param("loc").item() == 5.0
    assert pyro.param("scale").item() != 1.0
    assert set(pyro.get_param_store()) == {"loc", "scale"}


# What is refused


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 0}, "epochs = 0 has to be an integer of at least 1"),
    ({"epochs": 2.0}, "epochs = 2.0 has to be"),
    ({"epochs": True}, "epochs = True has to be"),
    ({"batch_size": 0}, "batch_size = 0 has to be"),
    ({"seed": -1}, "seed = -1 has to be"),
    ({"objective": pyro.infer.Trace_ELBO()}, "is not an objective: write objective=pv.objectives.ELBO"),
    ({"objective": ELBO}, "is not an objective"),
    ({"vae": lambda x: x}, "fit takes an object with .model and .guide, two Pyro programs, not function"),
    ({"vae": SimpleNamespace(model=model, guide=fixed), "x": NUMBERS}, "these programs have no weights to train"),
    ({"vae": SimpleNamespace(model=model, guide=empty), "x": NUMBERS}, "latent site 'mean' that the guide does not"),
    ({"x": torch.zeros(1, 3)}, "x has 1 row, and a model is fitted to at least 2"),
    ({"x": torch.zeros(0, 3)}, "has no rows"),
    ({"x": {"y": torch.zeros(4, 3)}}, "the data has no 'x'"),
    ({"x": torch.zeros(4, 2)}, r"x has shape \(4, 2\), and this VAE wants \(N, 3\)"),
    ({"validation": torch.full((4, 3), math.nan)}, "validation data: x\\[0, 0\\] is nan"),
    ({"validation": torch.zeros(4, 2)}, "validation data: x has shape"),
    (
        {"optimizer": pv.Adam(lr_by_part={"posterir": 0.1})},
        "unknown part of the model 'posterir': did you mean 'posterior'?",
    ),
    ({"optimizer": pv.Adam(0)}, "every part of the model is frozen"),
    ({"optimizer": pv.Adam(lr_by_part={"posterior": 0, "likelihood": 0})}, "every part of the model is frozen"),
    ({"optimizer": "Adam"}, "optimizer = 'Adam' is not an optimizer: write optimizer=pv.Adam"),
    ({"optimizer": list}, "makes no torch optimizer"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_wrong_arguments_are_refused_before_anything_is_done(
    arguments: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    vae = small()
    before = weights(vae)
    with pytest.raises(pv.InputError, match=sentence):
        fit(**{"programs": arguments.pop("vae", vae), "x": rows(), "run": tmp_path / "run", **arguments})
    assert list(tmp_path.iterdir()) == []
    assert same(before, vae.state_dict())
