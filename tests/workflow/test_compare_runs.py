"""Comparing run folders, end to end on tiny runs: two priors with two seeds each."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas
import pytest
import torch
import yaml

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.plots import _run_figures
from pyro_vae.workflow import comparison as several

FIT = ["fit", "--latent_dim", "2", "--epochs", "1", "--encoder", "MLP", "--encoder.hidden", "[8]", "--progress=false"]
DATA = {"name": "digits", "binarize": "dynamic"}
DRAWS = ["--method.draws", "30"]
ALL = ["normal-0", "mix-0", "normal-1", "mix-1"]


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Runs without _run_figures, which take longer than these fits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_run_figures, "write", lambda *given: None)
        yield


@pytest.fixture(scope="module")
def folder(undrawn: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two priors with two seeds each, on the digits with pixels drawn anew."""
    at = tmp_path_factory.mktemp("runs")
    for prior, words in {"normal": [], "mix": ["--prior", "Mixture", "--prior.components", "3"]}.items():
        for seed in "01":
            binary = ["--data.binarize", "dynamic", "--likelihood", "Bernoulli"]
            main([*FIT, *words, *binary, "--seed", seed, "--run", str(at / f"{prior}-{seed}")])
    return at


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder of one's own with these runs in it."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def change(run: Path, **words: Any) -> None:
    file = run / "spec.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | words))


def test_runs_become_groups_that_are_compared_on_the_same_rows(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", *ALL, *DRAWS, "--to", "c.csv"])
    out, error = capsys.readouterr()
    assert error == ""
    digits = pv.data.load("digits", binarize="dynamic").test.to(dtype=torch.float32)
    method = pv.criticism.Importance(30)
    found = pv.compare(
        {
            name: [pv.evidence(pv.load(f"{name}-{s}"), digits, method=method, progress=False) for s in "01"]
            for name in ("normal", "mix")
        }
    )
    assert out.startswith(repr(found))
    first, second = ("Normal(loc=0.0, scale=1.0)", "Mixture(components=3)")[:: 1 if found.names[0] == "normal" else -1]
    assert f"\nWhat differs: prior: {first} | {second}\n" in out
    table = pandas.read_csv("c.csv", index_col="model")
    assert list(table.index) == found.names
    assert list(table["seeds"]) == [2, 2]
    np.testing.assert_array_equal(table["log_p"], [at.log_p.value for at in found.models])
    again = []
    for seed in ("0", "0", "1"):
        main(["compare", "normal-0", "mix-0", *DRAWS, "--seed", seed])
        again.append(capsys.readouterr().out)
    assert again[0] == again[1] != again[2]


def test_options_may_stand_among_the_runs_and_the_picture_is_written(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", "normal-0", "--split", "validation", *DRAWS, "mix-0", "--to", "c.png", "mix-1", "--batch_size=50"])
    out = capsys.readouterr().out
    assert "normal-0" in out
    assert "One seed of normal-0 represents itself" in out
    assert "The picture in c.png" in out
    picture = matplotlib.image.imread(here / "c.png")
    assert picture.std() > 0
    main(["compare", "normal-0", "mix-0", *DRAWS, "--to", "c.png", "--overwrite"])


def test_other_data_may_be_named_for_all(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    np.save(here / "x.npy", x)
    for name, guide in (("a", pv.Normal()), ("b", pv.MultivariateNormal())):
        vae = pv.VAE((3,), 2, guide=guide, encoder=pv.MLP(hidden=(4,)))
        pv.fit(vae, x, epochs=1, run=name, progress=False)
    main(["compare", "a", "b", "--data", "x.npy", *DRAWS])
    out = capsys.readouterr().out
    assert "mean of 6 rows" in out
    assert "guide: " in out
    refused(capsys, ["compare", "a", "b"], "data in memory", "--data")


def refused(capsys: pytest.CaptureFixture[str], words: list[str], *sentence: str) -> None:
    """One sentence, status 2, and nothing else."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1, error
    assert not [part for part in sentence if part not in error], error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", ["required", "runs"]),
        ("normal-0", ["two or more", "pyro-vae compare RUN RUN"]),
        ("normal-0 ./normal-0", ["two or more different"]),
        ("normal-0 nothing", ["nothing is not a run folder", "mix-0, mix-1, normal-0, normal-1"]),
        ("normal-0 normal-1", ["differ in their seed only", "another specification"]),
        ("normal-0 mix-0 --to c.npy", ["ends in .png, .csv"]),
        ("normal-0 mix-0 --to none/c.png", ["there is no folder none"]),
        ("normal-0 mix-0 --split tset", ["tset"]),
        ("normal-0 mix-0 --method.draws 1", ["draws = 1"]),
        ("normal-0 mix-0 --method Importanc", ["Importance"]),
        ("normal-0 mix-0 --tu c.png", ["--tu", "--to"]),
        ("normal-0 mix-0 --batch_size 0", ["batch_size = 0"]),
    ],
)
def test_wrong_words_are_a_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], words: str, sentence: list[str]
) -> None:
    refused(capsys, ["compare", *words.split()], *sentence)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before any work."""

    def measured(*given: Any, **named: Any) -> None:
        raise AssertionError("measured before it was refused")

    monkeypatch.setattr(several, "evidence", measured)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"data": "mnist"}, ["data='digits'", "data='mnist'", "--data"]),
        ({"data": {**DATA, "binarize": "static"}}, ["binarize='dynamic'", "binarize='static'", "--data.binarize"]),
        ({"data": {**DATA, "levels": 17}}, ["levels=None", "levels=17", "--data.levels"]),
        ({"data": {**DATA, "test": 0.2}}, ["test=0.1", "test=0.2"]),
        ({"data": {**DATA, "seed": 1}}, ["seed=0", "seed=1", "--data.seed"]),
        ({"fingerprint": "0"}, ["fingerprint=", "has changed"]),
    ],
)
def test_runs_on_other_data_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], words: dict[str, Any], sentence: list[str]
) -> None:
    change(here / "mix-0", **words)
    refused(capsys, ["compare", "normal-0", "mix-0"], "normal-0 and mix-0 cannot be compared", *sentence)


@pytest.mark.usefixtures("unmeasured")
def test_compare_refuses_the_same_training_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("normal-0", "copy")
    refused(capsys, ["compare", "normal-0", "mix-0", "copy"], "normal-0 and copy", "one seed")


@pytest.mark.usefixtures("unmeasured")
def test_other_kinds_of_numbers_and_models_are_refused_before_work(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in {
        "dense": ["--likelihood", "ContinuousBernoulli"],
        "grey": ["--likelihood", "Bernoulli", "--likelihood.grey", "true"],
    }.items():
        main([*FIT, *words, "--data.binarize", "dynamic", "--run", name])
    capsys.readouterr()
    refused(capsys, ["compare", "normal-0", "dense"], "normal-0", "dense", "probabilities", "densities")
    refused(capsys, ["compare", "grey", "normal-0"], "'grey'", "'normal-0'", "not a density")
    spec = yaml.safe_load((here / "mix-0" / "spec.yaml").read_text())
    del spec["event_shape"]
    (here / "mix-0" / "spec.yaml").write_text(yaml.safe_dump(spec))
    refused(capsys, ["compare", "normal-0", "mix-0"], "mix-0", "declares no VAE")
    (here / "mix-1" / "model.safetensors").unlink()
    refused(capsys, ["compare", "normal-0", "mix-1"], "mix-1 has no weights")


def test_rows_that_do_not_suit_a_model_name_its_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(here / "x.npy", np.random.default_rng(0).uniform(size=(60, 3)).astype("float32"))
    refused(capsys, ["compare", "normal-0", "mix-0", "--data", "x.npy"], "normal-0: ", "(N, 1, 8, 8)")


@pytest.mark.parametrize(
    ("members", "others", "name"),
    [
        (["mlp-seed10", "mlp-seed11"], [["conv"]], "mlp"),
        (["r/a0", "r/a1"], [["r/b0"]], "a"),
        (["vae2"], [["vae3"]], "vae2"),
        (["x", "y"], [["z"]], "x + y"),
        (["0", "1"], [["2"]], "0 + 1"),
        (["one/run"], [["two/run"]], "one/run"),
        (["one/a-0", "one/a-1"], [["two/a-0", "two/a-1"]], "one/a-0 + one/a-1"),
    ],
)
def test_group_is_named_by_what_its_folders_share(members: list[str], others: list[list[str]], name: str) -> None:
    groups = [[Path(member) for member in group] for group in [members, *others]]
    assert several._name(groups[0], groups) == name
