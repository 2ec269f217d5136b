"""A sweep's points: which there are, what they are called, and what is refused before the first one begins."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.sweeping import base, sweep, weights
from scipy.stats import kstest

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.sweeps import search_space
from pyro_vae.sweeps.optuna_search import draw_points

__all__ = ["base"]

WRONG: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "nothing": ({}, {}, {}, "over = {} has to name options"),
    "no mapping": ([1], {}, {}, r"over = \[1\] has to name options"),
    "misspelt option": (
        {"latent_dims": [1]},
        {},
        {},
        "'latent_dims': did you mean 'latent_dim'",
    ),
    "misspelt field": ({"optimizer.rl": [1]}, {}, {}, "the point rl=1: unknown field of Adam 'rl'"),
    "misspelt family": ({"prior": ["Normal", "Norml"]}, {}, {}, "the point prior=Norml.*did you mean 'Normal'"),
    "wrong type": ({"epochs": [1, "two"]}, {}, {}, "the point epochs=two: epochs = 'two' has to be an integer"),
    "wrong number": ({"optimizer.lr": [1e-3, -1.0]}, {}, {}, "the point lr=-1.0: Adam.lr = -1.0 has to be at least 0"),
    "one value": ({"epochs": 3}, {}, {}, r"over: epochs = 3 has to be a list of values, as in {epochs: \[3\]}"),
    "no values": ({"epochs": []}, {}, {}, r"over: epochs = \[\] has to be a list"),
    "a word": ({"prior": "Normal"}, {}, {}, r"as in {prior: \[Normal\]}"),
    "twice": ({"epochs": [1, 2, 1]}, {}, {}, "epochs has 1 twice"),
    "field of a number": ({"epochs.x": [1]}, {}, {}, "epochs is one value and has no 'x'"),
    "the run": ({"run": ["a"]}, {}, {}, "the sweep itself sets run"),
    "the run for all": ({"epochs": [1]}, {"run": "a"}, {}, "base: the sweep itself sets run"),
    "hidden": ({"_callbacks": [1]}, {}, {}, "unknown option in over, '_callbacks'"),
    "wrong for all": ({"epochs": [1]}, {"latent_dim": "two"}, {}, "latent_dim = 'two' has to be an integer"),
    "misspelt for all": ({"epochs": [1]}, {"latnt_dim": 2}, {}, "unknown option in base, 'latnt_dim'"),
    "no such base": ({"epochs": [1]}, "none.yaml", {}, "none.yaml cannot be read"),
    "base of another type": ({"epochs": [1]}, 3, {}, "base = 3 has to be options of fit"),
    "grid of a range": (
        {"epochs": {"low": 1, "high": 3}},
        {},
        {},
        "epochs is a range, which has no grid.*samples",
    ),
    "empty range": (
        {"epochs": {"low": 3, "high": 1}},
        {},
        {"samples": 2},
        "from 3 to 1, which needs low < high",
    ),
    "log of zero": ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, {}, {"samples": 2}, "needs low > 0"),
    "misspelt range": (
        {"epochs": {"low": 1, "high": 3, "lgo": True}},
        {},
        {"samples": 2},
        "'lgo': did you mean 'low' or 'log'",
    ),
    "word in a range": ({"epochs": {"low": "a", "high": 3}}, {}, {"samples": 2}, "over: epochs.low = 'a'"),
    "range of words": ({"prior": {"low": 1, "high": 3}}, {}, {"samples": 2}, "the point prior="),
    "too many samples": ({"seed": [1, 2]}, {}, {"samples": 3}, "there are only 2 different points"),
    "samples of a grid": ({"seed": [1]}, {}, {"samples": 1, "search": "grid"}, "takes all points"),
    "random without samples": ({"seed": [1]}, {}, {"search": "random"}, "give samples=20"),
    "unknown search": ({"seed": [1]}, {}, {"search": "bayes"}, "unknown search 'bayes'"),
    "no samples": ({"seed": [1]}, {}, {"samples": 0}, "samples = 0 has to be an integer of at least 1"),
    "no jobs": ({"seed": [1]}, {}, {"jobs": 0}, "jobs = 0 has to be an integer of at least 1"),
    "huge grid": ({"seed": list(range(101)), "epochs": list(range(1, 101))}, {}, {}, "this grid has 10100 points"),
    "own network": ({"encoder": [torch.nn.Linear(3, 2)]}, {}, {}, "a part of your own"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_sweep_is_refused_before_anything_is_done(base: dict[str, Any], name: str) -> None:
    over, common, words, message = WRONG[name]
    with pytest.raises(pv.InputError, match=message) as caught:
        sweep(over, base | common if isinstance(common, dict) else common, **words)
    assert str(caught.value).endswith((".", ")"))
    assert not Path("sweep").exists()


def points(over: Any, samples: int, seed: int = 0) -> list[dict[str, Any]]:
    return draw_points(search_space.axes_of(over, {}), samples, seed)


def test_random_points_are_reproducible_and_more_begin_with_the_same() -> None:
    over = {"latent_dim": {"low": 2, "high": 60}, "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    assert points(over, 5) == points(over, 9)[:5]
    assert points(over, 5) != points(over, 5, seed=1)
    assert len({json.dumps(one) for one in points({"seed": [0, 1], "epochs": [1, 2]}, 4)}) == 4


def test_ranges_are_drawn_from_evenly() -> None:
    over = {"optimizer.lr": {"low": 1e-4, "high": 1, "log": True}, "prior.scale": {"low": 1, "high": 3}}
    drawn = points(over | {"latent_dim": {"low": 2, "high": 4}}, 2000)
    rates = [math.log10(one["optimizer.lr"]) for one in drawn]
    assert kstest(rates, "uniform", (-4, 4)).pvalue > 1e-3
    assert kstest([one["prior.scale"] for one in drawn], "uniform", (1, 2)).pvalue > 1e-3  # a real number's field
    latents, counts = np.unique([one["latent_dim"] for one in drawn], return_counts=True)
    assert latents.tolist() == [2, 3, 4]
    assert all(isinstance(one["latent_dim"], int) for one in drawn)
    assert np.abs(counts / 2000 - 1 / 3).max() < 4 * math.sqrt(2 / 9 / 2000)


def test_names_are_of_files_and_of_one_point_each() -> None:
    values: list[Any] = [
        1,
        "1",
        1.5,
        None,
        True,
        "a/b",
        "a-b",
        "..",
        {"Normal": {"loc": 0}},
        {"Normal": {"loc": [0]}},
        "x" * 400,
    ]
    values += [[1, 2], "é", " ", ""]
    names = [search_space.Point({"prior": value, "guide.loc": 1}, {}).name for value in values]
    names += [
        search_space.Point({"prior.loc": 1, "guide.loc": 2}, {}).name,
        search_space.Point({"prior.loc": 2, "guide.loc": 1}, {}).name,
    ]
    assert len(set(names)) == len(names)
    assert all(len(name) < 200 and not set(name) & set("/\\:*?\"<>| ()'") and name[0] != "." for name in names)


def test_command_line_is_the_same_sweep(base: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    sweep({"latent_dim": [1], "optimizer.lr": [1e-3, 3e-4]}, base, "python")
    Path("base.yaml").write_text("epochs: 7\nbatch_size: 30\n")
    words = ["--data", "x.npy", "--encoder", "MLP", "--encoder.hidden", "[4]", "--epochs=2"]
    over = ["--over", "{latent_dim: [1], optimizer.lr: [1e-3, 3e-4]}"]
    main(["sweep", "--config", "base.yaml", *over, *words, "--to", "words"])
    out, error = capsys.readouterr()
    for run in ("latent_dim=1,lr=0.001", "latent_dim=1,lr=0.0003"):
        assert weights(Path("words") / run) == weights(Path("python") / run)
        assert f"{run}: finished  validation loss" in error
    assert "words/sweep.csv" in out
    assert "best validation loss" in out
    main(["sweep", "--over", "{seed: [0]}", *words, "--runtime.devices", "1", "--compile", "false", "--to", "typed"])
    assert Path("typed/seed=0/spec.yaml").exists()
    capsys.readouterr()
    Path("base.yaml").write_text(json.dumps(base))
    main(["sweep", *over, "--config", "base.yaml", "--to", "python", "--progress", "false"])
    assert capsys.readouterr().err == ""


CLI: dict[str, tuple[list[str], str]] = {
    "no over": ([], "over = {} has to name options"),
    "over a number": (["--over", "3"], "--over = 3 has to be a mapping of names"),
    "over a name": (["--over", "seed"], "has to be a mapping of names, as in '{seed: [1, 2]}'"),
    "unknown option": (
        ["--over", "{seed: [0]}", "--epohcs", "3"],
        "'--epohcs': did you mean '--epochs'",
    ),
    "wrong option": (["--over", "{seed: [0]}", "--latent_dim", "two"], "--latent_dim = 'two'"),
    "run": (["--over", "{seed: [0]}", "--run", "r"], "unknown option '--run'"),
    "all fail": (
        ["--over", "{seed: [0]}", "--data", "none.npy"],
        "none of 1 points is finished. seed=0: ",
    ),
}


@pytest.mark.parametrize("name", CLI)
def test_command_line_refuses_with_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = CLI[name]
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "--progress", "false", *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("pyro-vae: ")
    assert error.count("\n") == 1
    assert message in error
