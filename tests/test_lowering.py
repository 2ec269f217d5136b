"""Compiled evidence: the same numbers by the same draws, or a warning and the function itself."""

from typing import Any

import pytest
import torch
from measured import estimate, exact, rows, truth
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism import Importance
from pyro_vae.criticism.methods.lowering import lowered


@pytest.mark.slow  # a compiler runs for half a minute
def test_compiled_evidence_is_the_same_by_the_same_draws() -> None:
    x = rows(25)
    options = {"draws": 200, "draws_at_once": 60, "batch_size": 10}  # with rests of draws and of rows
    vae = exact(spread=1.5)
    plain, compiled = (estimate(vae, x, **options, compiled=compiled) for compiled in (False, True))
    torch.testing.assert_close(plain.pointwise, compiled.pointwise, rtol=0, atol=1e-8)
    torch.testing.assert_close(plain.error, compiled.error, rtol=1e-6, atol=1e-10)
    assert float(((compiled.pointwise - truth(x)) / compiled.error).abs().max()) < 4.5


def without_compiler(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Stand in for the compiler, which takes long: what was recorded, changed."""
    monkeypatch.setattr(torch, "compile", lambda recorded, options: change(recorded))


def test_what_is_recorded_is_the_function_with_its_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch, lambda recorded: recorded)
    x = rows(25)
    options = {"draws": 200, "draws_at_once": 60, "batch_size": 10, "proposal": "defensive"}
    vae = exact(spread=1.5)
    plain, compiled = (estimate(vae, x, **options, compiled=compiled) for compiled in (False, True))
    torch.testing.assert_close(plain.pointwise, compiled.pointwise, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda recorded: lambda batch: recorded(batch) + 0.01, "it differs by 0.01"),
        (lambda recorded: 1 / 0, "ZeroDivisionError"),
    ],
    ids=["other values", "no compiler"],
)
def test_what_fails_is_told_and_runs_as_it_is(change: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch, change)
    vae, x = exact(spread=1.5), rows(5)
    plain = estimate(vae, x, draws=50)
    with pytest.warns(UserWarning, match=f"evidence runs uncompiled, .*{said}"):
        found = estimate(vae, x, draws=50, draws_at_once=50, compiled=True)
    torch.testing.assert_close(found.pointwise, plain.pointwise, rtol=0, atol=1e-12)


def test_a_function_that_waits_for_the_device_is_left_as_it_is() -> None:
    def waits(batch: Any) -> Tensor:
        value: Tensor = batch["x"]
        return value if float(value.sum()) > 0 else -value

    with pytest.warns(UserWarning, match="evidence runs uncompiled"):
        assert lowered(waits, exact(), {"x": torch.ones(3)}) is waits


def test_a_refined_proposal_is_not_compiled() -> None:
    with pytest.raises(pv.InputError, match="leave one of the two out"):
        Importance(proposal="refined", compiled=True)
