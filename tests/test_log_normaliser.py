"""The normaliser of binary vectors: the same by exponentials as by torch's softplus, and only where that is allowed."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import softplus

import pyro_vae as pv
from pyro_vae.families import binary
from pyro_vae.families.binary import BinaryBernoulli, log_normaliser


def in_float64(logits: Tensor) -> Tensor:
    return torch.logaddexp(logits.double(), torch.zeros((), dtype=torch.float64)).sum(-1)


def logits_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return 8 * torch.randn(shape, dtype=dtype) - 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(7,), (1, 300), (5, 7), (2, 3, 40), (0, 4)], ids=str)
@torch.no_grad()
def test_it_is_the_softplus_summed_whatever_the_blocks(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = logits_of(shape, dtype)
    expected = in_float64(logits)
    for numbers in (1, 2 * shape[-1], 2**19):
        monkeypatch.setattr(binary, "IN_CACHE", numbers)
        found = log_normaliser(logits)
        assert found.shape == shape[:-1]
        assert found.dtype == dtype
        allowed = torch.finfo(dtype).eps * (shape[-1] + expected)  # of each 1 + e^l, and of the sum
        assert bool(((found.double() - expected).abs() <= allowed).all())


@torch.no_grad()
def test_a_coarse_type_keeps_what_one_and_it_would_round_away() -> None:
    logits = torch.full((2, 300), -7.0, dtype=torch.bfloat16)
    torch.testing.assert_close(log_normaliser(logits).double(), in_float64(logits), rtol=0.01, atol=0)


@torch.no_grad()
def test_far_logits_neither_overflow_nor_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[1000.0, -1.0], [-1000.0, 2.0], [88.0, 89.0], [0.0, torch.inf], [torch.nan, 0.0]])
    for numbers in (1, 2**19):
        monkeypatch.setattr(binary, "IN_CACHE", numbers)
        torch.testing.assert_close(log_normaliser(logits), in_float64(logits).float(), equal_nan=True)


@torch.no_grad()
def test_values_with_and_without_a_gradient_agree() -> None:
    logits, x = logits_of((6, 1, 28, 28)), torch.randint(2, (4, 1, 1, 28, 28)).float()
    event = BinaryBernoulli(logits=logits, validate_args=False).to_event(3)
    with torch.enable_grad():
        expected = event.log_prob(x.expand(4, 6, 1, 28, 28))
    torch.testing.assert_close(event.log_prob(x.expand(4, 6, 1, 28, 28)), expected, rtol=1e-5, atol=1e-4)


def test_a_gradient_takes_the_one_operation_that_has_it_everywhere() -> None:
    logits = torch.tensor([[-3.0, 0.0, 90.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_normaliser(logits).sum(), logits)
    torch.testing.assert_close(slope, logits.sigmoid())
    assert "softplus" in make_fx(log_normaliser)(logits).code


@torch.no_grad()
def test_graphs_and_maps_look_at_no_value() -> None:
    logits = torch.cat([logits_of((3, 5)), torch.tensor([[1000.0, -1000.0, 88.0, 89.0, 0.0]])])
    expected = in_float64(logits).float()
    recorded = make_fx(log_normaliser)(logits)
    assert "softplus" not in recorded.code
    exported = torch.export.export(Summed(), (logits,), strict=False).module()
    for function in (recorded, exported, torch.vmap(log_normaliser)):
        torch.testing.assert_close(function(logits), expected)
        assert bool(function(torch.full_like(logits, torch.nan)).isnan().all())


class Summed(torch.nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return log_normaliser(logits)


def test_a_model_evaluates_without_a_gradient_by_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(binary, "_by_exponentials", lambda block: taken.append(len(block)) or softplus(block).sum(-1))
    monkeypatch.setattr(binary, "IN_CACHE", 20 * 8)
    vae = pv.VAE((8,), 2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(4,)))
    pv.evidence(vae, torch.ones(3, 8), method=pv.criticism.Importance(60), progress=False)
    assert max(taken) == 20
    assert sum(taken) >= 180
