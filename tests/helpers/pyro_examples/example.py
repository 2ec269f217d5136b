"""What is compared of one example: how its programs are built, their data, and how they are trained."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn

import pyro_vae as pv


@dataclass(frozen=True)
class Example:
    """A pair of Pyro programs with made-up data, and how to train it.

    Args:
        build: makes the pair anew.
        batch: the named tensors of the data, (N, ...) each.
        gain: the nats per row by which training raises the ELBO at least.
        batch_size: rows of a batch, a divisor of N; None for all of them.
        epochs: passes over the data.
        lr: the learning rate of Adam.
        objective: that of `pv.fit`.
        elbo: the estimator of `SVI`.
    """

    build: Callable[[], Any]
    batch: dict[str, Tensor]
    gain: float
    batch_size: int | None = None
    epochs: int = 100
    lr: float = 0.02
    objective: pv.objectives.Objective = pv.objectives.ELBO()
    elbo: Callable[..., ELBO] = Trace_ELBO

    @property
    def rows(self) -> int:
        """The number of rows of the data, N."""
        return len(self.batch["x"])

    @property
    def rows_per_batch(self) -> int:
        """The number of rows of a batch."""
        return self.batch_size or self.rows

    def estimator(self) -> ELBO:
        """Pyro's estimator, told the plates, so that it takes no draws to find them."""
        return self.elbo(max_plate_nesting=1)

    def start(self) -> Any:
        """The pair with its starting values, the same at each call, in an otherwise empty store of parameters."""
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        programs = self.build()
        programs.guide(**self.batch)  # an autoguide draws its starting values now
        return programs


class Pair(nn.Module):
    """Modules and two programs of them, as Pyro's examples are written."""

    model: Callable[..., Any]
    guide: Callable[..., Any]


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with softplus between them."""
    layers: list[nn.Module] = []
    for one, other in itertools.pairwise(sizes):
        layers += [nn.Linear(one, other), nn.Softplus()]
    return nn.Sequential(*layers[:-1])


def joined(*parts: Tensor) -> Tensor:
    """Vectors (..., D) joined to one, where Pyro has given some of them dimensions of draws or of enumerated values."""
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], -1)
