"""Files and folders appear whole or not at all, and one process at a time writes to a folder."""

import os
from pathlib import Path

import pytest

import pyro_vae as pv
from pyro_vae.core.files import LOCK, lock_folder, naming_unwritable, write_atomically


def content(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("durable", [False, True])
def test_write_atomically_replaces_a_file_at_the_end(durable: bool, tmp_path: Path) -> None:
    target = tmp_path / "it"
    target.write_text("old")
    with write_atomically(target, durable=durable) as fresh:
        fresh.write_text("new")
        assert target.read_text() == "old"
    assert content(tmp_path) == {"it": "new"}


def test_write_atomically_replaces_a_folder_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "it"
    target.mkdir()
    (target / "old").write_text("old")
    with write_atomically(target) as fresh:
        fresh.mkdir()
        (fresh / "new").write_text("new")
        assert content(target) == {"old": "old"}
    assert content(tmp_path) == {"it/new": "new"}


@pytest.mark.parametrize("folder", [False, True])
def test_write_atomically_leaves_what_was_there_if_writing_fails(folder: bool, tmp_path: Path) -> None:
    target = tmp_path / "it"
    target.mkdir()
    (target / "old").write_text("old")

    def write() -> None:
        with write_atomically(target if folder else target / "old") as fresh:
            (fresh / "a").mkdir(parents=True) if folder else fresh.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert content(tmp_path) == {"it/old": "old"}


def test_write_atomically_puts_a_folder_back_if_the_move_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "it"
    target.mkdir()
    (target / "old").write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"), write_atomically(target) as fresh:
        fresh.mkdir()
    assert content(tmp_path) == {"it/old": "old"}


def test_unwritable_path_is_named(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "it"
    with (
        pytest.raises(pv.InputError, match=r"missing/it cannot be written \(.*choose another place"),
        naming_unwritable(target),
        write_atomically(target) as fresh,
    ):
        fresh.write_text("x")


def test_locked_folder_names_its_process_every_time(tmp_path: Path) -> None:
    held = lock_folder(tmp_path)
    for _ in range(2):
        with pytest.raises(pv.InputError, match=rf"{tmp_path} is being written by another process \({os.getpid()}\)"):
            lock_folder(tmp_path)
    held.release()
    assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
    lock_folder(tmp_path).release()
