"""A hierarchical regression under Pyro's autoguides, and a mixture whose classes are summed out."""

from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoIAFNormal, AutoLowRankMultivariateNormal, AutoNormal
from torch import Tensor

from helpers.pyro_examples.example import Example

GROUPS = 4


def regression_data(rows: int = 80) -> dict[str, Tensor]:
    """A covariate, its group, and an answer on a line of the group's own; (N,) each."""
    generator = torch.Generator().manual_seed(4)
    group = torch.randint(GROUPS, (rows,), generator=generator)
    x = torch.randn(rows, generator=generator)
    intercept, slope = torch.tensor([-2.0, -1.0, 1.0, 3.0]), torch.tensor([0.5, 1.0, 1.5, 2.0])
    noise = 0.5 * torch.randn(rows, generator=generator)
    return {"x": x, "group": group, "y": intercept[group] + slope[group] * x + noise}


def regression(x: Tensor, group: Tensor, y: Tensor, rows: int | None = None, part: int | None = None) -> None:
    """Lines of groups, whose intercepts and slopes have a distribution of their own.

    The rows may be a part of `rows`, given or drawn here, and stand for all of them then.
    """
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(torch.full((2,), 2.0)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(torch.tensor(2.0)))
    with pyro.plate("groups", GROUPS):
        line = pyro.sample("line", dist.Normal(mean, spread).to_event(1))
    with pyro.plate("data", rows or len(x), subsample_size=part) as drawn:
        if rows is None:
            x, group, y = x[drawn], group[drawn], y[drawn]
        pyro.sample("obs", dist.Normal(line[group, 0] + line[group, 1] * x, sigma), obs=y)


def of_a_part(x: Tensor, group: Tensor, y: Tensor) -> None:
    """The regression to a random part of the rows at each step."""
    regression(x, group, y, part=20)


def scaled(x: Tensor, group: Tensor, y: Tensor) -> None:
    """The regression to batches of 80 rows."""
    regression(x, group, y, rows=80, part=len(x))


def guided_by(autoguide: Any, **options: Any) -> Any:
    """The regression with an autoguide."""
    return lambda: SimpleNamespace(model=regression, guide=autoguide(regression, **options))


def points(rows: int = 60) -> Tensor:
    """Numbers near -3 and near 2, (N,)."""
    generator = torch.Generator().manual_seed(5)
    right = torch.rand(rows, generator=generator) < 0.3
    return torch.where(right, 2.0, -3.0) + torch.randn(rows, generator=generator)


def components() -> tuple[Tensor, Tensor, Tensor]:
    """Weights, scale and means of two classes, each with its prior."""
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
    return weights, scale, locs


@config_enumerate
def enumerated_mixture(x: Tensor) -> None:
    """A class of each row, whose values Pyro sums over."""
    weights, scale, locs = components()
    with pyro.plate("data", len(x)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=x)


def summed_mixture(x: Tensor) -> None:
    """The same with the sum written as a distribution."""
    weights, scale, locs = components()
    with pyro.plate("data", len(x)):
        mixture = dist.MixtureSameFamily(
            dist.Categorical(weights), dist.Normal(locs, scale.unsqueeze(-1).expand(locs.shape))
        )
        pyro.sample("obs", mixture, obs=x)


def start(site: dict[str, Any]) -> Tensor:
    """A start that tells the two classes apart."""
    starts = {"weights": torch.tensor([0.5, 0.5]), "scale": torch.tensor(3.0), "locs": torch.tensor([-1.0, 1.0])}
    return starts[site["name"]]


def mixture_of(model: Any) -> Any:
    """A mixture with its point estimate as guide."""
    hidden = poutine.block(model, expose=["weights", "scale", "locs"])
    return lambda: SimpleNamespace(model=model, guide=AutoDelta(hidden, init_loc_fn=start))


LINES = regression_data()
POINTS = {"x": points()}
TRAINED = {
    "regression, AutoNormal": Example(guided_by(AutoNormal), LINES, gain=1.0, lr=0.03),
    "regression, AutoLowRankMultivariateNormal": Example(
        guided_by(AutoLowRankMultivariateNormal, rank=3), LINES, gain=1.0, lr=0.03
    ),
    "regression, AutoIAFNormal": Example(guided_by(AutoIAFNormal, hidden_dim=[16]), LINES, gain=1.0),
    "regression of a random part": Example(
        lambda: SimpleNamespace(model=of_a_part, guide=AutoNormal(of_a_part)), LINES, gain=1.0, lr=0.03
    ),
    "mixture": Example(mixture_of(summed_mixture), POINTS, gain=0.3, lr=0.05),
}
ENUMERATED = Example(mixture_of(enumerated_mixture), POINTS, gain=0.3, lr=0.05, elbo=TraceEnum_ELBO)
SCALED = Example(
    lambda: SimpleNamespace(model=scaled, guide=AutoNormal(scaled)), LINES, gain=1.0, batch_size=20, epochs=30, lr=0.03
)
