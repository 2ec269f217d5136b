"""What can go wrong with checkpoints: each is a sentence, and what was there stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import resuming
from helpers.cases import same
from helpers.resuming import acting, cut, fit, out_of_memory, require_equal, rows, small, steps
from helpers.small_runs import content

import pyro_vae as pv
from pyro_vae.training import snapshot


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A finished run with a checkpoint of every step."""
    return resuming.whole(tmp_path / "whole")


@pytest.fixture
def run(whole: Path) -> Path:
    """The same, cut off after its fifth step."""
    return cut(whole, steps(whole)[4], whole.parent / "run")


# Torn and altered


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flipped(at: float) -> Callable[[Path], None]:
    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[int(at * (len(data) - 1))] ^= 1
        file.write_bytes(bytes(data))

    return flip


def without_checksum(file: Path) -> None:
    tree = snapshot.pack(snapshot.read(file))
    snapshot.safetensors.torch.save_file(tree[1], str(file), {"format": "1", "state": "{}"})


DAMAGES = {
    "torn": torn,
    "empty": empty,
    "a bit of the header": flipped(0.05),
    "a bit of the weights": flipped(1.0),
    "a bit in the middle": flipped(0.6),
    "no checksum": without_checksum,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_named_and_the_one_before_is_used(damage: str, run: Path) -> None:
    newest, before = steps(run)[-1], steps(run)[-2]
    DAMAGES[damage](newest)
    vae = small()
    with pytest.warns(UserWarning, match=rf"{newest.name} is damaged \(.+\); {before.name} is used"):
        history = fit(vae, rows(), run=run, resume=True)
    reference = small()
    require_equal((reference, fit(reference, rows())), (vae, history))
    assert newest.with_suffix(".damaged").exists()


def test_checkpoint_with_a_flipped_bit_is_refused(whole: Path) -> None:
    file = steps(whole)[-1]
    data, state = file.read_bytes(), snapshot.pack(snapshot.read(file))[0]
    for at in range(0, len(data), max(1, len(data) // 150)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        try:
            assert snapshot.pack(snapshot.read(file))[0] == state  # a space in the header, if anything
        except (snapshot.Damaged, pv.InputError):
            continue


def test_resume_refuses_where_all_checkpoints_are_damaged(run: Path) -> None:
    for file in steps(run):
        torn(file)
    before, vae = content(run), small()
    untouched = small()
    with pytest.raises(pv.InputError, match=r"None is left to resume: start again by overwrite=True"):
        fit(vae, rows(), run=run, resume=True)
    assert content(run).keys() - {"checkpoints/.lock"} == before.keys()
    assert same(vae.state_dict(), untouched.state_dict())


def test_checkpoint_of_a_newer_version_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = steps(run)[-1]
    tree = snapshot.read(file)
    monkeypatch.setattr(snapshot, "FORMAT", 2)
    snapshot.write(file, snapshot.pack(tree))
    monkeypatch.undo()
    with pytest.raises(pv.InputError, match=r"newer pyro_vae: pip install --upgrade pyro-vae"):
        fit(small(), rows(), run=run, resume=True)


# Another training


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "objective": ({"objective": pv.objectives.IWAE()}, r'objective = "ELBO", and now objective = .*IWAE'),
    "optimizer": ({"optimizer": pv.Adam(0.1)}, r'optimizer = "Adam", and now optimizer = {"Adam": {"lr": 0.1}}'),
    "own optimizer": ({"optimizer": lambda weights: torch.optim.Adam(weights, lr=0.1)}, "optimizer"),
    "batch size": ({"batch_size": 9}, "batch_size = 8, and now batch_size = 9"),
    "seed": ({"seed": 6}, "seed = 5, and now seed = 6"),
    "data": ({"x": rows() + 1}, "fingerprint of the data"),
    "fewer rows": ({"x": rows(21)}, "fingerprint of the data"),
    "validation": ({"validation": rows(9)}, "fingerprint of the validation data"),
    "a mask": ({"x": {"x": rows(), "mask": torch.ones(22, 3, dtype=torch.bool)}}, "fingerprint of the data"),
    "epochs": ({"epochs": 0}, "epochs = 0"),
    "likelihood": ({"vae": lambda: small(likelihood=pv.Laplace())}, "likelihood = .*, and now likelihood = "),
    "prior": ({"vae": lambda: small(prior=pv.Laplace(0, 1))}, "prior = "),
    "network": ({"vae": lambda: small(encoder=pv.MLP(hidden=(6,)))}, "encoder|weights"),
    "precision": ({"vae": lambda: small().double()}, "weights|fingerprint"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_training_is_refused_and_changes_nothing(name: str, run: Path) -> None:
    changes, sentence = OTHERS[name]
    arguments = {"x": rows(), "vae": small, **changes}
    vae, before = arguments.pop("vae")(), content(run)
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(pv.InputError, match=sentence):
        fit(vae, arguments.pop("x"), run=run, resume=True, **arguments)
    assert {name: data for name, data in content(run).items() if name != "checkpoints/.lock"} == before
    assert same(vae.state_dict(), weights)


def test_fewer_epochs_than_were_made_are_refused(whole: Path) -> None:
    with pytest.raises(pv.InputError, match=r"has 3 epochs behind it, more than epochs = 2: .* at least 3"):
        fit(small(), rows(), epochs=2, run=whole, resume=True)


def test_another_number_of_threads_is_said(run: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(
            UserWarning, match=rf"started with threads {threads} \(now {threads + 1}\): .* not bit for bit"
        ):
            fit(small(), rows(), run=run, resume=True)
    finally:
        torch.set_num_threads(threads)


# The folder


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"resume": True, "overwrite": True, "run": "run"}, "continues a run and overwrite=True replaces it"),
    "no plan": ({"checkpoints": 10, "run": "run"}, r"checkpoints = 10 has to be a plan, .*every_minutes=10"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_wrong_arguments_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, sentence = ARGUMENTS[name]
    with pytest.raises(pv.InputError, match=sentence):
        fit(small(), rows(), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_wrong_plans_are_refused() -> None:
    for wrong in ({"every_minutes": -1}, {"keep": 0}, {"every_epochs": 0}, {"best": 1}, {"every_minutes": "often"}):
        with pytest.raises(pv.InputError, match=rf"Checkpoints.{next(iter(wrong))} = "):
            pv.Checkpoints(**wrong)


def test_unfinished_run_says_so(run: Path) -> None:
    before = content(run)
    sentence = r"is an unfinished run: continue it by .*resume=True.* --resume. .*checkpoint='last'"
    with pytest.raises(pv.InputError, match=sentence):
        pv.load(run)
    with pytest.raises(pv.InputError, match=r"holds an unfinished run: .*resume=True.*--resume.*overwrite=True"):
        fit(small(), rows(), run=run)
    with pytest.raises(pv.InputError, match=r"has no best checkpoint"):
        pv.load(run, checkpoint="best")
    with pytest.raises(pv.InputError, match=r"unknown checkpoint 'lst': did you mean 'last'"):
        pv.load(run, checkpoint="lst")  # type: ignore[call-overload]
    assert content(run) == before
    assert pv.load(run, checkpoint="last").declaration == small().declaration


def test_run_without_checkpoints_cannot_be_resumed(tmp_path: Path) -> None:
    fit(small(), rows(), run=tmp_path / "run")
    with pytest.raises(pv.InputError, match=r"without checkpoints, so there is nothing to resume"):
        fit(small(), rows(), run=tmp_path / "run", resume=True)


@pytest.mark.parametrize("saving", [False, True])
def test_unfinished_run_is_overwritten_on_request(saving: bool, run: Path) -> None:
    vae = small(likelihood=pv.Laplace())
    fit(vae, rows(), run=run, overwrite=True, checkpoints=pv.Checkpoints() if saving else None)
    assert same(pv.load(run).state_dict(), vae.state_dict())
    assert (run / "checkpoints").exists() == saving
    assert len(steps(run)) == saving


def test_finished_run_stays_until_the_one_that_overwrites_it_is_whole(tmp_path: Path) -> None:
    first, plan = small(), {"run": tmp_path / "run", "checkpoints": pv.Checkpoints(every_minutes=0)}
    fit(first, rows(), **plan)
    for resume in (False, True):
        optimizer = acting(5 - resume, out_of_memory)
        with pytest.raises(MemoryError):
            fit(small(), rows() + 1, **plan, overwrite=not resume, resume=resume, optimizer=optimizer)
        assert same(pv.load(tmp_path / "run").state_dict(), first.state_dict())
        assert steps(tmp_path / "run")
