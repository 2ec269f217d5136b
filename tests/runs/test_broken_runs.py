"""Run folders that are broken, foreign, misspelt or being written: each is a sentence, and nothing in one is run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import yaml
from helpers.small_runs import fit, rows, small

import pyro_vae as pv
from pyro_vae.runs.folder import FORMAT, RunFolder

# Broken and foreign runs


def rewritten(**changes: Any) -> Callable[[Path], None]:
    """Change some entries of the spec; `...` takes one away."""

    def change(run: Path) -> None:
        spec = {**yaml.safe_load((run / "spec.yaml").read_text()), **changes}
        text = yaml.safe_dump({name: value for name, value in spec.items() if value is not ...})
        (run / "spec.yaml").write_text(text)

    return change


def written(text: str | bytes, name: str = "spec.yaml") -> Callable[[Path], None]:
    """Write a file anew."""
    return lambda run: (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def of_another_model(run: Path) -> None:
    other = small(encoder=pv.MLP(hidden=(7,)))
    safetensors.torch.save_model(other, str(run / "model.safetensors"))


def cut_short(run: Path) -> None:
    file = run / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "is not a run folder: it has no spec.yaml"),
    "no spec": (lambda run: (run / "spec.yaml").unlink(), "is not a run folder: it has no spec.yaml"),
    "newer format": (rewritten(format=FORMAT + 1), r"written by a newer pyro_vae \(format 3; .*pip install --upgrade"),
    "no format": (rewritten(format=...), "no integer 'format', so it was not written by this package"),
    "format in words": (rewritten(format="one"), "no integer 'format'"),
    "broken YAML": (written("prior: [Normal"), "is not plain YAML"),
    "empty": (written(""), "has to hold names and values"),
    "a list": (written("- Normal"), "has to hold names and values"),
    "not text": (written(b"\xff\xfe\x00\x9d"), "cannot be read|is not plain YAML"),
    "a tag": (written("format: 2\nprior: !!python/name:os.system"), "is not plain YAML: could not determine a constr"),
    "unknown family": (rewritten(prior="Norml"), "unknown family for prior, 'Norml': did you mean 'Normal'"),
    "unknown network": (rewritten(encoder="Transformer"), "unknown network for encoder, 'Transformer'"),
    "a family by path": (rewritten(prior="os.system"), "unknown family for prior, 'os.system'"),
    "unknown field": (rewritten(prior={"Normal": {"location": 0}}), "unknown field of Normal 'location'"),
    "wrong field": (rewritten(prior={"Normal": {"loc": "zero"}}), "unknown source of Normal.loc, 'zero'"),
    "a field that is no number": (rewritten(prior={"Normal": {"loc": float("nan")}}), "is not a source of a parameter"),
    "two families": (rewritten(prior={"Normal": {}, "Laplace": {}}), "has to be a name, or one name with its fields"),
    "no latent_dim": (rewritten(latent_dim=...), r"declares no VAE \(it has no latent_dim\)"),
    "latent_dim in words": (rewritten(latent_dim="two"), "latent_dim = 'two' has to be an integer"),
    "no event_shape": (rewritten(event_shape=None), "event_shape = None has to be a tuple"),
    "event_shape in words": (rewritten(event_shape=["a"]), r"event_shape = \['a'\] has to be a tuple"),
    "no vae": (rewritten(guide="Bernoulli"), "has support {0, 1}"),
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "has no weights: model.safetensors is missing"),
    "weights cut short": (cut_short, "does not hold the weights of this model"),
    "weights that are none": (written("nothing", "model.safetensors"), "does not hold the weights of this model"),
    "weights of another model": (of_another_model, "does not hold the weights of this model: size mismatch"),
    "another family than the weights'": (rewritten(likelihood="Laplace"), "does not hold the weights of this model"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_run_is_refused_with_its_sentence(what: str, run: Path) -> None:
    breaking, sentence = BROKEN[what]
    breaking(run)
    with pytest.raises(pv.InputError, match=sentence) as caught:
        pv.load(run)
    assert "\n" not in str(caught.value)
    assert str(run) in str(caught.value)


def test_run_folder_executes_no_code(run: Path) -> None:
    trap = run.parent / "trap"
    for line in (f"prior: !!python/object/apply:os.mkdir [{trap}]", f"x: !!python/object/new:os.mkdir [{trap}]"):
        (run / "spec.yaml").write_text(f"format: 2\n{line}\n")
        with pytest.raises(pv.InputError, match="is not plain YAML"):
            pv.load(run)
    assert not trap.exists()
    with pytest.raises(yaml.YAMLError):
        yaml.full_load((run / "spec.yaml").read_text())
    yaml.unsafe_load(f"prior: !!python/object/apply:os.mkdir [{trap}]")
    assert trap.exists()  # the trap works where a loader falls into it


def test_misspelt_run_names_its_neighbours(run: Path) -> None:
    with pytest.raises(pv.InputError, match=f"is not a run folder: it has no spec.yaml. Runs in {run.parent}: run."):
        pv.load(run.parent / "rnu")


@pytest.mark.parametrize(
    "text", ["epoch,loss\n1,low\n", "epoch,loss\n1\n", b"\x00\xff"], ids=["words", "short", "bytes"]
)
def test_broken_history_is_refused(text: str | bytes, run: Path) -> None:
    written(text, "history.csv")(run)
    with pytest.raises(pv.InputError, match=r"history.csv is not a history of a run"):
        RunFolder(run).history()


def test_runs_of_two_processes_do_not_meet(run: Path) -> None:
    stranger = run.with_name(f".run.writing-{os.getpid() + 1}")
    stranger.mkdir()
    fit(small(), rows(), run, overwrite=True)
    assert stranger.exists()
