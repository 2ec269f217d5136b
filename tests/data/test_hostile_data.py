"""A data file from a stranger runs nothing, and says what it would take before it takes it."""

import gzip
import io
import math
import os
import pickle
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

import pyro_vae as pv
from pyro_vae.data import file_checks

LIMIT = 150 * 2**20
"""Bytes that reading a hostile file may take at most; what they declare is far more."""


@pytest.fixture(autouse=True)
def little_room() -> Iterator[None]:
    """Let no test take much more memory than there was before it."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.folder),)


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    """The header of an array, which may lie."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_2_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def bomb(folder: Path) -> Path:
    """A hundred kilobytes that expand to a hundred megabytes."""
    file = folder / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as stream:
        stream.write(header((25_000_000,)))
        for _ in range(100):
            stream.write(bytes(10**6))
    assert file.stat().st_size < 2e5
    return file


def bombs(folder: Path) -> Path:
    """Many arrays of zeros, each of which would fit, and which together do not."""
    file = folder / "x.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"a{number}.npy", header((2_500_000,)) + bytes(10_000_000))
    return file


def lying(folder: Path) -> Path:
    file = folder / "x.npy"
    file.write_bytes(header((2**40, 2**10)) + bytes(100))
    return file


def overflowing(folder: Path) -> Path:
    """A shape whose number of elements is 0 in 64 bits."""
    file = folder / "x.npy"
    file.write_bytes(header((2**32, 2**32)) + bytes(100))
    return file


def lying_inside(folder: Path) -> Path:
    file = folder / "x.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header((2**40,)) + bytes(100))
    return file


def negative(folder: Path) -> Path:
    file = folder / "x.npy"
    file.write_bytes(header((3, 4)).replace(b"(3, 4)", b"(-3,4)") + bytes(48))
    return file


def objects(folder: Path) -> Path:
    file = folder / "x.npy"
    np.save(file, np.array([Trap(folder / "trap")], dtype=object), allow_pickle=True)
    return file


def objects_inside(folder: Path) -> Path:
    file = folder / "x.npz"
    np.savez(file, x=np.ones((3, 2)), y=np.array([Trap(folder / "trap")], dtype=object))
    return file


def objects_by_name(folder: Path) -> Path:
    """A pickle with the name of an array."""
    file = folder / "x.npy"
    file.write_bytes(pickle.dumps(Trap(folder / "trap")))
    return file


def two_in_one(folder: Path) -> Path:
    """An array of objects with an archive of numbers behind it."""
    inside = io.BytesIO()
    np.savez(inside, x=np.ones((3, 2)))
    file = objects(folder)
    file.write_bytes(file.read_bytes() + inside.getvalue())
    return file


def code_in_header(folder: Path) -> Path:
    file = folder / "x.npy"
    code = b"{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').mkdir('trap'),)}\n"
    file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(code)) + code + bytes(16))
    return file


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.npy")
    return folder / "x.npy"


def piped_table(folder: Path) -> Path:
    os.mkfifo(folder / "x.csv")
    return folder / "x.csv"


def binary_table(folder: Path) -> Path:
    (folder / "x.csv").write_bytes(b"a,b\n1,2\n\x00\x01\xff,3\n")
    return folder / "x.csv"


def png(folder: Path, name: str, width: int, height: int) -> None:
    """A picture that declares a size and has no pixels."""
    chunk = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    whole = b"IHDR" + chunk
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + whole + struct.pack(">I", zlib.crc32(whole))
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))


def huge_picture(folder: Path) -> Path:
    png(folder / "p", "a.png", 2**30, 2**30)
    return folder / "p"


def one_large_picture(folder: Path) -> Path:
    """Pillow decodes up to 179 million pixels without a word."""
    Image.new("L", (2, 2)).save(folder / "small.png")
    (folder / "p").mkdir()
    (folder / "small.png").rename(folder / "p" / "a.png")
    png(folder / "p", "b.png", 9000, 9000)
    return folder / "p"


HOSTILE: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "zip bomb": (bomb, ["'x'", "would take 100.0 MB of memory, and 60.0 MB are free"]),
    "many that fit alone": (bombs, ["would take", "of memory", "are free", "float32"]),
    "shape beyond the file": (lying, ["(1099511627776, 1024)", "the file has 100 bytes of it", "damaged"]),
    "shape that overflows": (overflowing, ["(4294967296, 4294967296)", "the file has 100 bytes"]),
    "shape beyond the archive": (lying_inside, ["'x'", "(1099511627776,)", "the file has 100 bytes"]),
    "negative shape": (negative, ["x.npy"]),
    "objects": (objects, ["Python objects", "can run code", "astype('float32')"]),
    "objects beside numbers": (objects_inside, ["'y'", "Python objects"]),
    "a pickle": (objects_by_name, ["x.npy"]),
    "objects before an archive": (two_in_one, ["Python objects"]),
    "code in a header": (code_in_header, ["x.npy"]),
    "a pipe": (pipe, ["not a regular file", "copy"]),
    "a pipe of text": (piped_table, ["not a regular file", "copy"]),
    "bytes in a table": (binary_table, ["x.csv"]),
    "huge picture": (huge_picture, ["a.png"]),
    "one large picture": (one_large_picture, ["b.png", "9000 x 9000", "2 x 2"]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_with_a_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, words = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    file = made(tmp_path)
    monkeypatch.setattr(file_checks, "available_memory", lambda: 60e6)
    with pytest.raises(pv.InputError) as caught:
        pv.data.load(file)
    message = str(caught.value)
    assert not [word for word in words if word not in message], message
    assert message.endswith((".", "?"))
    assert not (tmp_path / "trap").exists()


def test_gzipped_data_set_is_expanded_no_further_than_it_declares(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        shape = (4, 2, 2) if "idx3" in name else (4,)
        head = b"\x00\x00\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes()
        (raw / f"{name}.gz").write_bytes(gzip.compress(head + bytes(math.prod(shape))))
    assert len(pv.data.load("mnist", root=tmp_path, validation=0).train) == 4
    file = raw / "train-images-idx3-ubyte.gz"
    head = b"\x00\x00\x08\x03" + np.array((4, 2, 2), ">u4").tobytes()
    with gzip.open(file, "wb") as stream:
        stream.write(head)
        for _ in range(200):
            stream.write(bytes(10**6))
    with pytest.raises(pv.InputError, match=r"train-images-idx3-ubyte.gz' cannot be read"):
        pv.data.load("mnist", root=tmp_path)
    file.write_bytes(gzip.compress(b"\x00\x00\x08\x03" + np.array((2**31, 2**31, 2**31), ">u4").tobytes()))
    with pytest.raises(pv.InputError, match=r"what it declares would take .* of memory"):
        pv.data.load("mnist", root=tmp_path)


def test_honest_files_are_read_to_the_last_byte_of_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.npy"
    for array in (np.ones((5, 3), np.float32), np.asfortranarray(np.ones((5, 3))), np.ones((5, 2, 2), np.uint8)):
        np.save(file, array)
        size = array.nbytes * (5 if array.dtype == np.uint8 else 1)
        monkeypatch.setattr(file_checks, "available_memory", lambda size=size: float(size))
        assert len(pv.data.load(file, validation=0, test=0).train) == 5
        monkeypatch.setattr(file_checks, "available_memory", lambda size=size: float(size - 1))
        with pytest.raises(pv.InputError, match="would take"):
            pv.data.load(file)


def test_table_of_text_is_refused_where_its_numbers_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV is guarded by three times its size, before any of it is read."""
    file = tmp_path / "x.csv"
    file.write_text("a,b\n" + "0.25,1.5\n" * 400)
    room = 3.0 * file.stat().st_size
    monkeypatch.setattr(file_checks, "available_memory", lambda: room)
    assert len(pv.data.load(file, validation=0, test=0).train) == 400
    monkeypatch.setattr(file_checks, "available_memory", lambda: room - 1)
    monkeypatch.setattr(pandas, "read_csv", lambda *given, **named: pytest.fail("it was read"))
    with pytest.raises(pv.InputError, match=r"this table would take .* of memory"):
        pv.data.load(file)


def test_room_is_what_the_system_and_the_container_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1e6 < file_checks.available_memory() < 1e15
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    monkeypatch.setattr(file_checks, "CGROUP", tmp_path)
    assert file_checks.available_memory() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert file_checks.available_memory() > 1e6
