"""Labels: a VAE with a class beside its latents (M2), single cells with cell types, and a mixture."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from helpers.pyro_examples.example import Example
from helpers.pyro_examples.images import digits, network


def classes(rows: int = 200) -> Tensor:
    return torch.tensor(load_digits().target[:rows])


class WithClass(nn.Module):
    """x given a class y and z; the guide has q(y|x) where y is not given, and z follows from both."""

    def __init__(self, latents: int = 3, kinds: int = 10) -> None:
        super().__init__()
        self.latents, self.kinds = latents, kinds
        self.classify, self.encoder = network(64, kinds), network(64 + kinds, 2 * latents)
        self.decoder = network(latents + kinds, 64)

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
        return torch.cat([a.expand(*shape, -1), b.expand(*shape, -1)], -1)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("with_class", self)
        with pyro.plate("data", len(x)):
            logits = x.new_zeros(len(x), self.kinds)
            kind = pyro.sample("y", dist.OneHotCategorical(logits=logits), obs=y)
            zeros = x.new_zeros(len(x), self.latents)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            out = self.decoder(self._join(z, kind))
            pyro.sample("x", dist.Bernoulli(logits=out, validate_args=False).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.classify(x)), infer={"enumerate": "parallel"})
            loc, raw = self.encoder(self._join(x, y)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, softplus(raw) + 1e-3).to_event(1))


class Cells(nn.Module):
    """Counts of genes given z1 and a size, z1 given a cell type and z2."""

    def __init__(self, genes: int = 12, kinds: int = 3, latents: int = 2) -> None:
        super().__init__()
        self.genes, self.kinds, self.latents = genes, kinds, latents
        self.above, self.decoder = network(latents + kinds, 2 * latents), network(latents, 2 * genes)
        self.q1, self.q2 = network(genes, 2 * latents + 2), network(latents + kinds, 2 * latents)
        self.dispersion = nn.Parameter(torch.zeros(genes))

    def model(self, x: Tensor, y: Tensor) -> None:
        pyro.module("cells", self)
        kind = one_hot(y.long(), self.kinds).to(x.dtype)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=x.new_zeros(len(x), self.kinds)), obs=y)
            zeros = x.new_zeros(len(x), self.latents)
            z2 = pyro.sample("z2", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            loc, raw = self.above(torch.cat([z2, kind.expand(*z2.shape[:-1], -1)], -1)).chunk(2, -1)
            z1 = pyro.sample("z1", dist.Normal(loc, softplus(raw) + 1e-2).to_event(1))
            size = pyro.sample("size", dist.LogNormal(x.new_full((len(x),), 3.0), 1.0))
            gate, share = self.decoder(z1).chunk(2, -1)
            mean = size.unsqueeze(-1) * share.softmax(-1)
            total = softplus(self.dispersion) + 1e-2
            counts = dist.ZeroInflatedNegativeBinomial(
                total, logits=(mean + 1e-6).log() - total.log(), gate_logits=gate, validate_args=False
            )
            pyro.sample("x", counts.to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor) -> None:
        kind = one_hot(y.long(), self.kinds).to(x.dtype)
        with pyro.plate("data", len(x)):
            loc, raw, size_loc, size_raw = self.q1(torch.log1p(x)).split([self.latents, self.latents, 1, 1], -1)
            z1 = pyro.sample("z1", dist.Normal(loc, softplus(raw) + 1e-2).to_event(1))
            pyro.sample("size", dist.LogNormal(3 + size_loc[..., 0], softplus(size_raw[..., 0]) + 1e-2))
            loc, raw = self.q2(torch.cat([z1, kind.expand(*z1.shape[:-1], -1)], -1)).chunk(2, -1)
            pyro.sample("z2", dist.Normal(loc, softplus(raw) + 1e-2).to_event(1))


def cells() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    profile = torch.rand(3, 12, generator=generator) ** 2
    depth = 20 * (0.5 + torch.rand(90, 1, generator=generator))
    return {"x": torch.poisson(depth * profile[y], generator=generator), "y": y}


class GaussianMixture(nn.Module):
    """Weights, means and a scale that all rows share, and a component of each row that is summed out."""

    def model(self, x: Tensor) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
        with pyro.plate("components", 2):
            means = pyro.sample("means", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(means.gather(-1, kind), 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        weights = pyro.param("q_weights", torch.ones(2) / 2, constraint=dist.constraints.simplex)
        means = pyro.param("q_means", torch.tensor([-1.0, 1.0]))
        pyro.sample("weights", dist.Delta(weights, event_dim=1))
        with pyro.plate("components", 2):
            pyro.sample("means", dist.Delta(means))


class DrawnMixture(GaussianMixture):
    """The same with a guide that draws the component of each row."""

    def guide(self, x: Tensor) -> None:
        super().guide(x)
        slope = pyro.param("q_slope", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("kind", dist.Categorical(logits=slope * x.unsqueeze(-1)))


def labelled() -> dict[str, Any]:
    return {"x": digits(), "y": one_hot(classes(), 10).float()}


def two_heaps() -> dict[str, Tensor]:
    noise = torch.randn(60, generator=torch.Generator().manual_seed(0))
    return {"x": noise + 8.0 * (torch.arange(60) % 2) - 4}


M2 = Example(WithClass, labelled)
SCANVI = Example(Cells, cells)
UNLABELLED = Example(
    WithClass,
    lambda: {"x": digits()},
    says="'y', OneHotCategorical, cannot be reparameterised",
    mended=WithClass,
)
MIXTURE = Example(
    GaussianMixture,
    two_heaps,
    says="a latent site 'kind' that the guide does not draw: sample it in the guide",
    mended=DrawnMixture,
)
