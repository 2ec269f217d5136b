"""Own programs are described and drawn as a VAE is, or refused with a sentence."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def programs() -> Any:
    """A latent w for all rows, a latent z and two data of each."""
    net = nn.Linear(3, 2)

    def model(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], 2), w).to_event(1))
            pyro.sample("x", dist.Normal(z @ net.weight, 1.0).to_event(1), obs=x)
            pyro.sample("y", dist.Poisson(z.exp().sum(-1)), obs=y)

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.sample("w", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    return SimpleNamespace(model=model, guide=guide, net=net)


def test_describe_says_the_sites_of_own_programs() -> None:
    text = pv.describe(programs(), X, y=torch.ones(2))
    model, guide = text.split("guide\n")
    assert [line.split("   ")[0].strip() for line in model.splitlines()[1:]] == [
        "w ~ Gamma",
        "z | w ~ Normal",
        "x | z ~ Normal",
        "y | z ~ Poisson",
    ]
    assert model.count("observed") == 2
    assert model.count("plate data") == 3
    assert "w ~ LogNormal" in guide
    assert "weights     8 in torch modules" in guide


def test_graph_draws_own_programs() -> None:
    (axes,) = pv.plots.graph(programs(), X, y=torch.ones(2)).axes
    words = {text.get_text() for text in axes.texts}
    assert words == {"w", "z", "x", "y", "Gamma", "Normal", "Poisson", "plate data"}


@pytest.mark.parametrize(
    "look", [lambda p: pv.describe(p, X, y=torch.ones(2)), lambda p: pv.plots.graph(p, X, y=X[:, 0])]
)
def test_summaries_leave_random_states_as_they_were(look: Callable[[Any], Any]) -> None:
    pair, before = programs(), torch.get_rng_state()
    look(pair)
    assert torch.equal(torch.get_rng_state(), before)


def test_describe_asks_for_rows_where_it_needs_them() -> None:
    with pytest.raises(pv.InputError, match=r"give two, as in pv.describe\(programs, x\[:2\]\)"):
        pv.describe(programs())
    for wrong in (lambda: pv.describe(3), lambda: pv.plots.graph(3, X)):  # type: ignore[arg-type]
        with pytest.raises(pv.InputError, match=r"an object with .model and .guide"):
            wrong()
