"""Rows that float32 would round away are refused, values that it merges and constant columns are named."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.fitting import fit
from helpers.slow import slow_but

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.data import Rows
from pyro_vae.families import Family

FEW = pv.criticism.Importance(draws=50)
NAMES = ["time", "share"]


def small(size: int = 2) -> pv.VAE:
    torch.manual_seed(0)
    return pv.VAE((size,), 1, likelihood=pv.Normal(scale="per_feature"), encoder=pv.MLP(hidden=(6,)))


def noise(n: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2))


USES: dict[str, Any] = {
    "validation": lambda vae, x: fit(vae, noise(), validation=x, epochs=1),
    "evidence": lambda vae, x: pv.evidence(vae, x, method=FEW, progress=False),
    "encode": lambda vae, x: vae.encode(x),
    "reconstruct": lambda vae, x: vae.reconstruct(x),
    "check": lambda vae, x: pv.predictive_check(vae, x, draws=20, two_sample=False, progress=False),
}
"""What a model that has no starting values from rows far from 0 is used for."""


class OwnEncoder(torch.nn.Module):
    """An encoder that sees x as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Raw parameters of q(z|x)."""
        return {"loc": self.loc(x), "scale": 0 * self.loc(x)}


WITHOUT_SHIFT = {
    "a family without a shift": lambda: pv.VAE((2,), 1, likelihood=pv.Gamma(), encoder=pv.MLP(hidden=(6,))),
    "an encoder of one's own": lambda: pv.VAE((2,), 1, encoder=OwnEncoder(), decoder=pv.MLP(hidden=(6,))),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["array", "tensor", "frame"])
def test_rows_that_float32_rounds_away_are_refused_by_what_mends_them(kind: str, use: str) -> None:
    x: Any = noise() + np.array([1e8, 0.0])
    x = {"array": lambda: x, "tensor": lambda: torch.tensor(x), "frame": lambda: pd.DataFrame(x, columns=NAMES)}[kind]()
    column = "'time'" if kind == "frame" else "0"
    with pytest.raises(pv.InputError, match=f"column {column} of x is around 1e.08 .* float32 rounds away") as refusal:
        USES[use](small(), x)
    second, first = re.findall("`([^`]*)`", str(refusal.value))
    USES[use](small(), eval(first, {"x": x}))
    vae = small()
    eval(second, {"vae": vae})
    USES[use](vae, x)


@pytest.mark.parametrize("kind", WITHOUT_SHIFT)
def test_models_that_take_no_shift_of_their_data_are_not_fitted_to_rounded_rows(kind: str) -> None:
    x = noise() + 1e8
    with pytest.raises(pv.InputError, match="float32 rounds away"):
        fit(WITHOUT_SHIFT[kind](), x, epochs=1)


FAMILIES = [
    pv.Normal(scale="per_feature"),
    pv.Normal(),
    pv.Normal(scale=1.0),
    pv.Laplace(),
    pv.StudentT(),
    pv.MultivariateNormal(),
    pv.Mixture(pv.Normal(), components=2),
    pv.Flow(transforms=1, hidden=(8,)),
]


@pytest.mark.parametrize("likelihood", slow_but(FAMILIES[:1] + FAMILIES[-2:], FAMILIES), ids=repr)
def test_model_of_rows_far_from_0_is_that_of_the_rows_without_offset(likelihood: Family, tmp_path: Path) -> None:
    x = noise()
    found = []
    for offset in (0.0, 1e8):
        torch.manual_seed(0)
        prior, network = pv.VampPrior(4), pv.MLP(hidden=(6,))
        vae = pv.VAE((2,), 1, likelihood=likelihood, prior=prior, encoder=network)
        moved = x + offset
        losses = fit(vae, moved, validation=moved, epochs=3, run=tmp_path / f"{offset:g}")["loss"]
        loaded = pv.load(tmp_path / f"{offset:g}")
        assert loaded.row_type == vae.row_type == vae.replace(guide=pv.MultivariateNormal()).row_type
        assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
        evidence = pv.evidence(loaded, moved, method=FEW, progress=False).mean
        drawn, replicates = loaded.sample(300), loaded.reconstruct(moved)
        assert drawn.dtype == replicates.dtype == (torch.float64 if offset else torch.float32)
        assert 0.3 < float((drawn.double() - offset).std()) < 5
        codes = loaded.encode(moved).mean
        assert codes.dtype == torch.float32
        density = loaded.decode(codes).log_prob(torch.tensor(moved).to(loaded.row_type))
        found.append([*losses, evidence, *codes.flatten().tolist(), *density.tolist()])
    np.testing.assert_allclose(*np.array(found, dtype=float), rtol=1e-4, atol=1e-4)


def test_checks_of_rows_far_from_0_are_those_of_a_right_model() -> None:
    vae, x = small(), noise(300) + 1e8
    fit(vae, x, epochs=20)
    found = pv.predictive_check(vae, x, draws=100, progress=False)
    assert abs(float(found["observed_data"]["x[0]"].mean()) - 1e8) < 1
    assert (found["checks"]["p_value"] > 0.01).all()
    assert found["two_sample"]["classifier_p_value"] > 0.01
    assert found["two_sample"]["importance"].sum() == pytest.approx(1)  # NaN where no feature tells them apart
    assert found["two_sample"]["mmd_p_value"] > 0.01
    assert found["calibration"]["coverage_overall"].to_numpy() == pytest.approx([0.5, 0.8, 0.9, 0.95], abs=0.06)


def test_training_on_rows_far_from_0_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    whole, x = small(), noise() + 1e8
    fit(whole, x, epochs=4)
    for epochs in (2, 4):
        part = small()
        fit(part, x, epochs=epochs, run=pv.RunOptions(tmp_path, checkpoints=pv.Checkpoints(), resume=epochs == 4))
    for vae in (part, pv.load(tmp_path), pv.load(tmp_path, checkpoint="last")):
        assert vae.row_type == torch.float64
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, vae.state_dict()[name])


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_rows_that_float32_holds_are_taken_in_silence(offset: float) -> None:
    for use in USES.values():
        use(small(), noise() + offset)


def test_values_that_float32_merges_are_named() -> None:
    minutes = 1.7e9 + 60.0 * np.arange(2000)
    x = pd.DataFrame({"time": minutes, "share": np.random.default_rng(0).random(2000)})
    vae = small()
    with pytest.warns(UserWarning, match="column 'time' of x has 2000 different values, and 9.. of them in float32"):
        vae.encode(x)
    fit(vae, x, epochs=1)
    assert vae.row_type == torch.float64
    vae.encode(x)
    small().encode(x - x.mean(axis=0))
    small().double().encode(x)


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


def test_command_line_keeps_rows_far_from_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(noise(200) + 1e8, columns=NAMES).to_csv("far.csv", index=False)
    words = "fit --data far.csv --latent_dim 1 --epochs 3 --run far --likelihood.scale per_feature"
    words += " --encoder MLP --encoder.hidden [6]"
    main(words.split())
    capsys.readouterr()
    main(["evaluate", "far", "--method.draws", "50"])
    told = float(re.findall(r"log p\(x\) = (\S+) nats", capsys.readouterr().out)[0])
    test = pv.data.load("far.csv").test
    assert told == pytest.approx(pv.evidence(pv.load("far"), test, method=FEW, progress=False).mean, abs=0.02)
    main(["sample", "far", "--n", "50", "--to", "draws.csv"])
    assert 0.5 < float(pd.read_csv("draws.csv").to_numpy().std()) < 2
