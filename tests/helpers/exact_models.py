"""Models whose evidence is known exactly, and the call that measures it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_vae as pv
from helpers.oracles import PPCA, linear
from pyro_vae.criticism import Importance

MODEL = PPCA.random(5, 2, s2=4.0)


def exact(model: PPCA = MODEL, spread: float = 1.0) -> pv.VAE:
    """The VAE that is a probabilistic PCA, its guide the exact posterior with `spread` times its scale."""
    vae = model.put_into(linear(*model.w.shape))
    to_scale, raw = vae.posterior._transforms["scale_tril"], vae.posterior.constants["scale_tril"]
    with torch.no_grad():
        raw.copy_(to_scale.inv(spread * to_scale(raw)))
    return vae


def rows(n: int, model: PPCA = MODEL) -> Tensor:
    return model.marginal().sample((n,))


def truth(x: Tensor, model: PPCA = MODEL) -> Tensor:
    return model.marginal().log_prob(x)


def estimate(vae: Any, x: Any, **options: Any) -> pv.Evidence:
    """With the options of a method among those of `evidence`."""
    own = {name: options.pop(name) for name in ("draws", "proposal", "draws_at_once", "compiled") if name in options}
    return pv.evidence(vae, x, **{"method": Importance(**own), "progress": False, **options})


def pyro_pair(likelihood: Callable[[Tensor], Any], prior: Any, guide: Callable[[Tensor], Any]) -> SimpleNamespace:
    """Programs of a user's own with one number for z and for x."""

    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", prior)
            pyro.sample("x", likelihood(z), obs=x)

    def posterior(x: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", guide(x))

    return SimpleNamespace(model=model, guide=posterior)


class Chain:
    """z1 ~ N(0, 1), z2 | z1 ~ N(z1, 1), four x in a plate of their own ~ N(z2, 1); the guide is too wide."""

    def model(self, x: Tensor) -> None:
        data = pyro.plate("data", len(x), dim=-1)
        with data:
            first = pyro.sample("z1", dist.Normal(0.0, 1.0))
            second = pyro.sample("z2", dist.Normal(first, 1.0))
        with pyro.plate("columns", 4, dim=-2), data:
            pyro.sample("x", dist.Normal(second, 1.0), obs=x.T)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            second = pyro.sample("z2", dist.Normal(x.mean(1), 1.0))
            pyro.sample("z1", dist.Normal(second / 2, 1.0))
