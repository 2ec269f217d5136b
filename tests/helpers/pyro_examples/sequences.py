"""A deep Markov model of binary sequences of several lengths, with a guide that reads them backwards."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from helpers.pyro_examples.example import Example, Pair, mlp
from helpers.pyro_examples.images import latent

STEPS, NOTES = 5, 6


def melodies(rows: int = 80) -> dict[str, Tensor]:
    """Notes that move up by one a step, (N, T, 6) of 0 and 1, and which steps there are, (N, T)."""
    generator = torch.Generator().manual_seed(3)
    start = torch.randint(NOTES, (rows, 1), generator=generator)
    x = nn.functional.one_hot((start + torch.arange(STEPS)) % NOTES, NOTES).bool()
    flipped = torch.rand(x.shape, generator=generator) < 0.03
    lengths = torch.randint(2, STEPS + 1, (rows, 1), generator=generator)
    return {"x": (x ^ flipped).float(), "mask": torch.arange(STEPS) < lengths}


class DeepMarkovModel(Pair):
    """z_1 -> ... -> z_T, and z_t -> x_t; steps that a sequence lacks are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.transition, self.emitter, self.combiner = mlp(3, 16, 6), mlp(3, 16, NOTES), mlp(3 + 8, 16, 6)
        self.rnn = nn.RNN(NOTES, 8, batch_first=True)
        self.z_0, self.z_q_0 = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

    def model(self, x: Tensor, mask: Tensor) -> None:
        pyro.module("dmm", self)
        z = self.z_0.expand(len(x), 3)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(int(mask.sum(1).max()))):
                with poutine.mask(mask=mask[:, t]):
                    z = pyro.sample(f"z_{t}", latent(self.transition(z)))
                    pyro.sample(f"x_{t}", dist.Bernoulli(logits=self.emitter(z)).to_event(1), obs=x[:, t])

    def guide(self, x: Tensor, mask: Tensor) -> None:
        read = self.rnn((x * mask[..., None]).flip(1))[0].flip(1)
        z = self.z_q_0.expand(len(x), 3)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(int(mask.sum(1).max()))):
                with poutine.mask(mask=mask[:, t]):
                    z = pyro.sample(f"z_{t}", latent(self.combiner(torch.cat([z, read[:, t]], -1))))


TRAINED = {"dmm": Example(DeepMarkovModel, melodies(), gain=3.0, batch_size=40, epochs=50)}
