"""Chunks of importance sampling: rows together as far as there is room, all of one size but for a rest."""

import math
from typing import Any

import pytest
import torch
from helpers.exact_models import estimate, exact, rows, truth
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism.methods import importance
from pyro_vae.criticism.methods.importance import ImportanceSampler


@pytest.mark.parametrize("total", [1, 7, 100, 5000, 10_001])
@pytest.mark.parametrize("most", [1, 6, 53, 5350])
def test_chunks_have_one_size_and_a_rest_smaller_than_their_number(total: int, most: int) -> None:
    size = importance._even_chunk_size(total, most)
    assert 1 <= size <= most
    assert total - size * (total // size) < math.ceil(total / most) <= total // size


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool]]:
    """Draws, rows, and whether it may be compiled, of each chunk from the guide."""
    found: list[tuple[int, int, bool]] = []
    chunk = ImportanceSampler._chunk

    def noted(self: ImportanceSampler, programs: Any, k: int, whole: bool, batch: Any) -> Tensor:
        found.append((k, len(batch["x"]), whole))
        return chunk(self, programs, k, whole, batch)

    monkeypatch.setattr(ImportanceSampler, "_chunk", noted)
    monkeypatch.setattr(importance, "MAX_ELEMENTS_WEIGHED", 100 * importance.MIN_WIDTH)
    return found


def test_many_draws_of_few_rows_go_together(seen: list[tuple[int, int, bool]]) -> None:
    estimate(exact(), rows(6), draws=100)
    assert seen == [(100, 1, True)] * 6
    seen.clear()
    estimate(exact(), rows(7), draws=30)  # there is room for 3 rows, and 7 of them are three chunks
    assert seen == [(30, 2, True)] * 3 + [(30, 1, False)]
    seen.clear()
    estimate(exact(), rows(1), draws=250)
    assert seen == [(83, 1, True)] * 3 + [(1, 1, False)]
    seen.clear()
    estimate(exact(), rows(4), draws=100, draws_at_once=60)
    assert seen == [(60, 1, True), (40, 1, False)] * 4


@pytest.mark.parametrize("proposal", ["guide", "defensive", "refined"])
def test_chunks_keep_weights_and_given_tensors_of_each_row(proposal: Any, seen: list[Any]) -> None:
    x = rows(9) * torch.linspace(0, 3, 9)[:, None].double()  # far apart, so that none can stand for another
    found = estimate(exact(spread=1.3), x, draws=40, proposal=proposal)
    assert len(seen) > 3
    assert float(truth(x).std()) > 3
    assert float(((found.pointwise - truth(x)) / found.mcse.clamp(min=1e-3)).abs().max()) < 5


def test_masks_and_sizes_go_with_their_rows(seen: list[Any]) -> None:
    vae = pv.VAE((3,), 2, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(4,)))
    x, mask, size = torch.randint(5, (8, 3)).float(), torch.rand(8, 3) < 0.7, torch.rand(8) + 0.5
    x[~mask] = torch.nan
    given = {"x": x, "mask": mask, "size_factor": size}
    together = estimate(vae, given, draws=1000, draws_at_once=30)
    one_by_one = torch.cat(
        [estimate(vae, {n: t[i : i + 1] for n, t in given.items()}, draws=1000).pointwise for i in range(8)]
    )
    assert {row for _, row, _ in seen} == {1, 2}
    assert float(one_by_one.std()) > 1
    torch.testing.assert_close(together.pointwise, one_by_one, rtol=0, atol=0.3)
