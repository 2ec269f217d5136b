"""A run or a checkpoint from a stranger executes nothing, reads and writes nothing elsewhere, and costs no memory."""

import json
import os
import pickle
import resource
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.cases import same
from helpers.resuming import cut, fit, rows, small, steps, whole
from helpers.small_runs import content

import pyro_vae as pv
from pyro_vae.training import snapshot


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training that was cut off after its fifth step, with that one checkpoint."""
    run = cut(whole(tmp_path / "whole"), steps(tmp_path / "whole")[4], tmp_path / "run")
    for file in steps(run)[:-1]:
        file.unlink()
    shutil.rmtree(tmp_path / "whole")
    return run


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps(Trap(file.parents[2] / "trap")))


def torch_pickled(file: Path) -> None:
    torch.save({"weights": Trap(file.parents[2] / "trap")}, file)


def huge(file: Path) -> None:
    shape = [2**40, 2**10]
    header = json.dumps({"weights/a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 2**52]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)


def huge_header(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def state(text: str) -> Callable[[Path], None]:
    """A checkpoint with such words in its header, and a right checksum."""

    def change(file: Path) -> None:
        metadata = {"format": "1", "state": text, "sha256": snapshot._digest(text, {})}
        safetensors.torch.save_file({}, str(file), metadata)

    return change


UNREADABLE: dict[str, Callable[[Path], Any]] = {
    "a pickle": pickled,
    "torch's pickle": torch_pickled,
    "a huge shape": huge,
    "a huge header": huge_header,
    "a pipe": pipe,
    "a folder": folder,
    "no JSON": state("__import__('os').mkdir('trap')"),
    "deep": state("[" * 100_000 + "]" * 100_000),
    "an unknown kind": state('{"object": "os.mkdir"}'),
    "a tensor that is not there": state('{"tensor": "../../etc/passwd"}'),
    "a key that is none": state('{"mapping": [[[1], 2]]}'),
    "a list": state("[1, 2]"),
    "nothing": state("null"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_file_that_is_not_a_checkpoint_is_damaged(name: str, run: Path) -> None:
    UNREADABLE[name](steps(run)[-1])
    vae, untouched = small(), small()
    with pytest.raises(pv.InputError, match="is damaged") as caught:
        fit(vae, rows(), run=run, resume=True)
    with pytest.raises(pv.InputError):
        pv.load(run, checkpoint="last")
    assert "\n" not in str(caught.value)
    assert same(vae.state_dict(), untouched.state_dict())
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_trap_works_where_somebody_unpickles(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "trap")))
    assert (tmp_path / "trap").exists()


def put(tree: Any, path: Sequence[Any], value: Any) -> None:
    *way, last = path
    for key in way:
        tree = tree[key]
    tree[last] = value(tree[last]) if callable(value) else value


FORGED: dict[str, tuple[Sequence[Any], Any]] = {
    "a name of a file": (("weights", "../../../escaped"), torch.zeros(1)),
    "one weight more": (("weights", "more"), torch.zeros(1)),
    "a long weight": (("weights", "first"), lambda tensor: torch.zeros(10**6)),
    "a weight of another type": (("weights", "first"), lambda tensor: tensor.long()),
    "a word for a weight": (("weights", "first"), "os.system"),
    "a short moment": (("optimizer", "state", 0, "exp_avg"), torch.zeros(1, 1)),
    "a moment that is a number": (("optimizer", "state", 0, "exp_avg_sq"), "x" * 10),
    "a weight that is not there": (("optimizer", "state", 99), {"exp_avg": torch.zeros(3)}),
    "a rate in words": (("optimizer", "param_groups", 0, "lr"), "fast"),
    "other groups": (("optimizer", "param_groups"), []),
    "other parameters": (("optimizer", "param_groups", 0, "params"), [0] * 50),
    "a random state too short": (("random", "torch"), [torch.zeros(3, dtype=torch.uint8)]),
    "a random state from elsewhere": (("random", "foreign"), {"os": (("mkdir",), "trap")}),
    "Python's, forged": (("random", "foreign"), {"python": (3, (1, 2), None)}),
    "numpy's, forged": (("random", "foreign"), {"numpy": ((1, 2), 3, 0, 0.0)}),
    "an order": (("order",), torch.zeros(5, dtype=torch.uint8)),
    "a place in words": (("at", "done"), "many"),
    "no place": (("at",), None),
    "a history in words": (("history", "values"), "x"),
    "a history of others": (("history", "columns"), ["loss"]),
    "an identity": (("identity",), {"objective": "os.system"}),
    "no identity": (("identity",), None),
    "a machine": (("machine",), 3),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_checkpoint_with_a_right_checksum_is_a_sentence(name: str, run: Path) -> None:
    file, (path, value) = steps(run)[-1], FORGED[name]
    tree = snapshot.read(file)
    first = next(name for name, tensor in tree["weights"].items() if tensor.ndim == 2)
    put(tree, [first if key == "first" else key for key in path], value)
    snapshot.write(file, snapshot.pack(tree))
    with pytest.raises(pv.InputError) as caught:
        fit(small(), rows(), run=run, resume=True)
    assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in run.parent.iterdir()} == {"run"}


def test_names_of_files_are_never_taken_from_a_folder(run: Path) -> None:
    outside = run.parent / "mine.txt"
    outside.write_text("mine")
    folder = run / "checkpoints"
    for name in ("step-9999999999.safetensors.bak", "step-1.safetensors", "step-..%2Fx.safetensors", ".x.writing-1"):
        (folder / name).symlink_to(outside)
    (folder / "best.safetensors").symlink_to(outside)
    fit(small(), rows(), run=run, resume=True)
    fit(small(), rows(), run=run, overwrite=True, checkpoints=pv.Checkpoints(every_epochs=1))
    assert outside.read_text() == "mine"


def test_lock_that_leads_elsewhere_is_refused(run: Path) -> None:
    outside = run.parent / "mine.txt"
    outside.write_text("mine")
    (run / "checkpoints" / ".lock").unlink(missing_ok=True)
    (run / "checkpoints" / ".lock").symlink_to(outside)
    with pytest.raises(pv.InputError, match="cannot be written"):
        fit(small(), rows(), run=run, resume=True)
    assert outside.read_text() == "mine"


def test_declaration_of_what_is_under_way_runs_nothing(run: Path) -> None:
    trap = run.parent / "trap"
    (run / "checkpoints" / "spec.yaml").write_text(f"format: 1\nprior: !!python/object/apply:os.mkdir [{trap}]\n")
    with pytest.raises(pv.InputError, match="is not plain YAML"):
        pv.load(run, checkpoint="last")
    assert not trap.exists()


@pytest.mark.parametrize("breaking", [pickled, torch_pickled, huge, huge_header], ids=lambda f: f.__name__)
def test_strangers_weights_are_no_more_than_tensors(breaking: Callable[[Path], Any], tmp_path: Path) -> None:
    fit(small(), rows(), run=tmp_path / "a" / "run")
    file = tmp_path / "a" / "run" / "model.safetensors"
    breaking(file)
    before = content(tmp_path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(pv.InputError, match="does not hold the weights of this model"):
        pv.load(tmp_path / "a" / "run")
    assert content(tmp_path) == before[0]
    assert not list(tmp_path.rglob("trap"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[1] < 200_000  # kilobytes
