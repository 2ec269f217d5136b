"""Data from files: .npy, .npz, .csv, folders of images, and what is refused of them."""

import ast
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pyro_vae.core.errors import InputError
from pyro_vae.data import Rows, load

ROOT = Path(os.environ.get("PYRO_VAE_DATA", Path(__file__).parents[2] / "../shared/data"))


X = [[0.0, 0.25], [0.5, 1.0], [0.75, 0.5]]


READ_ONLY = np.array(X)


@pytest.fixture
def numbered(tmp_path: Path) -> str:
    """A file of 100 rows in which x, the labels and a covariate all say the row's number."""
    n = np.arange(100)
    np.savez(tmp_path / "numbered.npz", x=n[:, None] / 100, labels=n, covariate=n)
    return str(tmp_path / "numbered.npz")


# load: files by path -------------------------------------------------------------------------------------


def whole(path: Path) -> Rows:
    return load(path, validation=0, test=0).train


def test_npy_is_taken_as_it_is_but_for_pictures_in_bytes(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    for x in (np.array(X), np.array(X, dtype=np.float32), np.arange(6).reshape(3, 2), np.uint8([[1, 255]])):
        np.save(file, x)
        assert whole(file).x.numpy().dtype == x.dtype
        assert whole(file).x.tolist() == x.tolist()
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for picture in (pixels, pixels[:, None], np.asfortranarray(pixels)):
        np.save(file, picture)
        assert torch.equal(whole(file).x, torch.from_numpy(pixels)[:, None] / 255)


@pytest.mark.parametrize("label", ["y", "label", "labels"])
def test_npz_names_tensors_and_labels(tmp_path: Path, label: str) -> None:
    file = tmp_path / "a.NPZ"
    with file.open("wb") as stream:
        np.savez(stream, **{"x": np.array(X), "mask": np.eye(3, 2, dtype=bool), label: np.int8([3, 1, 2])})
    rows = whole(file)
    assert rows.labels.tolist() == [3, 1, 2]
    assert {name: tensor.dtype for name, tensor in rows.tensors.items()} == {"x": torch.float64, "mask": torch.bool}
    np.savez(tmp_path / "b.npz", **{"images": np.zeros((4, 2, 2), np.uint8), label: np.arange(4)})
    assert whole(tmp_path / "b.npz").event_shape == (1, 2, 2)
    np.savez(tmp_path / "c.npz", **{"x": np.array(X), label: np.array([0.5, 1, 2])})
    assert set(whole(tmp_path / "c.npz").tensors) == {"x", label}  # no integers: a covariate


def test_csv_is_its_columns_of_numbers_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "flowers.csv"
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, -1.5, np.inf], "on": [True, False, True]})
    for labels, classes in ((["v", "s", "v"], [1, 0, 1]), ([7, 5, 7], [7, 5, 7])):
        frame.assign(Species=labels).to_csv(file, index=False)
        rows = whole(file)
        assert rows.x.dtype == torch.float32
        assert rows.x.tolist() == frame.to_numpy(float).tolist()
        assert rows.labels.tolist() == classes
    pd.DataFrame([[4.0, 5.0]]).to_csv(file, index=False)  # a header of 0,1, as pandas names columns by default
    assert (whole(file).x.tolist(), whole(file).labels) == ([[4.0, 5.0]], None)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 2), ("P", 3), ("RGB", 3), ("RGBA", 4)])
def test_folder_of_images(tmp_path: Path, mode: str, channels: int) -> None:
    classes = ["cat", "dog", "cat/old"]
    for number, name in enumerate(classes):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (3, 2), (255 * (number == 0),) * 3).convert(mode).save(tmp_path / name / "a.png")
    (tmp_path / "cat/._a.png").write_text("what macOS leaves")
    (tmp_path / "README").write_text("no image")
    rows = whole(tmp_path)
    assert (rows.event_shape, rows.x.dtype) == ((channels, 2, 3), torch.float32)
    assert rows.labels.tolist() == [0, 0, 1]
    assert rows.x[:, 0].mean((1, 2)).tolist() == [1, 0, 0]
    assert whole(tmp_path / "dog").labels is None


def test_images_are_upright_and_in_the_order_of_their_channels(tmp_path: Path) -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "a.PNG")
    assert torch.equal(whole(tmp_path).x[0], torch.from_numpy(pixels).permute(2, 0, 1) / 255)


ARGUMENTS: list[tuple[Any, dict[str, Any], str]] = [
    ("digitz", {}, "unknown data set 'digitz': did you mean 'digits'.*Or give the path"),
    ("", {}, "unknown data set ''"),
    ([1.0], {}, "a name or a path, not a list.*give it to `fit`"),
    ("digits", {"binarize": "dynamik"}, "unknown binarisation 'dynamik': did you mean 'dynamic'"),
    ("digits", {"validation": 1.0}, r"validation=1.0 is a fraction of the rows, in \[0, 1\)"),
    ("digits", {"test": -0.1}, "test=-0.1 is a fraction"),
    ("digits", {"test": "0.1"}, "test='0.1' is a fraction"),
    ("digits", {"validation": 0.5, "test": 0.5}, "=0.5 and test=0.5 leave no row to train on"),
    ("digits", {"seed": -1}, "seed=-1 is an integer"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), ARGUMENTS)
def test_wrong_arguments_are_refused(name: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(name, **arguments)


TABLES = {
    "a,b\n1,2\n1,red\n": "column 'b', row 2 holds 'red'.*'label'",
    "a,b\n1,2\n,2\n": "column 'a', row 2 is missing.*dropna",
    "a,b\n1,2\n1\n": "column 'b', row 2 is missing",
    "a,b\n1,2\n1,2,3\n": "line 3, saw 3",
    "a,b\n1,2,3\n": "header names 2 columns, and row 1 has 3 values",
    "a,label\n1,u\n2,\n": "column 'label', row 2 is missing",
    "a,b,a\n1,2,3\n": "columns 1 and 3 are both named 'a': rename",
    ",a\n0,2\n": "column 1 has no name.*index=False",
    "1.5,2\n3,4\n": r"line 1 is '1.5,2'\.\.\., not a header",
    "a,b\n": "no rows below the header",
    "": "cannot be read",
    "a,target\n1,0.5\n": "column 'target', row 1 holds 0.5, and a class is",
    "a,target,class\n1,0,0\n": "columns 'target' and 'class' are all labels",
    "label\n1\n": "no column of data beside 'label'",
}


@pytest.mark.parametrize("content", TABLES)
def test_wrong_table_is_refused_by_column_and_row(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=f"a.csv'.*{TABLES[content]}"):
        whole(tmp_path / "a.csv")


ARRAYS: list[tuple[str, Any, str]] = [
    ("a.npy", np.array([{}]), r"Python objects.*astype\('float32'\)"),
    ("a.npy", b"hello", "is damaged"),
    ("a.npy", np.zeros((2, 8, 8, 3), np.uint8), r"channels last.*transpose\(0, 3, 1, 2\)"),
    ("a.npz", {"x": np.array([{}])}, "Python objects, which are not read"),
    ("a.npz", b"PK\x03\x04", "cannot be read.*is it complete"),
    ("a.npz", {"a": X, "b": X}, "has no 'x'.*'a', 'b'"),
    ("a.npz", {"x": X, "mask": [1, 0]}, r"'mask' has shape \(2,\) but 'x' has 3 rows"),
    ("a.npz", {"x": X, "names": ["a", "b", "c"]}, "'names' has dtype <U1"),
    ("a.xlsx", b"", "unknown file format '.xlsx'.*Known: .npy, .npz, .csv"),
    ("a.png", b"hello", "unknown file format '.png'.*a folder of images"),
]


@pytest.mark.parametrize(("name", "content", "message"), ARRAYS)
def test_wrong_file_is_refused_by_name(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with (tmp_path / name).open("wb") as stream:
        if isinstance(content, bytes):
            stream.write(content)
        elif isinstance(content, dict):
            np.savez(stream, **content)
        else:
            np.save(stream, content)
    with pytest.raises(InputError, match=f"{name}'.*{message}"):
        whole(tmp_path / name)


def test_requests_that_a_good_file_cannot_meet_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    np.save(file, [[0.0], [3.0]])
    with pytest.raises(InputError, match=r"rows.npy': binarisation.*from 0 to 3: scale it"):
        load(file, binarize="static", validation=0, test=0)
    with pytest.raises(InputError, match=r"none of the 2 rows to train on.*validation=0"):
        load(file)
    with pytest.raises(InputError, match=r"/row.npy' does not exist: did you mean '.*/rows.npy'"):
        load(tmp_path / "row.npy")
    with pytest.raises(InputError, match=r"none/rows.npy' does not exist; give the path"):
        load(str(tmp_path / "none/rows.npy"))


def png(path: Path, size: tuple[int, int] = (2, 2), mode: str = "L") -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size).save(path)


def test_wrong_image_is_refused_by_name(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            load(tmp_path)

    refused(r"there is no image \(.png, .jpg")
    png(tmp_path / "a/1.png")
    png(tmp_path / "b/2.png", size=(3, 2))
    refused("'b/2.png' is 3 x 2 pixels of 1 channel and 'a/1.png' is 2 x 2 pixels of 1 channel: ")
    png(tmp_path / "b/2.png", mode="RGB")
    refused(r"'b/2.png' is 2 x 2 pixels of 3 channels.*resize\(")
    png(tmp_path / "b/2.png", mode="I;16")
    refused(r"'b/2.png' has mode I;16.*numpy.stack")
    (tmp_path / "b/2.png").write_bytes((tmp_path / "a/1.png").read_bytes()[:-30])
    refused("'b/2.png' cannot be read.*replace it")
    png(tmp_path / "0.png")
    refused("image '0.png' lies beside the sub-folder of 'a/1.png'")


def test_importing_data_imports_no_reader() -> None:
    heavy = {"pandas", "PIL", "scipy", "sklearn", "torchvision"}
    for file in Path(inspect.getfile(Rows)).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not heavy & {name.split(".")[0] for name in names}, file
