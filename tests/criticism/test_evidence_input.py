"""Evidence asked for wrongly, by programs that have none, and from the command line."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.exact_models import estimate, exact, pyro_pair
from pyro import poutine
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.cli import main

# Wrong input


def apart(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)


def subsampled(x: Tensor, latent_only: bool = False) -> None:
    with pyro.plate("data", 100, subsample_size=len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        if not latent_only:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def auxiliary(x: Tensor) -> None:
    with pyro.plate("rows", len(x), dim=-1):
        a = pyro.sample("a", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(a, 1.0))


def moved(x: Tensor) -> None:
    with pyro.plate("rows", len(x), dim=-1):
        a = pyro.sample("a", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(2 * a, log_density=torch.full_like(a, -math.log(2))))


PAIR = pyro_pair(lambda z: dist.Normal(z, 1.0), dist.Normal(0.0, 1.0), lambda x: dist.Normal(x / 2, 1.0))


def with_guide(guide: Any) -> SimpleNamespace:
    return SimpleNamespace(model=PAIR.model, guide=guide)


WRONG: dict[str, tuple[Any, Any, dict[str, Any], list[str]]] = {
    "no programs": (nn.Linear(2, 2), torch.zeros(4), {}, ["Linear", ".model and .guide"]),
    "proposal": (PAIR, torch.zeros(4), {"proposal": "prior"}, ["'prior'", "Known: guide, defensive"]),
    "draws": (PAIR, torch.zeros(4), {"draws": 1}, ["draws = 1", "at least 2"]),
    "defensive draws": (PAIR, torch.zeros(4), {"draws": 3, "proposal": "defensive"}, ["draws = 3", "at least 4"]),
    "half a draw": (PAIR, torch.zeros(4), {"draws": 10.5}, ["draws = 10.5", "integer"]),
    "batch": (PAIR, torch.zeros(4), {"batch_size": 0}, ["batch_size = 0", "at least 1"]),
    "at once": (PAIR, torch.zeros(4), {"draws_at_once": True}, ["draws_at_once = True"]),
    "seed": (PAIR, torch.zeros(4), {"seed": -1}, ["seed = -1"]),
    "shape": (exact(), torch.zeros(4, 3), {}, ["(4, 3)", "(N, 5)"]),
    "values": (exact(), torch.full((4, 5), math.nan), {}, ["x[0, 0] is nan", "mask"]),
    "one z for all": (
        SimpleNamespace(model=apart, guide=lambda x: pyro.sample("z", dist.Normal(0.0, 1.0))),
        torch.zeros(4),
        {},
        ["2 rows as 1", 'pyro.plate("data"'],
    ),
    "a part of the data": (
        SimpleNamespace(model=subsampled, guide=lambda x: subsampled(x, latent_only=True)),
        torch.zeros(4),
        {},
        ["'z' is scaled", "x.shape[0]"],
    ),
    "tempered": (
        SimpleNamespace(model=poutine.scale(PAIR.model, scale=0.5), guide=PAIR.guide),
        torch.zeros(4),
        {},
        ["is scaled", "poutine.scale"],
    ),
    "auxiliary": (with_guide(auxiliary), torch.zeros(4), {}, ["'a'", "auxiliary", "do without"]),
    "auxiliary, defensive": (
        with_guide(moved),
        torch.zeros(4),
        {"proposal": "defensive"},
        ["'a'", "auxiliary", "proposal='guide'"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_a_sentence(name: str) -> None:
    vae, x, options, words = WRONG[name]
    with pytest.raises(pv.InputError) as caught:
        estimate(vae, x, **options)
    message = str(caught.value)
    assert not [word for word in words if word not in message], message
    assert message.endswith("."), message


def test_guide_that_moves_an_auxiliary_draw_is_weighed() -> None:
    x = torch.tensor([0.0, 1.0])
    found = estimate(with_guide(moved), x, draws=2000)
    exactly = dist.Normal(0.0, math.sqrt(2)).log_prob(x)
    assert float(((found.pointwise - exactly) / found.mcse).abs().max()) < 4


def test_weight_that_is_nan_names_its_row() -> None:
    broken = pyro_pair(
        lambda z: dist.Normal(z, 1.0, validate_args=False),
        dist.Normal(0.0, 1.0),
        lambda x: dist.Normal(x, torch.where(x == 7, -1.0, 1.0), validate_args=False),
    )
    with pytest.raises(FloatingPointError, match="weights of row 4 are not finite"):
        estimate(broken, torch.tensor([0.0, 1, 2, 3, 7, 5]), draws=5, batch_size=2)


# The command line


def test_evaluate_prints_a_summary_and_writes_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "fit --latent_dim 2 --epochs 1 --encoder MLP --encoder.hidden [8] --progress false --run run"
    main([*words.split(), "--data.binarize", "dynamic", "--likelihood", "Bernoulli"])
    capsys.readouterr()
    evaluate = ["evaluate", "run", "--method.draws", "30", "--method.proposal", "defensive"]
    main([*evaluate, "--to", "e.csv"])
    out, error = capsys.readouterr()
    assert error == ""
    digits = pv.data.load("digits", binarize="dynamic")
    found = estimate(pv.load("run"), digits.test.to(dtype=torch.float32), draws=30, proposal="defensive")
    assert out == f"{found!r}\nLog p(x), error and k-hat of {len(digits.test)} rows in e.csv\n"
    table = np.genfromtxt("e.csv", delimiter=",", names=True)
    assert table.dtype.names == ("row", "log_p", "mcse", "khat")
    np.testing.assert_array_equal(table["log_p"], found.pointwise.numpy())
    np.testing.assert_array_equal(table["khat"], found.khat.numpy())
    main([*evaluate, "--split", "validation", "--data", "digits"])
    assert f"{len(digits.validation)} rows, 30 draws" in capsys.readouterr().out
    for wrong, sentence in {
        "--method.draws 1": "draws = 1",
        "--method.proposal prior": "'prior'",
        "--to e.csv": "exists",
        "--to e.npy": "ends in .csv",
        "--to none/e.csv": "there is no folder none",
        "--split tset": "tset",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            main([*evaluate, *wrong.split()])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
