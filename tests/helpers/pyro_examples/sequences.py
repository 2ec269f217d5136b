"""Sequences: a deep Markov model of rows of different lengths."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import softplus

from helpers.pyro_examples.example import Example
from helpers.pyro_examples.images import network


class DeepMarkov(nn.Module):
    """z_t given z_(t-1), x_t given z_t, for as many steps as a row has; the guide reads the sequence backwards."""

    def __init__(self, notes: int = 5, latents: int = 2, hidden: int = 8) -> None:
        super().__init__()
        self.latents = latents
        self.transition, self.emission = network(latents, 2 * latents, 16), network(latents, notes, 16)
        self.rnn = nn.GRU(notes, hidden, batch_first=True)
        self.combine = network(latents + hidden, 2 * latents, 16)
        self.first = nn.Parameter(torch.zeros(latents))

    def model(self, x: Tensor, lengths: Tensor) -> None:
        pyro.module("markov", self)
        known = torch.arange(x.shape[1]) < lengths[:, None]
        with pyro.plate("data", len(x)):
            z = self.first.expand(len(x), -1)
            for t in range(x.shape[1]):
                with poutine.mask(mask=known[:, t]):
                    loc, raw = self.transition(z).chunk(2, -1)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, softplus(raw) + 1e-2).to_event(1))
                    notes = dist.Bernoulli(logits=self.emission(z), validate_args=False).to_event(1)
                    pyro.sample(f"x_{t}", notes, obs=x[:, t])

    def guide(self, x: Tensor, lengths: Tensor) -> None:
        known = torch.arange(x.shape[1]) < lengths[:, None]
        states = self.rnn((x * known.unsqueeze(-1)).flip(1))[0].flip(1)
        with pyro.plate("data", len(x)):
            z = self.first.expand(len(x), -1)
            for t in range(x.shape[1]):
                with poutine.mask(mask=known[:, t]):
                    state = states[:, t].expand(*z.shape[:-1], -1)
                    loc, raw = self.combine(torch.cat([z, state], -1)).chunk(2, -1)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, softplus(raw) + 1e-2).to_event(1))


def chords() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mood = torch.randint(2, (40, 1, 1), generator=generator).float()
    x = torch.bernoulli((0.1 + 0.8 * mood).expand(40, 6, 5), generator=generator)
    return {"x": x, "lengths": torch.randint(2, 7, (40,), generator=generator)}


DMM = Example(DeepMarkov, chords, steps=200, lr=0.01)
