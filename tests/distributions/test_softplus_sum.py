"""The density of binary vectors: the same by exponentials as by torch's softplus, and only where that is allowed."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import softplus

import pyro_vae as pv
from pyro_vae.distributions import bernoulli
from pyro_vae.distributions.bernoulli import FusedBernoulli, softplus_sum

SIGNS = {"one": lambda shape: -torch.ones(shape[-1]), "all": lambda shape: 1 - 2 * torch.randint(2, shape)}


def in_float64(logits: Tensor, signs: Tensor | None = None) -> Tensor:
    exponents = logits.double() if signs is None else signs.double() * logits.double()
    return torch.logaddexp(exponents, torch.zeros((), dtype=torch.float64)).sum(-1)


def logits_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return 8 * torch.randn(shape, dtype=dtype) - 4


def summed(logits: Tensor) -> Tensor:
    return softplus_sum(logits, torch.ones_like(logits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(7,), (1, 300), (5, 7), (2, 3, 40), (0, 4)], ids=str)
@pytest.mark.parametrize("kind", SIGNS)
@torch.no_grad()
def test_softplus_sum_equals_the_direct_sum_for_any_block_size(
    shape: tuple[int, ...], dtype: torch.dtype, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, signs = logits_of(shape, dtype), SIGNS[kind](shape).to(dtype)
    expected = in_float64(logits, signs)
    for numbers in (1, 2 * shape[-1], 2**19):
        monkeypatch.setattr(bernoulli, "BLOCK_SIZE", numbers)
        require_near(softplus_sum(logits, signs), expected, shape[-1], dtype)


def require_near(found: Tensor, expected: Tensor, width: int, dtype: torch.dtype) -> None:
    assert found.shape == expected.shape
    assert found.dtype == dtype
    allowed = torch.finfo(dtype).eps * (width + expected)  # of each 1 + e^l, and of the sum
    assert bool(((found.double() - expected).abs() <= allowed).all())


@pytest.mark.parametrize("width", [1, 5, 16, 17, 128, 130, 784])
@torch.no_grad()
def test_compiled_sum_is_the_same_for_any_width_and_takes_few_logarithms(width: int) -> None:
    logits, signs = logits_of((6, 3, width)), SIGNS["all"]((3, width)).float()
    graph = make_fx(softplus_sum)(logits, signs)
    require_near(graph(logits, signs), in_float64(logits, signs), width, torch.float32)
    logarithms = [node.meta["val"].numel() for node in graph.graph.nodes if node.target is torch.ops.aten.log.default]
    assert sum(logarithms) <= max(2 * bernoulli.VECTOR_SIZE, width / 3) * 6 * 3


@torch.no_grad()
def test_coarse_type_keeps_what_one_and_it_would_round_away() -> None:
    logits = torch.full((2, 300), -7.0, dtype=torch.bfloat16)
    torch.testing.assert_close(summed(logits).double(), in_float64(logits), rtol=0.01, atol=0)


@torch.no_grad()
def test_far_logits_neither_overflow_nor_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[1000.0, -1.0], [-1000.0, 2.0], [88.0, 89.0], [0.0, torch.inf], [torch.nan, 0.0]])
    for numbers in (1, 2**19):
        monkeypatch.setattr(bernoulli, "BLOCK_SIZE", numbers)
        torch.testing.assert_close(summed(logits), in_float64(logits).float(), equal_nan=True)


@torch.no_grad()
def test_values_with_and_without_a_gradient_agree() -> None:
    logits, x = logits_of((6, 1, 28, 28)), torch.randint(2, (4, 1, 1, 28, 28)).float()
    event = FusedBernoulli(logits=logits, validate_args=False).to_event(3)
    with torch.enable_grad():
        expected = event.log_prob(x.expand(4, 6, 1, 28, 28))
    torch.testing.assert_close(event.log_prob(x.expand(4, 6, 1, 28, 28)), expected, rtol=1e-5, atol=1e-4)


def test_likely_values_are_not_lost_beside_large_logits() -> None:
    logits = torch.tensor([[40.0, -2.0]])  # 1e6 of such elements have no likelihood to lose
    event = FusedBernoulli(logits=logits.expand(1, 2), validate_args=False).to_event(1)
    x = torch.tensor([[1.0, 0.0]])
    expected = -softplus(torch.tensor([[-40.0, -2.0]]).double()).sum(-1).float()
    for graded in (False, True):
        with torch.set_grad_enabled(graded):
            torch.testing.assert_close(event.log_prob(x), expected, rtol=1e-6, atol=0)


def test_gradient_takes_the_one_operation_that_has_it_everywhere() -> None:
    logits = torch.tensor([[-3.0, 0.0, 90.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(summed(logits).sum(), logits)
    torch.testing.assert_close(slope, logits.sigmoid())
    assert "softplus" in make_fx(summed)(logits).code


@torch.no_grad()
def test_graphs_and_maps_look_at_no_value() -> None:
    logits = torch.cat([logits_of((3, 5)), torch.tensor([[1000.0, -1000.0, 88.0, 89.0, 0.0]])])
    expected = in_float64(logits).float()
    recorded = make_fx(summed)(logits)
    assert "softplus" not in recorded.code
    exported = torch.export.export(Summed(), (logits,), strict=False).module()
    for function in (recorded, exported, torch.vmap(summed)):
        torch.testing.assert_close(function(logits), expected)
        assert bool(function(torch.full_like(logits, torch.nan)).isnan().all())


class Summed(torch.nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return summed(logits)


def test_model_evaluates_without_a_gradient_by_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def seen(logits: Tensor, signs: Tensor) -> Tensor:
        taken.append(logits[..., 0].numel())
        return softplus(logits * signs).sum(-1)

    monkeypatch.setattr(bernoulli, "_sum_by_exponentials", seen)
    vae = pv.VAE((8,), 2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(4,)))
    pv.evidence(vae, torch.ones(3, 8), method=pv.criticism.Importance(60), progress=False)
    assert sum(taken) >= 180
