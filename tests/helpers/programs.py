"""Models and guides that objectives are tried on: small VAEs, and programs that are no VAE."""

import math
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.objectives import OBJECTIVES

PYRO = {"sampled": Trace_ELBO, "analytic": TraceMeanField_ELBO}


def vae_of(prior: pv.families.Family, guide: pv.families.Family, **arguments: Any) -> pv.VAE:
    return pv.VAE((3,), 2, prior=prior, guide=guide, encoder=pv.MLP(hidden=(5,), activation="tanh"), **arguments)


def pyro_elbo(kl: str, particles: int, nesting: int = 1) -> Trace_ELBO:
    """Pyro's estimator of the same bound; told the plates, it takes no draws to find them."""
    return PYRO[kl](num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=nesting)


def loss_and_gradient(elbo: Any, vae: pv.VAE, x: Tensor) -> tuple[float, dict[str, Tensor]]:
    vae.zero_grad()
    pyro.set_rng_seed(1)
    loss = elbo.loss_and_grads(vae.model, vae.guide, x)
    return loss, {name: weight.grad.clone() for name, weight in vae.named_parameters()}


ESTIMATED = {name: one for name, one in OBJECTIVES.items() if "estimator" in one.__dataclass_fields__}
"""The objectives that have a choice of estimators of their gradient."""

CHOSEN = {
    **{name: one() for name, one in OBJECTIVES.items()},
    "Capacity": OBJECTIVES["Capacity"](capacity=2.0),  # numbers, where a default is a schedule or set by `fit`
    "BetaTC": OBJECTIVES["BetaTC"](rows=100),
}
"""One of each objective, ready to be called."""

# Priors and guides over real vectors, and whether torch or Pyro know their KL.
PAIRS = {
    "normal, normal": (pv.Normal(0, 1), pv.Normal(), True),
    "learned normal, normal": (pv.Normal(), pv.Normal(scale="learned"), True),
    "normal, correlated": (pv.Normal(0, 1), pv.MultivariateNormal(), False),
    "correlated, normal": (pv.MultivariateNormal(), pv.Normal(), True),
    "correlated, correlated": (pv.MultivariateNormal(), pv.MultivariateNormal(scale_tril="per_feature"), True),
    "laplace, normal": (pv.Laplace(), pv.Normal(), True),
    "laplace, laplace": (pv.Laplace(0, 1), pv.Laplace(), True),
    "normal, laplace": (pv.Normal(0, 1), pv.Laplace(), True),
    "student, normal": (pv.StudentT(3, 0, 1), pv.Normal(), False),
    "normal, student": (pv.Normal(0, 1), pv.StudentT(df=5), False),
}
# Programs that are no VAE. Each takes x of shape (6, 3).


def normal(loc: Any, scale: float = 1.0) -> Any:
    """A vector of three independent Gaussians."""
    return dist.Normal(torch.zeros(3) + torch.as_tensor(loc), scale).to_event(1)


class Plain:
    """z_n -> x_n."""

    nesting = 1

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(pyro.sample("z", normal(0.0))), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x / 2, 0.8))


class Scaled(Plain):
    """Annealed by a scale on both programs."""

    def model(self, x: Tensor) -> None:
        poutine.scale(super().model, scale=0.3)(x)

    def guide(self, x: Tensor) -> None:
        poutine.scale(super().guide, scale=0.3)(x)


class Masked(Plain):
    """Two rows are masked out."""

    mask = torch.tensor([True, True, False, True, False, True])

    def model(self, x: Tensor) -> None:
        poutine.mask(super().model, mask=self.mask)(x)

    def guide(self, x: Tensor) -> None:
        poutine.mask(super().guide, mask=self.mask)(x)


class Subsampled(Plain):
    """Every row stands for two."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", 2 * len(x), subsample_size=len(x)):
            pyro.sample("x", normal(pyro.sample("z", normal(0.0))), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", 2 * len(x), subsample_size=len(x)):
            pyro.sample("z", normal(x / 2, 0.8))


class TwoPlates:
    """Two latents a row, in a plate of their own, for two replicates."""

    nesting = 2

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1), pyro.plate("replicates", 2, dim=-2):
            pyro.sample("x", normal(pyro.sample("z", normal(0.0))), obs=x.expand(2, *x.shape))

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1), pyro.plate("replicates", 2, dim=-2):
            pyro.sample("z", normal(x / 2, 0.8))


class PlateOfSome:
    """A latent per row, and replicates of the data only."""

    nesting = 2

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", normal(0.0))
            with pyro.plate("replicates", 2, dim=-2):
                pyro.sample("x", normal(z), obs=x.expand(2, *x.shape))

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", normal(x / 2, 0.8))


class Chain:
    """Two latents a row, one of them a number, and two observed sites."""

    nesting = 1

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", normal(top[..., None]))
            pyro.sample("x", normal(z), obs=x)
            pyro.sample("y", dist.Normal(z.sum(-1), 1.0), obs=x.sum(-1))

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("top", dist.Normal(x.mean(-1), 0.9))
            pyro.sample("z", normal(x / 2, 0.8))


class Global:
    """A latent of all rows outside of their plate."""

    nesting = 1

    def model(self, x: Tensor) -> None:
        centre = pyro.sample("centre", normal(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(pyro.sample("z", normal(centre))), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.sample("centre", normal(0.2, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x / 2, 0.8))


class OtherPlate:
    """A latent in a plate of another size, at the dimension of the rows."""

    nesting = 1

    def model(self, x: Tensor) -> None:
        with pyro.plate("groups", 5):
            centre = pyro.sample("centre", normal(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(centre.mean(-2, keepdim=True)), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("groups", 5):
            pyro.sample("centre", normal(0.2, 0.5))


class PlateOfOne(Global):
    """The latent of all rows in a plate of size one, which must not be counted once a row."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("one", 1):
            centre = pyro.sample("centre", normal(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(pyro.sample("z", normal(centre))), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("one", 1):
            pyro.sample("centre", normal(0.2, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x / 2, 0.8))


class OneByOne:
    """Rows in a sequential plate."""

    nesting = 0

    def model(self, x: Tensor) -> None:
        for n in pyro.plate("data", len(x)):
            pyro.sample(f"x_{n}", normal(pyro.sample(f"z_{n}", normal(0.0))), obs=x[n])

    def guide(self, x: Tensor) -> None:
        for n in pyro.plate("data", len(x)):
            pyro.sample(f"z_{n}", normal(x[n] / 2, 0.8))


class Auxiliary(Plain):
    """A guide with a site of its own."""

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            shift = pyro.sample("shift", dist.Normal(0.0, 0.3), infer={"is_auxiliary": True})
            pyro.sample("z", normal(x / 2 + shift[..., None], 0.8))


PROGRAMS: list[type] = [
    Plain,
    Scaled,
    Masked,
    Subsampled,
    TwoPlates,
    PlateOfSome,
    Chain,
    Global,
    OtherPlate,
    PlateOfOne,
    OneByOne,
    Auxiliary,
]


@dataclass
class Toy:
    """The toy, with the distribution of its guide's draws to be chosen."""

    mu: Tensor
    normal: type[dist.Normal] = dist.Normal

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.mu, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            scale = torch.full_like(x, math.sqrt(2 / 3))
            pyro.sample("z", self.normal((x + self.mu) / 2, scale).to_event(1))

    def gaps(self, log_weights: Tensor, x: Tensor) -> Tensor:
        """Log p(x) less each estimate of it."""
        return dist.Normal(self.mu, math.sqrt(2)).to_event(1).log_prob(x) - log_weights


class DeterministicPrograms(nn.Module):
    """Programs without random draws: z is a function of x, so that a gradient depends on the rows alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.encoder, self.decoder = nn.Linear(3, 2).double(), nn.Linear(2, 3).double()

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(self.encoder(x), event_dim=1))
