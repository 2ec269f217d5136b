"""Counts: topics of documents (ProdLDA), cells and their types (scANVI), a deep exponential family (sparse gamma)."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import one_hot, softplus

import pyro_vae as pv
from helpers.pyro_examples.example import Example, Pair, joined, mlp
from helpers.pyro_examples.images import latent

TYPES, GENES, WORDS = 3, 12, 15


def documents(rows: int = 100) -> Tensor:
    """Counts of words in documents of 30 words on three topics, (N, 15)."""
    generator = torch.Generator().manual_seed(1)
    topics = torch.softmax(3 * torch.randn(3, WORDS, generator=generator), -1)
    mixed = torch.softmax(3 * torch.randn(rows, 3, generator=generator), -1)
    words = torch.multinomial(mixed @ topics, 30, replacement=True, generator=generator)
    return one_hot(words, WORDS).sum(1).float()


def cells(rows: int = 100) -> tuple[Tensor, Tensor]:
    """Counts of genes in cells of three types, (N, 12), and their types, one-hot, (N, 3)."""
    generator = torch.Generator().manual_seed(2)
    profile = torch.softmax(1.5 * torch.randn(TYPES, GENES, generator=generator), -1)
    types = torch.randint(TYPES, (rows,), generator=generator)
    library = torch.exp(4 + 0.3 * torch.randn(rows, 1, generator=generator))
    return torch.poisson(library * profile[types], generator=generator), one_hot(types, TYPES).float()


class ProdLDA(Pair):
    """Topic proportions theta, logistic-normal -> counts of words: a product of experts with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.beta = mlp(WORDS, 16, 6), nn.Linear(3, WORDS, bias=False)
        self.drop, self.norm = nn.Dropout(0.1), nn.BatchNorm1d(WORDS, affine=False)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self)
        with pyro.plate("documents", x.shape[0]):
            logtheta = pyro.sample("logtheta", dist.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
            logits = self.norm(self.beta(self.drop(torch.softmax(logtheta, -1))))
            pyro.sample("obs", dist.Multinomial(int(x.sum(-1).max()), logits=logits), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("documents", x.shape[0]):
            pyro.sample("logtheta", latent(self.encoder(x / 30)))


class ScANVI(Pair):
    """(z2, y) -> z1 -> counts of genes, with a size l of each cell's library."""

    def __init__(self) -> None:
        super().__init__()
        self.log_theta = nn.Parameter(torch.zeros(GENES))
        self.z1_decoder, self.x_decoder = mlp(2 + TYPES, 16, 4), mlp(2, 16, GENES)
        self.z1_encoder, self.l_encoder = mlp(GENES, 16, 4), mlp(GENES, 16, 2)
        self.y_encoder, self.z2_encoder = mlp(2, 16, TYPES), mlp(2 + TYPES, 16, 4)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(TYPES)), obs=y)
            z1 = pyro.sample("z1", latent(self.z1_decoder(joined(z2, y))))
            size = pyro.sample("l", dist.LogNormal(4.0 * x.new_ones(1), 0.5).to_event(1))
            mean = size * torch.softmax(self.x_decoder(z1), -1)
            theta = self.log_theta.exp()
            rates = dist.NegativeBinomial(theta, logits=(mean + 1e-6).log() - theta.log())
            pyro.sample("x", rates.to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            z1 = pyro.sample("z1", latent(self.z1_encoder(torch.log1p(x))))
            loc, scale = self.l_encoder(torch.log1p(x)).chunk(2, -1)
            pyro.sample("l", dist.LogNormal(loc + 4, softplus(scale) / 4).to_event(1))
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.y_encoder(z1)))
            pyro.sample("z2", latent(self.z2_encoder(joined(z1, y))))


class UnlabelledScANVI(ScANVI):
    """The same without types, each of whose values Pyro sums over."""

    def __init__(self) -> None:
        super().__init__()
        self.enumerated = config_enumerate(super().guide)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        self.enumerated(x, y)


class SparseGammaDEF(Pair):
    """Two layers of gamma latents and their gamma weights -> Poisson counts; the guide has a gamma of each."""

    top, middle, shape, rate = 3, 5, 0.3, 1.0

    def model(self, x: Tensor) -> None:
        def weights(name: str, rows: int, columns: int) -> Tensor:
            prior = dist.Gamma(x.new_tensor(self.shape), 3 * self.rate).expand([rows, columns]).to_event(2)
            drawn: Tensor = pyro.sample(name, prior)
            return drawn

        w_top, w_bottom = weights("w_top", self.top, self.middle), weights("w_bottom", self.middle, WORDS)
        with pyro.plate("data", len(x)):
            z_top = pyro.sample("z_top", dist.Gamma(x.new_tensor(0.5), 0.5).expand([self.top]).to_event(1))
            mean = z_top @ w_top + 1e-3
            z_bottom = pyro.sample("z_bottom", dist.Gamma(0.5, 0.5 / mean).to_event(1))
            pyro.sample("obs", dist.Poisson(z_bottom @ w_bottom + 1e-3).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        def gamma(name: str, *shape: int) -> dist.Gamma:
            alpha = pyro.param(f"alpha_{name}", lambda: 1 + 0.1 * torch.randn(shape).abs(), constraints.positive)
            mean = pyro.param(f"mean_{name}", lambda: 1 + 0.1 * torch.randn(shape).abs(), constraints.positive)
            return dist.Gamma(alpha.clamp(min=0.1), alpha.clamp(min=0.1) / mean.clamp(min=1e-3))

        pyro.sample("w_top", gamma("w_top", self.top, self.middle).to_event(2))
        pyro.sample("w_bottom", gamma("w_bottom", self.middle, WORDS).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z_top", gamma("z_top", len(x), self.top).to_event(1))
            pyro.sample("z_bottom", gamma("z_bottom", len(x), self.middle).to_event(1))


COUNTS, CELL_TYPES = cells()
TRAINED = {
    "prodlda": Example(ProdLDA, {"x": documents()}, gain=5.0, batch_size=50, epochs=60),
    "scanvi of labelled rows": Example(ScANVI, {"x": COUNTS, "y": CELL_TYPES}, gain=5.0),
    "sparse_gamma_def": Example(SparseGammaDEF, {"x": documents()}, gain=10.0),
}
UNLABELLED = Example(
    UnlabelledScANVI, {"x": COUNTS}, gain=5.0, elbo=TraceEnum_ELBO, objective=pv.objectives.RWS(particles=10)
)
