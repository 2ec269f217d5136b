"""K-hat of many rows at once: the numbers of arviz_stats row by row, and what is said where there is no fit."""

import math

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from torch import Tensor

from pyro_vae.criticism.methods.pareto import TAIL, khats, pareto_shape

EPS = torch.finfo(torch.float64).eps


def by_arviz(log_weights: Tensor) -> Tensor:
    with np.errstate(all="ignore"):  # minus: it was made for leave-one-out, w = 1 / p(x|z)
        found = [float(array_stats.psislw(-row)[1]) for row in log_weights.T.numpy()]
    return torch.tensor(found, dtype=torch.float64).nan_to_num(nan=math.inf)


@pytest.mark.parametrize("draws", [25, 26, 29, 100, 224, 225, 226, 1000, 5000])
def test_khats_are_those_of_arviz(draws: int) -> None:
    rows = [scale * torch.randn(draws).double() for scale in (1e-6, 0.1, 1, 3, 30)]
    rows += [-shape * torch.rand(draws).double().log() - 700 for shape in (0.1, 0.5, 1.0, 2.0)]  # Pareto weights
    some = torch.randn(draws).double()
    rows += [some.where(some > 0, -math.inf), (some * 2).round(), (some * 5).round(), some.float().double() + 1e4]
    log_weights = torch.stack(rows, 1)
    torch.testing.assert_close(khats(log_weights, EPS), by_arviz(log_weights), rtol=1e-9, atol=1e-9)
    order = torch.randperm(draws)
    torch.testing.assert_close(khats(log_weights[order], EPS), khats(log_weights, EPS), rtol=0, atol=0)


def test_a_sample_of_a_generalised_pareto_has_its_shape() -> None:
    u = torch.rand(200, 3000, dtype=torch.float64)
    for k in (-0.3, 0.2, 0.7, 1.5):
        found = pareto_shape((((1 - u) ** -k - 1) / k).sort(1).values)
        expected = (3000 * k + 5) / 3010
        assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / math.sqrt(200) + 1e-3)


def test_where_there_is_no_fit_it_says_what_is_known() -> None:
    nothing, some = torch.full((500,), -math.inf).double(), torch.randn(500).double()
    one = nothing.clone()
    one[7] = 3.0
    bounded = some.clamp(max=-1.0)  # the whole tail is one value
    rounded = -1e4 + 1e-5 * some
    log_weights = torch.stack([nothing, one, bounded, torch.full_like(some, 5.0), rounded, 1e5 * some], 1)
    found = khats(log_weights, torch.finfo(torch.float32).eps)
    assert found.tolist() == [math.inf, math.inf, 0, 0, 0, math.inf]
    assert bool(khats(log_weights[: TAIL - 1], EPS).isnan().all())
    assert 0 < float(khats(rounded[:, None], EPS)) < 0.5  # by a finer type it is a spread


def test_memory_is_that_of_the_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    log1p = torch.log1p

    def noted(values: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, values.numel())
        return log1p(values)

    monkeypatch.setattr(torch, "log1p", noted)
    khats(torch.from_numpy(np.random.default_rng(0).normal(size=(10_000, 4))), EPS)
    assert largest == 4 * 300
