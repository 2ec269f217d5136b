"""Laws of data: rows stay together, splits share them out, draws are fixed by a seed, wrong inputs say why."""

import gzip
import itertools
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from pyro_vae.core.errors import InputError
from pyro_vae.data import Dataset, Rows, load, public as named_sets

ROOT = Path(os.environ.get("PYRO_VAE_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_mnist = pytest.mark.skipif(not (ROOT / "MNIST").is_dir(), reason="no MNIST in PYRO_VAE_DATA")
needs_fashion = pytest.mark.skipif(
    not named_sets.DEBIAN_FASHION_MNIST.is_dir(), reason="no Debian package dataset-fashion-mnist"
)
X = [[0.0, 0.25], [0.5, 1.0], [0.75, 0.5]]
READ_ONLY = np.array(X)
READ_ONLY.flags.writeable = False


# Rows -----------------------------------------------------------------------------------------------

ACCEPTED: dict[str, tuple[Any, torch.dtype]] = {
    "tensor": (torch.tensor(X), torch.float32),
    "parameter": (torch.nn.Parameter(torch.tensor(X)), torch.float32),
    "float64": (np.array(X), torch.float64),
    "big-endian": (np.array(X, dtype=">f4"), torch.float32),
    "read-only": (READ_ONLY, torch.float64),
    "reversed": (np.array(X[::-1])[::-1], torch.float64),
    "longdouble": (np.array(X, dtype=np.longdouble), torch.float64),
    "frame": (pd.DataFrame(X).astype({0: "Float64"}), torch.float64),
    "list": (X, torch.float64),
    "mapping": ({"x": np.array(X), "mask": [True, False, True]}, torch.float64),
    "dataset": (TensorDataset(torch.tensor(X), torch.arange(3)), torch.float32),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_everything_that_holds_numbers_becomes_the_same_rows(name: str) -> None:
    given, dtype = ACCEPTED[name]
    rows = Rows.of(given)
    assert Rows.of(rows) is rows
    assert (len(rows), rows.event_shape, rows.x.dtype) == (3, (2,), dtype)
    assert rows.x.tolist() == X
    assert not rows.x.requires_grad


def test_unsigned_integers_and_missing_numbers_survive() -> None:
    counts = Rows.of(np.array([[65535]], dtype=np.uint16)).x  # torch has no arithmetic for uint16
    assert (counts + 1).tolist() == [[65536]]
    assert Rows.of(pd.DataFrame({"a": pd.array([1, None], dtype="Int64")})).x.isnan().tolist() == [[False], [True]]


def test_labels_of_a_dataset_are_no_tensor_of_the_model() -> None:
    rows = Rows.of(TensorDataset(torch.zeros(3, 2), torch.tensor([2, 0, 1])))
    assert rows.labels.tolist() == [2, 0, 1]
    assert set(rows.batch()) == {"x"}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no x": (lambda: {"y": X, "mask": X}, "has no 'x'.*it has 'y', 'mask': rename"),
    "no rows": (lambda: np.zeros((0, 4)), r"no rows: its shape is \(0, 4\)"),
    "no columns": (lambda: pd.DataFrame(index=[0, 1]), r"its shape is \(2, 0\)"),
    "a scalar": (lambda: torch.tensor(1.0), r"its shape is \(\).*\(N, \*event_shape\)"),
    "objects": (lambda: np.array([[1, "a"]], dtype=object), r"'x' has dtype object, and rows are numbers: leave out"),
    "strings": (lambda: [["a", "b"]], "'x' has dtype <U1"),
    "complex": (lambda: torch.zeros(2, 2, dtype=torch.complex64), "complex.*view_as_real"),
    "different N": (lambda: {"x": X, "mask": [1, 0]}, r"'mask' has shape \(2,\) but 'x' has 3 rows"),
    "sparse matrix": (lambda: scipy.sparse.csr_matrix(X), r"'x' is a csr_matrix.*`x.toarray\(\)`"),
    "sparse tensor": (lambda: torch.tensor(X).to_sparse(), r"`x.to_dense\(\)`"),
    "masked": (lambda: {"x": X, "v": np.ma.masked_equal(X, 0.5)}, "'v' is a masked array.*'mask'"),
    "text column": (lambda: pd.DataFrame({"a": [1], "b": ["u"]}), r"column 'b' of 'x'.*x.drop\(columns='b'\)"),
    "ragged": (lambda: [[1, 2], [3, 4], [5]], "row 0 has 2 entries, row 2 has 1"),
    "loader": (lambda: DataLoader(TensorDataset(torch.zeros(2, 2))), "DataLoader.*give the tensor or the dataset"),
    "torch dataset": (lambda: torchvision.datasets.FakeData(2), r"FakeData.*torch.stack"),
    "three tensors": (lambda: TensorDataset(*[torch.zeros(2, 2)] * 3), "this one has 3 tensors: name them"),
    "float labels": (lambda: TensorDataset(torch.zeros(2, 2), torch.zeros(2)), "integer labels"),
    "a name": (lambda: "digits", r"'x' is a str.*load\('digits'\).train"),
    "all splits": (lambda: load("digits"), "'x' is a Dataset.*`data.train`"),
    "nothing": (lambda: None, "'x' is a NoneType.*a tensor, an array"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_cannot_be_rows_are_refused_with_a_fix(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        Rows.of(make())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.zeros(3)}, r"integer classes of shape \(3,\), not float32"),
        ({"labels": torch.zeros(2, dtype=torch.long)}, "'labels' has shape"),
        ({"tensors": {"x": np.zeros((3, 2))}}, "'x' is a ndarray, not a tensor: `Rows.of`"),
        ({"tensors": {"x": torch.full((3, 2), 2.0)}, "dynamic": True}, "this one is float32 from 2 to 2"),
        ({"tensors": {"x": torch.full((3, 2), torch.nan)}, "dynamic": True}, "from nan to nan"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rows(**{"tensors": {"x": torch.zeros(3, 2)}, **arguments})


@pytest.mark.parametrize("index", [torch.tensor([2, 0, 2]), slice(1, 3)])
def test_batch_takes_the_same_rows_of_every_tensor(index: Tensor | slice) -> None:
    rows = Rows({"x": torch.tensor(X), "size_factor": torch.arange(3.0)})
    batch = rows.batch(index)
    assert torch.equal(batch["x"], rows.x[index])
    assert torch.equal(batch["size_factor"], torch.arange(3.0)[index])


def test_rows_are_not_copied_without_need() -> None:
    x, mask = torch.tensor(X), torch.ones(3, dtype=torch.bool)
    rows = Rows({"x": x, "mask": mask})
    assert rows.batch()["x"] is x
    assert rows.to("cpu", torch.float32).x is x
    moved = Rows({"x": mask, "mask": mask, "w": x}, labels=torch.arange(3)).to("cpu", torch.float64)
    assert [moved.tensors[name].dtype for name in ("x", "mask", "w")] == [torch.float64, torch.bool, torch.float64]
    assert moved.labels.dtype == torch.int64


def test_dynamic_rows_are_drawn_anew_with_the_mean_x() -> None:
    p = torch.rand(50, 4)
    rows = Rows({"x": p, "p": p}, dynamic=True)
    first, second = rows.batch(), rows.batch()
    assert torch.equal(first["p"], p)
    assert not torch.equal(first["x"], second["x"])
    draws = torch.stack([rows.batch()["x"] for _ in range(2000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    error = (draws.mean(0) - p) / (p * (1 - p) / len(draws)).sqrt().clamp_min(1e-3)
    assert error.abs().max() < 4.5
    torch.manual_seed(3)
    batch = rows.batch(slice(10))["x"]
    torch.manual_seed(3)
    assert torch.equal(rows.batch(slice(10))["x"], batch)


# load: splits and binarisation ------------------------------------------------------------------------


@pytest.fixture
def numbered(tmp_path: Path) -> str:
    """A file of 100 rows in which x, the labels and a covariate all say the row's number."""
    n = np.arange(100)
    np.savez(tmp_path / "numbered.npz", x=n[:, None] / 100, labels=n, covariate=n)
    return str(tmp_path / "numbered.npz")


def splits_of(dataset: Dataset) -> dict[str, Rows]:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: rows for name, rows in splits.items() if rows is not None}


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.25, 0), (0, 0), (0.001, 0.5)])
def test_splits_share_out_all_rows_in_order(numbered: str, validation: float, test: float) -> None:
    splits = splits_of(load(numbered, validation=validation, test=test))
    sizes = {"validation": max(1, round(100 * validation)), "test": max(1, round(100 * test))}
    for name, fraction in (("validation", validation), ("test", test)):
        assert (len(splits[name]) == sizes[name]) if fraction else name not in splits
    numbers = {name: rows.labels.tolist() for name, rows in splits.items()}
    assert sorted(itertools.chain(*numbers.values())) == list(range(100))
    for name, rows in splits.items():
        assert numbers[name] == sorted(numbers[name]) == rows.tensors["covariate"].tolist()
        assert rows.x[:, 0].mul(100).round().tolist() == numbers[name]


def test_seed_fixes_the_split_and_leaves_the_global_state_alone(numbered: str) -> None:
    state = torch.get_rng_state()
    one, same, other = (load(numbered, binarize="static", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, rows in splits_of(one).items():
        assert torch.equal(rows.labels, splits_of(same)[name].labels)
        assert torch.equal(rows.x, splits_of(same)[name].x)
    assert not torch.equal(one.train.labels, other.train.labels)


def test_static_draw_belongs_to_the_row_and_not_to_the_split(numbered: str) -> None:
    every = load(numbered, binarize="static", validation=0, test=0).train
    for rows in splits_of(load(numbered, binarize="static", validation=0.2, test=0.3)).values():
        assert torch.equal(rows.x, every.x[rows.labels])
    grey, drawn, other = (
        load("digits", binarize=how, seed=seed, validation=0, test=0).train.x
        for how, seed in ((None, 0), ("static", 0), ("static", 1))
    )
    assert drawn.unique().tolist() == [0.0, 1.0]
    assert not torch.equal(drawn, other)
    assert (drawn.mean() - grey.mean()).abs() < 5e-3


def test_dynamic_binarisation_is_left_to_every_batch_of_every_split() -> None:
    dataset = load("digits", binarize="dynamic")
    assert "binarize='dynamic'" in repr(dataset)
    for rows in splits_of(dataset).values():
        assert len(rows.x.unique()) == 17
        assert rows.batch()["x"].unique().tolist() == [0.0, 1.0]


def test_split_records_the_arguments_as_written(numbered: str) -> None:
    dataset = load(numbered, root="~/x", validation=0, seed=5)
    assert dataset.train.source == {
        **{"data": numbered, "root": "~/x", "binarize": None, "levels": None, "validation": 0.0, "test": 0.1},
        **{"data_seed": 5, "split": "train"},
    }
    assert dataset.test.source["split"] == "test"
    assert dataset.validation is None


# load: data sets by name --------------------------------------------------------------------------------


def test_digits() -> None:
    rows = load("digits", validation=0, test=0).train
    assert (len(rows), rows.event_shape, rows.x.dtype) == (1797, (1, 8, 8), torch.float32)
    assert rows.labels[:10].tolist() == list(range(10))
    assert rows.x[0, 0, 0].mul(16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


@needs_mnist
def test_mnist() -> None:
    dataset = load("mnist", root=ROOT, validation=0, test=0.5)
    train, test = dataset.train, dataset.test
    assert (len(train), len(test), dataset.event_shape) == (60000, 10000, (1, 28, 28))
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert (float(train.x.min()), float(train.x.max())) == (0.0, 1.0)
    assert float(train.x.mean()) == pytest.approx(0.1307, abs=5e-5)
    assert float(train.x.std()) == pytest.approx(0.3081, abs=5e-5)
    assert test.x[0, 0, 7, 6:9].mul(255).round().tolist() == [84, 185, 159]  # where the 7 begins


@needs_fashion
def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path: Path) -> None:
    dataset = load("fashion_mnist", root=tmp_path)
    sizes = {name: len(rows) for name, rows in splits_of(dataset).items()}
    assert sizes == {"train": 54000, "validation": 6000, "test": 10000}
    assert dataset.test.labels[:5].tolist() == [9, 2, 1, 1, 6]


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx_set(folder: Path, n: int = 20) -> None:
    """Four small files in MNIST's format; the images say their label."""
    folder.mkdir(parents=True)
    classes = np.arange(n, dtype=np.uint8)
    for images, labels in named_sets.IDX.values():
        (folder / images).write_bytes(idx(np.repeat(classes, 4).reshape(n, 2, 2)))
        (folder / labels).write_bytes(idx(classes))


def test_download_is_announced_once_and_its_noise_is_not_heard(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def download(self: torchvision.datasets.MNIST) -> None:
        print("Downloading")
        print("100%", file=sys.stderr)
        write_idx_set(Path(self.raw_folder))

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    for _ in range(2):
        rows = load("mnist", validation=0).train
    assert rows.labels.tolist() == list(range(20))
    assert torch.equal(rows.x[:, 0, 1, 1], torch.arange(20) / 255)
    assert "".join(capsys.readouterr()) == ""
    assert [record.message.split(" is ")[0] for record in caplog.records] == ["MNIST"]


def test_damaged_and_gzipped_files(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST/raw"
    write_idx_set(folder)
    images = folder / named_sets.IDX["test"][0]
    whole = images.read_bytes()
    images.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=f"{images}' cannot be read.*is it complete"):
        load("mnist", root=tmp_path)
    images.unlink()
    images.with_name(f"{images.name}.gz").write_bytes(gzip.compress(whole))
    assert torch.equal(load("mnist", root=tmp_path).test.x[:, 0, 1, 1], torch.arange(20) / 255)
    images.with_name(f"{images.name}.gz").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(InputError, match=r"ubyte.gz' cannot be read.*is it complete"):
        load("mnist", root=tmp_path)


def test_cifar10_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10 = torchvision.datasets.CIFAR10
    (tmp_path / cifar10.base_folder).mkdir()
    pixels = (np.arange(20 * 3072) % 251).astype(np.uint8).reshape(20, 3072)
    batch = {"data": pixels, "labels": [0, 1] * 10}
    contents = {"data_batch_1": batch, "test_batch": batch, "batches.meta": {"label_names": ["a", "b"]}}
    for name, content in contents.items():
        (tmp_path / cifar10.base_folder / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(cifar10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(cifar10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(cifar10, "meta", {**cifar10.meta, "md5": None})
    dataset = load("cifar10", root=tmp_path)
    assert (len(dataset.train), len(dataset.test), dataset.event_shape) == (18, 20, (3, 32, 32))
    assert torch.equal(dataset.test.x.flatten(1), torch.from_numpy(pixels) / 255)
    assert dataset.test.labels.tolist() == [0, 1] * 10


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_missing_files_without_network_are_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: Any) -> None:
        raise OSError("Name or service not known")

    for dataset in ("MNIST", "CIFAR10"):  # FashionMNIST downloads as MNIST does
        monkeypatch.setattr(getattr(torchvision.datasets, dataset), "download", download)
    monkeypatch.setattr(named_sets, "DEBIAN_FASHION_MNIST", tmp_path)
    words = {
        "mnist": (str(tmp_path / "MNIST/raw"), "t10k-labels-idx1-ubyte"),
        "fashion_mnist": (str(tmp_path / "FashionMNIST/raw"), "apt-get install dataset-fashion-mnist"),
        "cifar10": (str(tmp_path / "cifar-10-batches-py"), "data_batch_1, data_batch_2"),
    }
    with pytest.raises(InputError, match="Name or service not known") as caught:
        load(name, root=tmp_path)
    for word in (*words[name], "root='FOLDER'", "export PYRO_VAE_DATA=FOLDER"):
        assert word in str(caught.value)
