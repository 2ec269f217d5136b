"""Topics: products of experts with a Gaussian on the simplex, and a deep exponential family of gamma variables."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from helpers.pyro_examples.example import Example
from helpers.pyro_examples.images import network


class ProdLDA(nn.Module):
    """Shares of topics by document, and words in proportion to a product of the topics' weights."""

    def __init__(self, words: int = 20, topics: int = 3) -> None:
        super().__init__()
        self.topics = topics
        self.encoder = network(words, 2 * topics)
        self.beta, self.norm = nn.Linear(topics, words, bias=False), nn.BatchNorm1d(words, affine=False)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.beta)
        with pyro.plate("documents", len(x)):
            zeros = x.new_zeros(len(x), self.topics)
            logs = pyro.sample("theta", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            shares = self.norm(self.beta(logs.softmax(-1))).softmax(-1)
            total = int(x.sum(-1).max())
            pyro.sample("x", dist.Multinomial(total, shares, validate_args=False), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("documents", len(x)):
            loc, raw = self.encoder(torch.log1p(x)).chunk(2, -1)
            pyro.sample("theta", dist.Normal(loc, softplus(raw) + 1e-2).to_event(1))


def documents() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    topic = torch.arange(60) % 3
    rates = torch.full((3, 20), 0.3)
    for k in range(3):
        rates[k, 6 * k : 6 * k + 6] = 4.0
    return {"x": torch.poisson(rates[topic], generator=generator)}


class GammaFamily(nn.Module):
    """Two layers of gamma variables above counts: weights that all rows share, and units of each row."""

    def __init__(self, top: int = 2, bottom: int = 3, pixels: int = 8, rows: int = 40) -> None:
        super().__init__()
        self.top, self.bottom, self.pixels, self.rows = top, bottom, pixels, rows

    def model(self, x: Tensor) -> None:
        with pyro.plate("top weights", self.top * self.bottom):
            w_top = pyro.sample("w_top", dist.Gamma(0.5, 1.0))
        with pyro.plate("bottom weights", self.bottom * self.pixels):
            w_bottom = pyro.sample("w_bottom", dist.Gamma(0.5, 1.0))
        with pyro.plate("data", len(x)):
            z_top = pyro.sample("z_top", dist.Gamma(0.5, 0.5).expand([self.top]).to_event(1))
            mean = z_top @ w_top.reshape(self.top, self.bottom)
            z_bottom = pyro.sample("z_bottom", dist.Gamma(0.5, 0.5 / (mean + 1e-3)).to_event(1))
            rate = z_bottom @ w_bottom.reshape(self.bottom, self.pixels) + 1e-3
            pyro.sample("x", dist.Poisson(rate, validate_args=False).to_event(1), obs=x)

    def _gamma(self, name: str, *shape: int) -> dist.Gamma:
        alpha = pyro.param(f"alpha_{name}", lambda: torch.full(shape, 1.0))
        mean = pyro.param(f"mean_{name}", lambda: torch.full(shape, 0.5))
        concentration = softplus(alpha) + 0.1
        return dist.Gamma(concentration, concentration / (softplus(mean) + 1e-2))

    def guide(self, x: Tensor) -> None:
        with pyro.plate("top weights", self.top * self.bottom):
            pyro.sample("w_top", self._gamma("w_top", self.top * self.bottom))
        with pyro.plate("bottom weights", self.bottom * self.pixels):
            pyro.sample("w_bottom", self._gamma("w_bottom", self.bottom * self.pixels))
        with pyro.plate("data", len(x)):
            pyro.sample("z_top", self._gamma("z_top", self.rows, self.top).to_event(1))
            pyro.sample("z_bottom", self._gamma("z_bottom", self.rows, self.bottom).to_event(1))


def strokes() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"x": torch.poisson(torch.rand(40, 2, generator=generator) @ (8 * torch.eye(2).repeat(1, 4)))}


PRODLDA = Example(ProdLDA, documents)
GAMMA_DEF = Example(GammaFamily, strokes)
