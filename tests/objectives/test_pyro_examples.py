"""Models of Pyro's examples train to what Pyro's SVI reaches, or are refused before work by what has to change."""

import types
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.pyro_examples import EXAMPLES, REFUSED, Example
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam

import pyro_vae as pv


def elbo(pair: Any, data: dict[str, Any]) -> float:
    """Nats a row, by Pyro's estimator."""
    pyro.set_rng_seed(7)
    with torch.no_grad():
        return -Trace_ELBO(num_particles=60).loss(pair.model, pair.guide, **data) / len(data["x"])


def made(example: Example, data: dict[str, Any]) -> Any:
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    pair = example.make()
    pair.guide(**data)  # an automatic guide is set up by its first call
    return pair


FAST = ("sparse_gamma_def", "regression, AutoNormal")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in EXAMPLES])
def test_example_trains_to_what_svi_reaches(name: str) -> None:
    example, data = EXAMPLES[name], EXAMPLES[name].data()
    pair = made(example, data)
    start = elbo(pair, data)
    svi = SVI(pair.model, pair.guide, Adam({"lr": example.lr}), Trace_ELBO())
    for _ in range(example.steps):
        svi.step(**data)
    theirs = elbo(pair, data)
    pair = made(example, data)
    assert elbo(pair, data) == pytest.approx(start)
    fit(pair, data, example)
    assert theirs > start + 1
    assert elbo(pair, data) == pytest.approx(theirs, abs=0.05 * (theirs - start))


@pytest.mark.parametrize("name", REFUSED)
def test_example_is_refused_by_what_trains(name: str) -> None:
    example, data = REFUSED[name], REFUSED[name].data()
    pyro.clear_param_store()
    pair = example.make()
    before = {name: weight.clone() for name, weight in pair.state_dict().items()}
    with pytest.raises(pv.InputError, match=example.says):
        fit(pair, data, example)
    assert all(torch.equal(weight, before[name]) for name, weight in pair.state_dict().items())
    assert example.mended is not None
    history = fit(example.mended(), data, example, objective=pv.objectives.RWS(particles=10))
    assert history["loss"][-1] < history["loss"][0] - 1


def summed_out(x: torch.Tensor) -> None:
    """The mixture with its components summed over in a distribution, as the refusal says too."""
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
    with pyro.plate("components", 2):
        means = pyro.sample("means", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        rows = means.unsqueeze(-2).expand(*means.shape[:-1], len(x), 2) if means.ndim > 1 else means
        mixture = dist.MixtureSameFamily(dist.Categorical(weights.unsqueeze(-2)), dist.Normal(rows, 1.0))
        pyro.sample("x", mixture, obs=x)


def test_enumerated_site_is_refused_by_the_distribution_that_sums_over_it() -> None:
    example, data = REFUSED["mixture"], REFUSED["mixture"].data()
    pyro.clear_param_store()
    pair = example.make()
    with pytest.raises(pv.InputError, match=r"no objective enumerates its values, .* dist.MixtureSameFamily"):
        fit(pair, data, example)
    history = fit(types.SimpleNamespace(model=summed_out, guide=pair.guide), data, example)
    assert history["loss"][-1] < history["loss"][0] - 1
    means = pyro.param("q_means").sort().values.tolist()
    assert means[0] < -1.5
    assert means[1] > 1.5


def fit(pair: Any, data: dict[str, Any], example: Example, **arguments: Any) -> pv.History:
    arguments |= {"batch_size": len(data["x"]), "optimizer": pv.Adam(example.lr), "progress": False}
    return pv.fit(pair, data, epochs=example.steps, **arguments)
