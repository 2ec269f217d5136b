"""Which modules are in train mode while a model is fitted, and batches of one row under BatchNorm."""

import copy
import re
from typing import Any

import pytest
import torch
from helpers.cases import same
from helpers.fitting import fit, rows
from helpers.slow import slow_but
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.training.batches import _batch_lengths

FROZEN = pv.Adam(0.01, lr_by_part={"posterior": 0})


class Encoder(nn.Module):
    """A network whose statistics and random numbers show whether it is trained."""

    def __init__(self, **norm: Any) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8, **norm), nn.ReLU(), nn.Dropout(0.5))
        self.loc, self.scale = nn.Linear(8, 2), nn.Linear(8, 2)
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.modes.append(self.body[3].training)
        body = self.body(x)
        return {"loc": self.loc(body), "scale": self.scale(body)}


def normed(encoder: nn.Module | None = None) -> pv.VAE:
    torch.manual_seed(0)
    return pv.VAE((3,), 2, encoder=encoder or Encoder(), decoder=pv.MLP(hidden=(6,)))


def means(vae: pv.VAE) -> Tensor:
    vae.eval()
    return vae.posterior(rows()).mean.detach()


@pytest.mark.parametrize("refit", [False, True], ids=["first fit", "second fit"])
@pytest.mark.parametrize("by", ["rate", "requires_grad"])
@pytest.mark.parametrize("norm", slow_but([{}], [{}, {"affine": False}, {"momentum": None}]), ids=str)
@pytest.mark.parametrize("compile", [False, True])
def test_frozen_part_keeps_statistics_and_dropout(
    norm: dict[str, Any], by: str, refit: bool, compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_vae.compile.tracing.compile_graph", lambda recorded, inputs: recorded)
    vae = normed(Encoder(**norm)).initialize(rows())
    if refit:
        fit(vae, rows())
    vae.posterior.requires_grad_(by == "rate")
    before = copy.deepcopy(vae.posterior.state_dict())
    encoder: Any = vae.declaration.encoder
    encoder.modes.clear()
    fit(vae, rows() + 3, optimizer=FROZEN if by == "rate" else pv.Adam(0.01), compile=compile)
    assert same(before, vae.posterior.state_dict())
    assert not any(encoder.modes)


def test_part_that_is_trained_is_in_train_mode_in_every_fit() -> None:
    vae = normed()
    encoder: Any = vae.declaration.encoder
    for _ in range(2):
        before, encoder.modes = means(vae), []
        fit(vae, rows())
        assert sum(encoder.modes) == 9  # three steps in each of three epochs
        assert not torch.equal(means(vae), before)


@pytest.mark.parametrize("as_module", [True, False], ids=["a module", "programs that hold modules"])
def test_module_in_eval_mode_stays_so_while_its_weights_are_trained(as_module: bool) -> None:
    vae = normed()
    encoder: Any = vae.declaration.encoder
    encoder.body[1].eval()
    kept, weight = encoder.body[1].running_mean.clone(), encoder.body[0].weight.clone()

    class Pair:
        posterior, likelihood, prior = vae.posterior, vae.likelihood, vae.prior
        model, guide = vae.model, vae.guide

        def __init__(self) -> None:
            self.posterior, self.likelihood = vae.posterior, vae.likelihood

    encoder.modes.clear()
    fit(vae if as_module else Pair(), rows(), optimizer=pv.Adam(0.01))
    assert torch.equal(encoder.body[1].running_mean, kept)
    assert not torch.equal(encoder.body[0].weight, weight)
    assert sum(encoder.modes) == 9  # dropout beside it was on


def test_replaced_parts_of_a_fitted_model_are_trained() -> None:
    vae = normed()
    fit(vae, rows())
    other = vae.replace(prior=pv.Laplace(0, 1))
    encoder: Any = other.declaration.encoder
    encoder.modes.clear()
    fit(other, rows())
    assert sum(encoder.modes) == 9


# Batches of one row


@pytest.mark.parametrize(
    ("n", "batch_size", "accumulate"), [(41, 20, 1), (21, 20, 1), (41, 10, 2), (45, 4, 2), (6, 1, 1), (41, 40, 3)]
)
def test_batch_of_one_row_is_refused_with_a_size_that_works(n: int, batch_size: int, accumulate: int) -> None:
    vae, x = normed(), rows(n)
    optimizer = pv.Adam(accumulate_grad_batches=accumulate)
    before = copy.deepcopy(vae.state_dict())
    with pytest.raises(pv.InputError, match=r"BatchNorm1d has no variance: take batch_size=\d+\.$") as refusal:
        fit(vae, x, batch_size=batch_size, optimizer=optimizer)
    assert same(before, vae.state_dict())
    assert all(module.training for module in vae.modules())
    found = re.search(r"batch_size=(\d+)", str(refusal.value))
    assert found is not None
    fit(vae, x, batch_size=int(found[1]), optimizer=optimizer)


def test_batch_of_one_row_is_no_fault_where_nothing_is_normalised() -> None:
    frozen = normed()
    fit(frozen, rows(21), optimizer=FROZEN)
    still = normed()
    still.posterior.eval()
    fit(still, rows(21))
    fit(normed(), rows(21), batch_size=7)
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    guide = pv.Normal(scale="learned")
    vae = pv.VAE((1, 8, 8), 2, guide=guide, encoder=images, decoder=pv.MLP(hidden=(6,)))
    fit(vae, torch.randn(21, 1, 8, 8))  # of whose many positions there is a variance


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_lengths_of_batches_are_those_of_the_loop(processes: int, accumulated: int) -> None:
    for n in range(2, 40):
        for batch_size in range(1, 20):
            size, lengths = -(-batch_size // processes), set()
            for step in torch.arange(n).split(batch_size * accumulated):
                for rank in range(processes):  # as `ProcessGroup.shard` and `Loop` have it
                    mine = step[rank::processes] if len(step) > rank else step[:1]
                    lengths |= {len(part) for part in mine.split(size)}
            assert (1 in lengths) == (1 in _batch_lengths(n, batch_size, accumulated, processes))
