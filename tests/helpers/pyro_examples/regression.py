"""A hierarchical regression of counties in states, with Pyro's automatic guides."""

import types
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoLowRankMultivariateNormal, AutoNormal
from torch import Tensor

from helpers.pyro_examples.example import Example

GROUPS = 4


def regression(x: Tensor, y: Tensor, group: Tensor) -> None:
    """Slopes and intercepts by group, of means and spreads that groups share."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    spread = pyro.sample("spread", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
    with pyro.plate("groups", GROUPS):
        line = pyro.sample("line", dist.Normal(mean, spread).to_event(1))
    with pyro.plate("data", len(x)):
        mine = line[group.long()]
        pyro.sample("y", dist.Normal(mine[..., 0] + mine[..., 1] * x, noise), obs=y)


def counties() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(80) % GROUPS
    x = torch.randn(80, generator=generator)
    y = torch.tensor([1.0, 2.0, 3.0, 4.0])[group] - x + 0.3 * torch.randn(80, generator=generator)
    return {"x": x, "y": y, "group": group}


def with_guide(guide: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: types.SimpleNamespace(model=regression, guide=guide(regression))


REGRESSIONS = {
    f"regression, {guide.__name__}": Example(with_guide(guide), counties, lr=0.02)
    for guide in (AutoNormal, AutoLowRankMultivariateNormal, AutoIAFNormal)
}
