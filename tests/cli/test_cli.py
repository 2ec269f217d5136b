"""The verbs, end to end on small data."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import yaml

import pyro_vae as pv
from pyro_vae import cli
from pyro_vae.cli import VERBS, load_verb, main
from pyro_vae.criticism.datatree import read
from pyro_vae.runs.folder import RunFolder

FIT = [
    "fit",
    "--latent_dim",
    "2",
    "--epochs",
    "1",
    "--encoder",
    "MLP",
    "--encoder.hidden",
    "[8]",
    "--progress",
    "false",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run fitted to the digits by the command line."""
    main([*FIT, "--run", "run"])
    capsys.readouterr()
    return here / "run"


def test_fit_writes_a_run_and_says_where(pictures: None, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(FIT)
    out, error = capsys.readouterr()
    run = here / "runs" / "digits"
    assert {path.name for path in run.iterdir()} == {"spec.yaml", "model.safetensors", "history.csv", "figures"}
    pictures = {"training.png", "draws.png", "reconstructions.png", "latent.png"}
    assert {path.name for path in (run / "figures").iterdir()} == pictures
    assert "digits" in out
    assert "nats per row" in out
    assert "runs/digits" in out
    assert error == ""


def test_spec_reproduces_its_run_bit_for_bit(run: Path, here: Path) -> None:
    main(["fit", "--config", "run/spec.yaml", "--run", "again", "--progress", "false"])
    assert (here / "again" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert (here / "again" / "spec.yaml").read_text() == (run / "spec.yaml").read_text()
    main(["fit", "--config", "run", "--run", "other", "--seed", "1", "--progress", "false"])
    assert (here / "other" / "model.safetensors").read_bytes() != (run / "model.safetensors").read_bytes()


def test_spec_records_what_is_needed_and_no_more_than_names(run: Path) -> None:
    spec = yaml.safe_load((run / "spec.yaml").read_text())
    assert spec["encoder"] == {"MLP": {"hidden": [8]}}
    assert spec["likelihood"] == {"Normal": {"scale": "learned"}}
    assert (spec["data"], spec["rows"], spec["event_shape"]) == ("digits", 1437, [1, 8, 8])
    assert set(spec["versions"]) == {"pyro-vae", "pyro-ppl", "torch"}


def test_print_config_prints_a_config(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--print_config", "--prior", "Laplace", "--optimizer.lr", "1e-4"])
    assert stopped.value.code in (0, None)
    printed = capsys.readouterr().out
    config = yaml.safe_load(printed)
    assert config["prior"] == "Laplace"
    assert config["optimizer"] == {"Adam": {"lr": 1e-4}}
    (here / "c.yaml").write_text(printed)
    main([*FIT, "--config", "c.yaml", "--run", "r"])
    assert pv.load("r").declaration.prior == pv.Laplace()


def test_help_comes_from_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, (_, line) in VERBS.items():
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--help"])
        assert stopped.value.code == 0
        out = " ".join(capsys.readouterr().out.split())
        summary = (load_verb(verb).__doc__ or "").split("\n")[0]
        assert summary == line
        assert summary in out
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("mean", [False, True])
def test_sample_writes_each_format(run: Path, here: Path, mean: bool) -> None:
    words = ["sample", "run", "--n", "9", "--mean", str(mean).lower()]
    main([*words, "--to", "x.npy"])
    x = np.load(here / "x.npy")
    assert x.shape == (9, 1, 8, 8)
    main([*words, "--to", "y.npy"])
    np.testing.assert_array_equal(x, np.load(here / "y.npy"))
    main([*words, "--to", "z.npy", "--seed", "1"])
    assert not np.array_equal(x, np.load(here / "z.npy"))
    main([*words, "--to", "x.png"])
    assert matplotlib.image.imread(here / "x.png").std() > 0
    with pytest.raises(SystemExit):
        main([*words, "--to", "x.npy"])
    main([*words, "--to", "x.npy", "--overwrite"])


def test_reconstruct_uses_the_data_of_the_run(run: Path, here: Path) -> None:
    main(["reconstruct", "run", "--n", "5", "--mean", "--to", "x.npy"])
    vae, digits = pv.load("run"), pv.data.load("digits")
    torch.manual_seed(0)
    expected = vae.reconstruct(digits.validation.x[:5].float(), mean=True)
    np.testing.assert_array_equal(np.load(here / "x.npy"), expected.numpy())
    main(["reconstruct", "run", "--n", "20", "--split", "test", "--to", "x.png"])
    assert (here / "x.png").stat().st_size > 0


def test_vectors_go_to_csv_and_back(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    (here / "t.csv").write_text("a,b,c\n" + "\n".join(",".join(map(str, row)) for row in x))
    main([*FIT, "--data", "t.csv", "--run", "r"])
    main(["sample", "r", "--n", "7", "--to", "draws.csv"])
    assert np.loadtxt(here / "draws.csv", delimiter=",").shape == (7, 3)
    capsys.readouterr()
    main(["describe", "r"])
    out = capsys.readouterr().out
    assert "x | z ~ Normal(loc=loc(z), scale=scale)" in out
    assert "MLP(hidden=(8,), activation='relu')" in out
    weights = sum(w.numel() for w in pv.load("r").parameters())
    assert f"{weights:,}" in out


def test_cross_entropy_is_called_one_everywhere(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*FIT, "--likelihood", "Bernoulli", "--likelihood.grey", "true", "--run", "r"])
    out = capsys.readouterr().out
    assert "cross-entropy" in out
    assert "log-likelihood" not in out
    assert "not a density" in out
    assert "not a density" in (here / "r" / "spec.yaml").read_text()
    main(["describe", "r"])
    assert "not a density" in capsys.readouterr().out
    assert "not a density" in repr(RunFolder(here / "r").history())


def test_interrupt_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(run: str) -> None:
        """Stop."""
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_verb", lambda name: interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(["describe", "x"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "pyro-vae: interrupted.\n"


def test_check_says_what_differs_and_keeps_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", str(run), "--draws", "20", "--progress", "false"]
    main([*words, "--statistics", "[mean, share of zeros]"])
    out = capsys.readouterr().out
    assert "20 population replicates" in out
    assert "(test split of digits)" in out
    tree = read(run / "check-population.nc")
    assert list(tree["checks"]["statistic"].values) == ["mean", "share of zeros"]
    assert {path.name for path in run.glob("check-population-*.png")} == {
        f"check-population-{name}.png" for name in ("replicates", "test-statistics", "coverage", "worst", "two-sample")
    }
    with pytest.raises(SystemExit):
        main(words)
    assert "exists" in capsys.readouterr().err
    main([*words, "--overwrite", "--kind", "posterior", "--candidates", "2", "--two_sample", "false"])
    assert "conservative" in capsys.readouterr().out
    assert "two_sample" not in read(run / "check-posterior.nc").children


def test_prior_check_of_a_run_is_of_its_weights_before_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(run), "--kind", "prior", "--draws", "20", "--two_sample", "false", "--progress", "false"])
    assert "initial values" in capsys.readouterr().out
    tree = read(run / "check-prior.nc")
    torch.manual_seed(0)
    untrained = pv.VAE((1, 8, 8), 2, encoder=pv.MLP(hidden=(8,))).initialize(pv.data.load("digits").train.x)
    again = pv.predictive_check(untrained, pv.data.load("digits").test, kind="prior", draws=20, two_sample=False)
    assert tree["statistics"].equals(again["statistics"])
