"""Images: a VAE, one that completes an image from a quarter of it, and objects that come one after the other."""

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import softplus

from helpers.pyro_examples.example import Example


def digits(rows: int = 200) -> Tensor:
    return torch.tensor(load_digits().data[:rows] > 7, dtype=torch.float32)


def network(inputs: int, outputs: int, hidden: int = 32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Softplus(), nn.Linear(hidden, outputs))


class ImageVAE(nn.Module):
    """z ~ N(0, I), x ~ Bernoulli(decoder(z)), modules registered by name."""

    def __init__(self, latents: int = 4, pixels: int = 64) -> None:
        super().__init__()
        self.latents = latents
        self.encoder, self.decoder = network(pixels, 2 * latents), network(latents, pixels)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], self.latents)
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(z), validate_args=False).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, softplus(raw) + 1e-3).to_event(1))


class ConditionalVAE(nn.Module):
    """The other three quarters `y` of an image given the first `x`, with a prior that depends on x."""

    def __init__(self, latents: int = 3) -> None:
        super().__init__()
        self.prior, self.recognition = network(16, 2 * latents), network(64, 2 * latents)
        self.generation = network(16 + latents, 48)

    def model(self, x: Tensor, y: Tensor) -> None:
        pyro.module("generation", self)
        with pyro.plate("data", len(x)):
            loc, raw = self.prior(x).chunk(2, -1)
            z = pyro.sample("z", dist.Normal(loc, softplus(raw) + 1e-3).to_event(1))
            shape = torch.broadcast_shapes(z.shape[:-1], x.shape[:-1])
            logits = self.generation(torch.cat([x.expand(*shape, 16), z], -1))
            pyro.sample("y", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=y)

    def guide(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc, raw = self.recognition(torch.cat([x, y], -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, softplus(raw) + 1e-3).to_event(1))


class Objects(nn.Module):
    """Up to two objects in an image of one dimension, each there or not, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.infer = network(16, 6)
        self.shape = nn.Parameter(torch.zeros(4))

    def paint(self, there: Tensor, place: Tensor) -> Tensor:
        grid = torch.arange(16.0)
        distance = (grid - 8 - 4 * place.unsqueeze(-1)).abs()
        return there.unsqueeze(-1) * softplus(self.shape[0]) * torch.exp(-distance / softplus(self.shape[1] + 1))

    def model(self, x: Tensor) -> None:
        pyro.module("objects", self)
        with pyro.plate("data", len(x)):
            there, image = torch.ones(len(x)), torch.zeros(16)
            for step in range(2):
                there = pyro.sample(f"there_{step}", dist.Bernoulli(0.5 * there, validate_args=False))
                place = pyro.sample(f"place_{step}", dist.Normal(0.0, 1.0).expand([len(x)]))
                image = image + self.paint(there, place)
            pyro.sample("obs", dist.Normal(image, 0.3).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            raw, there = self.infer(x), torch.ones(len(x))
            for step in range(2):
                logit, loc, scale = raw[:, 3 * step : 3 * step + 3].unbind(-1)
                there = pyro.sample(f"there_{step}", dist.Bernoulli(torch.sigmoid(logit) * there, validate_args=False))
                pyro.sample(f"place_{step}", dist.Normal(loc, softplus(scale) + 1e-2))


def painted(rows: int = 60) -> Tensor:
    """Rows with one object in each second row, and none in the others."""
    generator = torch.Generator().manual_seed(0)
    place = torch.randn(rows, 1, generator=generator)
    objects = 2 * torch.exp(-(torch.arange(16.0) - 8 - 4 * place).abs() / 1.5)
    return objects * (torch.arange(rows) % 2)[:, None] + 0.3 * torch.randn(rows, 16, generator=generator)


VAE = Example(ImageVAE, lambda: {"x": digits()})
CVAE = Example(ConditionalVAE, lambda: {"x": digits()[:, :16], "y": digits()[:, 16:]})
AIR = Example(
    Objects,
    lambda: {"x": painted()},
    says="'there_0', Bernoulli, cannot be reparameterised",
    mended=Objects,
)
