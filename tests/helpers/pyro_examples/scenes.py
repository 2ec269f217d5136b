"""Attend, infer, repeat: scenes of one line of pixels with none to two objects, whose number is inferred."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceGraph_ELBO
from torch import Tensor, nn

import pyro_vae as pv
from helpers.pyro_examples.example import Example, Pair, mlp

PIXELS, OBJECTS = 10, 2


def scenes(rows: int = 60) -> Tensor:
    """Sums of bumps at random places, (N, 10)."""
    generator = torch.Generator().manual_seed(6)
    present = torch.rand(rows, OBJECTS, generator=generator).cumprod(1) < 0.7
    where = 2 * torch.randn(rows, OBJECTS, generator=generator)
    noise = 0.2 * torch.randn(rows, PIXELS, generator=generator)
    return (present[..., None] * bump(where)).sum(1) + noise


def bump(where: Tensor) -> Tensor:
    """An object at places (...), drawn on the line (..., 10)."""
    return torch.exp(-((torch.linspace(-4.5, 4.5, PIXELS) - where[..., None]) ** 2) / 2)


class AttendInferRepeat(Pair):
    """Whether there is a further object, where it is and how bright; a recurrent guide draws them one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.predict = nn.GRUCell(PIXELS + 3, 16), mlp(16, 16, 5)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            present, scene = x.new_ones(len(x)), x.new_zeros(len(x), PIXELS)
            for t in range(OBJECTS):
                present = pyro.sample(f"z_pres_{t}", dist.Bernoulli(0.6 * present))
                with poutine.mask(mask=present.bool()):
                    where = pyro.sample(f"z_where_{t}", dist.Normal(x.new_zeros(()), 2.0))
                    what = pyro.sample(f"z_what_{t}", dist.Normal(x.new_ones(()), 0.3))
                scene = scene + (present * what)[..., None] * bump(where)
            pyro.sample("x", dist.Normal(scene, 0.3).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("air", self)
        with pyro.plate("data", len(x)):
            present, last, h = x.new_ones(len(x)), x.new_zeros(len(x), 3), x.new_zeros(len(x), 16)
            for t in range(OBJECTS):
                h = self.rnn(torch.cat([x, last], -1), h)
                logit, where_loc, where_scale, what_loc, what_scale = self.predict(h).unbind(-1)
                chance = torch.sigmoid(logit).clamp(0.01, 0.99) * present
                present = pyro.sample(f"z_pres_{t}", dist.Bernoulli(chance))
                with poutine.mask(mask=present.bool()):
                    where = pyro.sample(f"z_where_{t}", dist.Normal(where_loc, where_scale.exp()))
                    what = pyro.sample(f"z_what_{t}", dist.Normal(1 + what_loc, 0.3 * what_scale.exp()))
                last = torch.stack([present, where, what], -1)


AIR = Example(
    AttendInferRepeat,
    {"x": scenes()},
    gain=3.0,
    lr=0.01,
    objective=pv.objectives.RWS(particles=5),
    elbo=TraceGraph_ELBO,
)
