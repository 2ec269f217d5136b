"""The same model written by hand, to measure `fit` against: 784-H-D-H-784, Gaussian or Bernoulli likelihood."""

import math

import torch
from torch import Tensor, nn


class HandWritten(nn.Module):
    """The loss of a VAE as a torch user writes it: no program, no family, no record."""

    def __init__(self, features: int = 784, hidden: int = 400, latents: int = 20, activation: str = "relu") -> None:
        super().__init__()
        self.body = nn.Linear(features, hidden)
        self.loc, self.log_scale = nn.Linear(hidden, latents), nn.Linear(hidden, latents)
        self.up, self.out = nn.Linear(latents, hidden), nn.Linear(hidden, features)
        self.log_noise = nn.Parameter(torch.zeros(()))
        self.activation = getattr(nn.functional, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Minus the ELBO per row, in nats, under a Gaussian with one learned scale."""
        x = x.flatten(1)
        hidden = self.activation(self.body(x))
        loc, log_scale = self.loc(hidden), self.log_scale(hidden)
        scale = log_scale.exp()
        z = loc + scale * torch.randn_like(loc)
        mean = self.out(self.activation(self.up(z)))
        squares = ((x - mean) ** 2).sum() * torch.exp(-2 * self.log_noise)
        log_likelihood = -0.5 * squares - x.numel() * (self.log_noise + 0.5 * math.log(2 * math.pi))
        kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * log_scale).sum()
        return (kl - log_likelihood) / len(x)


def matrix_products(batch: int, features: int = 784, hidden: int = 400, latents: int = 20) -> None:
    """The matrix products of one training step, forward and backward, and nothing else."""
    sizes = [(features, hidden), (hidden, 2 * latents), (latents, hidden), (hidden, features)]
    for m, n in sizes:
        a, w, g = torch.empty(batch, m), torch.empty(m, n), torch.empty(batch, n)
        a @ w
        a.T @ g
        if m != features:
            g @ w.T
