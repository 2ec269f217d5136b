"""Models whose evidence is known exactly, and the call that measures it."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import pyro_vae as pv
from helpers.cases import seeded
from helpers.oracles import PPCA, _write, linear
from pyro_vae.criticism import AIS, Importance

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


def annealed(vae: Any, x: Any, seed: int = 0, batch_size: int = 100, **options: Any) -> pv.Evidence:
    """Evidence by annealed importance sampling of 5 leapfrog steps, or as the options say."""
    return estimate(vae, x, seed=seed, batch_size=batch_size, method=AIS(**{"leapfrog": 5, **options}))


def misled_vae(guide: Any = pv.MultivariateNormal(), model: PPCA = MODEL, spread: float = 1.0) -> pv.VAE:
    """Probabilistic PCA with its exact decoder, and an encoder whose means are wrong and whose scales are `spread`."""
    vae = pv.VAE((len(model.mu),), model.w.shape[1], guide=guide, encoder=pv.MLP(hidden=())).double()
    exactly = torch.linalg.inv(model.m) @ model.w.T
    wrong = exactly + 0.2 * torch.randn(exactly.shape, generator=seeded(3), dtype=torch.float64)
    name = "scale_tril" if "scale_tril" in guide.parameters else "scale"
    scale = spread * torch.ones(len(exactly), dtype=torch.float64)
    _write(vae.likelihood, "loc", model.mu, model.w)
    _write(vae.likelihood, "scale", model.s2.sqrt())
    _write(vae.posterior, "loc", 0.5 - exactly @ model.mu, wrong)
    _write(vae.posterior, name, scale.diag() if name == "scale_tril" else scale)
    for part in (vae.posterior, vae.likelihood):
        part.initialized.fill_(True)
    return vae


def one_latent(seed: int = 0) -> PPCA:
    return PPCA.random(4, 1, seed=seed)


def exact_one_latent(s2: float, n: int) -> tuple[pv.VAE, Tensor, Normal]:
    """An exact model with one latent, data drawn from it, and the posteriors."""
    model = PPCA(one_latent().w, one_latent().mu, torch.tensor(s2, dtype=torch.float64))
    x = model.marginal().sample((n,))
    exact = model.posterior(x)
    return model.put_into(linear(4, 1)), x, Normal(exact.mean[:, 0], exact.stddev[:, 0])


def exact_kl_terms(posterior: Normal) -> dict[str, float]:
    """The three terms of the KL for N posteriors (N,) over one latent, prior N(0, 1), by the trapezoid rule."""
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    mixture = posterior.log_prob(grid[:, None]).logsumexp(1) - math.log(posterior.batch_shape[0])
    prior = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    aggregate = torch.trapezoid(mixture.exp() * (mixture - prior.log_prob(grid)), grid)
    mean = kl_divergence(posterior, prior).mean()
    return {"mean": float(mean), "information": float(mean - aggregate), "aggregate": float(aggregate)}
