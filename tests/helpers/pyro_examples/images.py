"""Pictures of 4 x 4 pixels: a VAE, a semi-supervised VAE (M2), and a conditional VAE that completes a half."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor
from torch.nn.functional import one_hot

import pyro_vae as pv
from helpers.pyro_examples.example import Example, Pair, joined, mlp

CLASSES = 3


def pictures(rows: int = 120) -> tuple[Tensor, Tensor]:
    """Noisy copies of three prototypes, (N, 16) of 0 and 1, and which prototype each is, (N,)."""
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.rand(CLASSES, 16, generator=generator) < 0.5
    y = torch.randint(CLASSES, (rows,), generator=generator)
    flipped = torch.rand(rows, 16, generator=generator) < 0.08
    return (prototypes[y] ^ flipped).float(), y


def latent(stats: Tensor) -> dist.Independent:
    """A Gaussian vector whose mean and log scale a network gives."""
    loc, log_scale = stats.chunk(2, -1)
    return dist.Normal(loc, log_scale.clamp(-5, 5).exp()).to_event(1)


class VAE(Pair):
    """z -> x."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(16, 16, 4), mlp(2, 16, 16)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("latent", latent(self.encoder(x)))


class SemiSupervisedVAE(Pair):
    """(y, z) -> x, with labels y, one-hot, that are given for some batches and drawn for others."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_y = mlp(16, 16, CLASSES)
        self.encoder_z, self.decoder = mlp(16 + CLASSES, 16, 4), mlp(2 + CLASSES, 16, 16)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("ss_vae", self)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(CLASSES) / CLASSES), obs=y)
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(joined(z, y))).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", x.shape[0]):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.encoder_y(x)))
            pyro.sample("z", latent(self.encoder_z(joined(x, y))))


class UnlabelledVAE(SemiSupervisedVAE):
    """The same without labels, each of whose values Pyro sums over."""

    def __init__(self) -> None:
        super().__init__()
        self.enumerated = config_enumerate(super().guide)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        self.enumerated(x, y)


class ConditionalVAE(Pair):
    """(x, z) -> y, whose prior of z knows x, and guide x and y: one half of a picture, given the other."""

    def __init__(self) -> None:
        super().__init__()
        self.baseline, self.prior_net = mlp(8, 16, 8), mlp(8, 16, 4)
        self.recognition, self.generation = mlp(16, 16, 4), mlp(2, 16, 8)

    def model(self, x: Tensor, y: Tensor) -> None:
        pyro.module("cvae", self)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", latent(self.prior_net(x)))
            logits = self.baseline(x) + self.generation(z)
            pyro.sample("y", dist.Bernoulli(logits=logits).to_event(1), obs=y)

    def guide(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", latent(self.recognition(joined(x, y))))


PIXELS, LABELS = pictures()
ONE_HOT = one_hot(LABELS, CLASSES).float()
TRAINED = {
    "vae": Example(VAE, {"x": PIXELS}, gain=3.0, batch_size=40, epochs=40),
    "ss_vae_M2 of labelled rows": Example(SemiSupervisedVAE, {"x": PIXELS, "y": ONE_HOT}, gain=3.0),
    "cvae": Example(ConditionalVAE, {"x": PIXELS[:, :8], "y": PIXELS[:, 8:]}, gain=2.0),
}
UNLABELLED = Example(
    UnlabelledVAE, {"x": PIXELS}, gain=3.0, epochs=150, elbo=TraceEnum_ELBO, objective=pv.objectives.RWS(particles=10)
)
