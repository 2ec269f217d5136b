"""Trainings of weights in pieces, for the processes that `several` starts."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv
from helpers.distributed_worker import CERTAIN, RANK, TWO, certain, drawing, refusal
from helpers.fitting import rows, small
from helpers.resuming import EVERY_STEP, cut, steps
from pyro_vae.training.ema import Average

SHARDED = dataclasses.replace(TWO, strategy="fsdp")


class Odd(nn.Module):
    """Programs that draw nothing, with weights of every kind: no dimensions, one element, shared, resting, unused."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.decoder = nn.Linear(2, 3, bias=False)
        self.scale, self.offset = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(1))
        self.resting = nn.Parameter(torch.randn(3, 2), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(5))
        self.crossed = nn.Parameter(torch.randn(3, 2).T)  # its rows do not lie one after another
        self.again = nn.ModuleList([self.decoder])
        self.register_buffer("shift", torch.ones(3))
        self.register_buffer("seen", torch.zeros(3))  # of this process's rows
        self.double()

    def model(self, x: Tensor) -> None:
        self.seen.copy_(x.mean(0))
        decoder = pyro.module("decoder", self.again[0])  # which reads Pyro's store
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = decoder(z) + self.offset * self.shift + z @ self.crossed
            pyro.sample("x", dist.Normal(loc, self.scale.exp()).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x @ (self.decoder.weight + self.resting), event_dim=1))


ALL: dict[str, dict[str, Any]] = CERTAIN | {
    "odd": {"programs": Odd, "optimizer": pv.AdamW(0.02, ema=0.5, clip_norm=1.0)}
}


def all_of_it(folder: Path) -> dict[str, Any]:
    """Trainings of weights in pieces, and what goes on with them or before them."""
    found: dict[str, Any] = {name: certain(runtime=SHARDED, **words) for name, words in ALL.items()}
    run, saving = folder / "sharded", {"checkpoints": EVERY_STEP}
    found["drawing"] = drawing(runtime=SHARDED, run=run, **saving)
    if RANK == 0:
        for name in ("sharded cut", "sharded for all", "sharded for one"):
            cut(run, steps(run)[4], folder / name)
        cut(folder / "run", steps(folder / "run")[4], folder / "for sharded")
    torch.distributed.barrier()
    found["resumed"] = drawing(runtime=SHARDED, run=folder / "sharded cut", resume=True, **saving)
    found["resumed by ddp"] = drawing(run=folder / "sharded for all", resume=True, **saving)
    found["resumed from ddp"] = drawing(runtime=SHARDED, run=folder / "for sharded", resume=True, **saving)
    sizes: list[int] = []
    for name, runtime in {"sharded": SHARDED, "whole": TWO}.items():
        found[f"two stages {name}"] = drawing(pv.Aggregate(), runtime=runtime, epochs=1)
        found[f"stopped {name}"] = drawing(
            runtime=runtime,
            epochs=8,
            optimizer=pv.SGD(0.3, ema=0.5),
            stopping=pv.EarlyStopping(patience=1),
            callbacks=[lambda epoch: sizes.append(numbers(epoch.vae.parameters()))],
        )
        found[f"diverged {name}"] = refusal(runtime=runtime, optimizer=pv.SGD(1e30))
    found["sizes"] = len(set(sizes))  # of what callbacks have seen
    return found | {"kept": kept(), "buffers": buffers(), "afterwards": afterwards()}


def numbers(tensors: Any) -> int:
    """How many numbers this process has of some tensors."""
    return sum(getattr(each, "to_local", lambda each=each: each)().numel() for each in tensors)


def kept() -> dict[str, int]:
    """What this process has of weights, gradients, moments and averages after a step."""
    vae, counts = small(), {}
    counts["all"] = numbers(vae.parameters())
    averages: list[Average] = []

    class Watching(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            pieces = self.param_groups[0]["params"]
            counts["weights"], counts["gradients"] = numbers(pieces), numbers(piece.grad for piece in pieces)
            counts["moments"] = numbers(self.state[piece]["exp_avg"] for piece in pieces)
            counts["averages"] = numbers(averages[0].means.values())
            counts["of the model"] = numbers(vae.parameters())

    class Seen(Average):
        def begin(self) -> None:
            super().begin()
            averages.append(self)

    with (
        mock.patch.multiple("pyro_vae.training.step", Average=Seen),
        mock.patch.object(pv.Adam, "torch_class", Watching),
    ):
        pv.fit(vae, rows(22), epochs=1, progress=False, runtime=SHARDED, optimizer=pv.Adam(0.01, ema=0.9))
    return counts


def buffers() -> list[float]:
    """What is left of rows that each process has others of."""
    pyro.clear_param_store()
    programs = Odd()
    pv.fit(programs, rows(21).double(), epochs=1, progress=False, runtime=SHARDED)
    found: list[float] = programs.get_buffer("seen").tolist()
    return found


def afterwards() -> list[str]:
    """What a model that was trained in pieces differs in from any other."""
    vae = small()
    kinds, hooks = [type(module) for module in vae.modules()], [dir(module) for module in vae.modules()]
    before = list(vae.parameters())
    with pytest.raises(FloatingPointError):
        pv.fit(vae, rows(22), progress=False, runtime=SHARDED, optimizer=pv.SGD(1e30))
    shapes = [weight.shape for weight in vae.parameters()]
    vae.load_state_dict(small().state_dict())
    pv.fit(vae, rows(22), epochs=1, progress=False, runtime=SHARDED)
    pv.predictive_check(vae, rows(22))
    copy = small(seed=5)
    copy.load_state_dict(vae.state_dict())
    vae.load_state_dict(copy.state_dict())
    one = pv.fit(vae, rows(22), epochs=1, progress=False, runtime=SHARDED)
    two = pv.fit(copy, rows(22), epochs=1, progress=False, runtime=TWO)
    checks = {
        "shapes after a divergence": shapes == [weight.shape for weight in vae.parameters()],
        "other modules": kinds == [type(module) for module in vae.modules()],
        "other attributes": hooks == [dir(module) for module in vae.modules()],
        "hooks": not any(module._load_state_dict_post_hooks for module in vae.modules()),
        "other weights": all(a is b for a, b in zip(before, vae.parameters(), strict=True)),
        "a type": {type(weight) for weight in vae.parameters()} == {nn.Parameter},
        "another second training": abs(one["loss"][0] - two["loss"][0]) < 1e-6,
    }
    return [name for name, same in checks.items() if not same]
