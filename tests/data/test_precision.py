"""Rows that float32 would round away are refused, values that it merges and constant columns are named."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.fitting import fit

import pyro_vae as pv
from pyro_vae.data import Rows

FEW = pv.criticism.Importance(draws=50)
NAMES = ["time", "share"]


def small(size: int = 2) -> pv.VAE:
    torch.manual_seed(0)
    return pv.VAE((size,), 1, likelihood=pv.Normal(scale="per_feature"), encoder=pv.MLP(hidden=(6,)))


def noise(n: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2))


USES: dict[str, Any] = {
    "fit": lambda vae, x: fit(vae, x, epochs=1),
    "validation": lambda vae, x: fit(vae, noise(), validation=x, epochs=1),
    "evidence": lambda vae, x: pv.evidence(vae, x, method=FEW, progress=False),
    "encode": lambda vae, x: vae.encode(x),
    "reconstruct": lambda vae, x: vae.reconstruct(x),
    "check": lambda vae, x: pv.predictive_check(vae, x, draws=20, two_sample=False, progress=False),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["array", "tensor", "frame"])
def test_rows_that_float32_rounds_away_are_refused_by_what_mends_them(kind: str, use: str) -> None:
    x: Any = noise() + np.array([1e8, 0.0])
    x = {"array": lambda: x, "tensor": lambda: torch.tensor(x), "frame": lambda: pd.DataFrame(x, columns=NAMES)}[kind]()
    column = "'time'" if kind == "frame" else "0"
    with pytest.raises(pv.InputError, match=f"column {column} of x is around 1e.08 .* float32 rounds away") as refusal:
        USES[use](small(), x)
    first, second = re.findall("`([^`]*)`", str(refusal.value))
    USES[use](small(), eval(first, {"x": x}))
    vae = small()
    eval(second, {"vae": vae})
    USES[use](vae, x)


def test_evidence_of_the_mended_rows_is_that_of_the_rows_without_offset() -> None:
    x = noise(400)
    vae = small()
    fit(vae, x, epochs=20)
    expected = pv.evidence(vae, x, method=FEW, progress=False).mean
    far, moved = x + 1e8, small().double()
    fit(moved, far, epochs=20)
    assert pv.evidence(moved, far, method=FEW, progress=False).mean == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_rows_that_float32_holds_are_taken_in_silence(offset: float) -> None:
    for use in USES.values():
        use(small(), noise() + offset)


def test_values_that_float32_merges_are_named() -> None:
    minutes = 1.7e9 + 60.0 * np.arange(2000)
    x = pd.DataFrame({"time": minutes, "share": np.random.default_rng(0).random(2000)})
    with pytest.warns(UserWarning, match="column 'time' of x has 2000 different values, and 9.. of them in float32"):
        fit(small(), x, epochs=1)
    fit(small(), x - x.mean(axis=0), epochs=1)
    fit(small().double(), x, epochs=1)


def test_table_keeps_what_float32_would_merge(tmp_path: Path) -> None:
    x = pd.DataFrame({"time": 1.7e9 + 60.0 * np.arange(200), "share": np.random.default_rng(0).random(200)})
    for name, columns in (("both", NAMES), ("share", ["share"])):
        x[columns].to_csv(tmp_path / f"{name}.csv", index=False)
    both = pv.data.load(str(tmp_path / "both.csv"), validation=0, test=0).train
    assert both.x.dtype == torch.float64
    assert sorted(both.x[:, 0].tolist()) == x["time"].tolist()
    assert pv.data.load(str(tmp_path / "share.csv")).train.x.dtype == torch.float32


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_unit_whose_square_is_no_number_is_refused_by_another_unit(scale: float) -> None:
    x = noise() * scale
    with pytest.raises(pv.InputError, match="whose square is no number in float32") as refusal:
        fit(small(), x)
    mended = eval(re.findall("`([^`]*)`", str(refusal.value))[0], {"x": x})
    assert np.isfinite(fit(small(), mended)["loss"]).all()


def test_constant_columns_are_named() -> None:
    x = pd.DataFrame(noise(), columns=NAMES).assign(country=3.0)
    with pytest.warns(UserWarning, match="one value in all rows: column 'country'. Its unit is taken for 1; drop it"):
        fit(small(3), x, epochs=1)
    Rows.of(x).check_precision(torch.float32)
