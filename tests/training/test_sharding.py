"""Weights in pieces: what is refused, and how they are lent to modules; `test_processes` has the trainings."""

from typing import Any

import pytest
import torch
from helpers.fitting import rows, small
from helpers.sharding_worker import SHARDED, Odd
from torch import nn

import pyro_vae as pv
from pyro_vae.training.loss import Loss
from pyro_vae.training.sharding import Sharded, require_shardable


class Tied(Odd):
    """Programs of which two modules have one weight."""

    def __init__(self) -> None:
        super().__init__()
        other = nn.Linear(2, 3, bias=False)
        other.weight = self.decoder.weight
        self.again[0] = other


MADE = {"odd": Odd, "tied": Tied, "vae": lambda: small(likelihood=pv.Normal(scale="learned")).double()}


@pytest.mark.parametrize("name", MADE)
def test_weights_are_lent_at_every_place_and_taken_back(name: str) -> None:
    programs, x = MADE[name](), rows(9).double()
    loss = Loss(programs, pv.objectives.ELBO(kl="sampled"))
    placed = [(m, k, w) for m in loss.modules() for k, w in m.named_parameters(recurse=False, remove_duplicate=False)]
    torch.manual_seed(0)
    value, _ = loss({"x": x})
    value.backward()
    expected = [weight.grad for weight in loss.parameters()]
    lending = Sharded(loss)
    assert not set(map(id, lending.parameters())) & set(map(id, loss.parameters()))
    for weight in loss.parameters():
        weight.data = torch.full_like(weight, torch.nan)  # which nobody is to read
    torch.manual_seed(0)
    lent, _ = lending({"x": x})
    lent.backward()
    torch.testing.assert_close(lent, value, rtol=0, atol=0)
    assert sum(gradient is not None for gradient in expected) >= 4
    for piece, gradient in zip(lending.pieces, expected, strict=True):
        found = piece.grad if gradient is None else piece.grad.reshape(gradient.shape)
        torch.testing.assert_close(found, gradient, rtol=0, atol=0)
    assert all(module.get_parameter(key) is weight for module, key, weight in placed)


def test_the_loss_trains_and_is_evaluated_with_its_pieces() -> None:
    loss = Loss(small(), pv.objectives.ELBO())
    lending = Sharded(loss)
    for mode in (False, True):
        assert lending.train(mode) is lending
        assert all(module.training is mode for module in (*loss.modules(), *lending.modules()))


@pytest.mark.parametrize(
    ("precision", "instead"),
    [("16-mixed", "precision='bf16-mixed'"), ("64-true", "precision=None, with weights of double()")],
)
def test_a_precision_that_pieces_do_not_have_is_refused(precision: Any, instead: str) -> None:
    with pytest.raises(pv.InputError, match="is not to be had with strategy='fsdp'") as told:
        pv.Runtime(precision=precision, strategy="fsdp")
    assert instead in str(told.value)
    assert pv.Runtime(precision=precision, strategy="ddp").precision == precision


def test_pieces_are_not_compiled_and_it_is_said_before_anything_is_done(tmp_path: Any) -> None:
    vae = small()
    before = [weight.clone() for weight in vae.parameters()]
    with pytest.raises(pv.InputError, match=r"compile=True .* strategy='fsdp' .* leave out compile="):
        pv.fit(vae, rows(), compile=True, runtime=SHARDED, run=tmp_path / "run")
    assert not torch.distributed.is_initialized()
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))


def test_weights_of_two_types_are_named() -> None:
    module = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1).double()})
    with pytest.raises(pv.InputError, match=r"a\.bias of float32 and b\.bias of float64 are of two types"):
        require_shardable(dict(module.named_parameters()), 0)
    module.b.requires_grad_(False)
    require_shardable(dict(module.named_parameters()), 0)


def test_an_unknown_strategy_names_those_that_there_are() -> None:
    with pytest.raises(pv.InputError, match="'ddp' or 'fsdp' or nothing"):
        pv.Runtime(strategy="deepspeed")  # type: ignore[arg-type]


def test_steps_are_not_left_out_in_pieces() -> None:
    with pytest.raises(pv.InputError, match=r"skip = 2 .* strategy='fsdp': leave out skip="):
        require_shardable(dict(small().named_parameters()), 2)
    require_shardable(dict(small().named_parameters()), 0)
