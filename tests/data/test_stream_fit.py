"""Training on rows that are read meanwhile is training on the same rows in memory, bit for bit, crash or none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cases import same
from helpers.resuming import EVERY_STEP, ROWS, cut, fit, require_equal, require_resumable, rows, small, steps
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.data import stream

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),  # as torch does
]

VALUES = rows()


class MapSource(Dataset):
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, n: int) -> tuple[Tensor, int]:
        return VALUES[n], n % 2


class Augmented(MapSource):
    """Rows with noise that is drawn from torch's global generator."""

    def __getitem__(self, n: int) -> Tensor:
        return VALUES[n] + torch.randn(3)


class IterableSource(IterableDataset):
    """Rows in an order that is drawn anew for every epoch, from the same generator."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(VALUES[torch.randperm(ROWS)])


def npy(folder: Path, values: Tensor = VALUES) -> str:
    np.save(folder / "x.npy", values.numpy())
    return str(folder / "x.npy")


def parquet(folder: Path) -> str:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"x": VALUES.tolist()}), folder / "x.parquet", row_group_size=5)
    return str(folder / "x.parquet")


SAME: dict[str, Callable[[Path], Any]] = {
    "npy": lambda f: stream(npy(f)),
    "npy, 2 workers": lambda f: stream(npy(f), workers=2),
    "mapped": lambda f: np.load(npy(f), mmap_mode="r"),
    "parquet": lambda f: stream(parquet(f)),
    "data set": lambda f: MapSource(),
    "data set, 2 workers": lambda f: stream(MapSource(), workers=2),
}


@pytest.mark.parametrize("place", SAME)
def test_weights_and_history_are_those_of_rows_in_memory(place: str, tmp_path: Path) -> None:
    held, read = small(), small()
    arguments = {"optimizer": pv.Adam(0.01, accumulate_grad_batches=2), "batch_size": 4}
    reference = held, fit(held, VALUES, validation=VALUES[:9], **arguments)
    x = SAME[place](tmp_path)
    require_equal(reference, (read, fit(read, x, validation=np.load(npy(tmp_path), mmap_mode="r")[:9], **arguments)))


@pytest.mark.parametrize("kind", [{"binarize": "dynamic"}, {"levels": 5}], ids=["dynamic", "levels"])
def test_splits_of_a_file_train_as_in_memory(kind: dict[str, Any], tmp_path: Path) -> None:
    path = npy(tmp_path, VALUES.sigmoid())
    likelihood = pv.OrderedLogistic(levels=5) if "levels" in kind else pv.Bernoulli()
    found = []
    for streamed in (True, False):
        data, vae = pv.data.load(path, stream=streamed, **kind), small(likelihood=likelihood)
        found.append((vae, fit(vae, data.train, validation=data.validation)))
    require_equal(*found)


RESUMED: dict[str, Callable[[Path], Any]] = {
    "npy": lambda f: stream(npy(f)),
    "data set, 2 workers": lambda f: stream(MapSource(), workers=2),
    "augmented": lambda f: Augmented(),
    "augmented, 2 workers": lambda f: stream(Augmented(), workers=2),
    "iterated": lambda f: stream(IterableSource(), length=ROWS),
    "iterated, a worker": lambda f: stream(IterableSource(), length=ROWS, workers=1),
}


SLOW = ("data set, 2 workers", "iterated, a worker")


@pytest.mark.parametrize("place", [pytest.param(p, marks=[pytest.mark.slow] * (p in SLOW)) for p in RESUMED])
def test_resuming_goes_on_from_the_row_where_it_was(place: str, tmp_path: Path) -> None:
    require_resumable(small, RESUMED[place](tmp_path), tmp_path, lambda files: [files[-2]], epochs=2)


def test_number_of_workers_is_nothing_to_what_is_learned() -> None:
    alone, helped = small(), small()
    require_equal((alone, fit(alone, Augmented())), (helped, fit(helped, stream(Augmented(), workers=2))))


def test_set_epoch_is_called_on_the_data_set_every_epoch() -> None:
    class Told(IterableSource):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    told: list[int] = []
    data = stream(Told(), length=ROWS)
    told.clear()
    fit(small(), data, epochs=3, validation=VALUES)
    assert [epoch for epoch in told if epoch > 1] == [2, 3]


def test_another_file_is_refused_on_resume(tmp_path: Path) -> None:
    fit(small(), stream(npy(tmp_path)), run=tmp_path / "run", checkpoints=EVERY_STEP)
    run = cut(tmp_path / "run", steps(tmp_path / "run")[4], tmp_path / "cut")
    with pytest.raises(pv.InputError, match="fingerprint of the data"):
        fit(small(), stream(npy(tmp_path, VALUES + 1)), run=run, resume=True)
    fit(small(), stream(npy(tmp_path)), run=run, resume=True)
    assert same(pv.load(run).state_dict(), pv.load(tmp_path / "run").state_dict())


def test_second_stages_and_checks_take_streams(tmp_path: Path) -> None:
    held, read = (small(prior=pv.Aggregate(pv.Normal())) for _ in range(2))
    reference = held, fit(held, VALUES)
    require_equal(reference, (read, fit(read, stream(npy(tmp_path)))))
    better, other = (pv.aggregate(vae, x, epochs=1) for vae, x in ((held, VALUES), (read, stream(npy(tmp_path)))))
    assert same(better.state_dict(), other.state_dict())


def test_command_line_reads_while_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, arguments = npy(tmp_path), ["--latent_dim", "2", "--epochs", "2", "--progress", "false"]
    for name in ("true", "false"):
        main(["fit", "--data", path, "--data.stream", name, "--run", str(tmp_path / name), *arguments])
    main(["fit", "--config", str(tmp_path / "true" / "spec.yaml"), "--run", str(tmp_path / "again")])
    models = [pv.load(tmp_path / name).state_dict() for name in ("true", "false", "again")]
    assert same(models[0], models[1])
    assert same(models[0], models[2])
    assert "stream: true" in (tmp_path / "again" / "spec.yaml").read_text()
    main(["evaluate", str(tmp_path / "true"), "--split", "train", "--method.draws", "10", "--progress", "false"])
    assert "18 rows" in capsys.readouterr().out


def test_criticism_of_a_stream_names_a_number_of_rows(tmp_path: Path) -> None:
    with pytest.raises(pv.InputError, match=r"head_sample\(1000\)"):
        pv.evidence(small(), stream(npy(tmp_path)))


# What is refused, before training


class Gives(Dataset):
    """A data set of one kind of row."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, n: int) -> Any:
        return self.items[n]


class Endless(IterableDataset):
    """The same row for ever, whoever asks."""

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield torch.zeros(3)


def picture() -> Any:
    from PIL import Image

    return Image.new("L", (3, 1))


X = torch.zeros(3)
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no path": (lambda f: stream(f / "y.npy"), "does not exist"),
    "a near path": (lambda f: (npy(f), stream(f / "x.npz"))[1], "did you mean '.*x.npy'"),
    "csv": (lambda f: ((f / "x.csv").write_text("a\n1\n"), stream(f / "x.csv"))[1], "to_parquet"),
    "columns of npy": (lambda f: stream(npy(f), columns=["a"]), "leave columns out"),
    "broken npy": (lambda f: ((f / "x.npy").write_bytes(b"none"), stream(f / "x.npy"))[1], "x.npy.*damaged"),
    "cut npy": (
        lambda f: ((f / "x.npy").write_bytes(Path(npy(f)).read_bytes()[:-9]), stream(f / "x.npy"))[1],
        "x.npy",
    ),
    "objects": (
        lambda f: (np.save(f / "o.npy", np.array([{}]), allow_pickle=True), stream(f / "o.npy"))[1],
        "Python objects",
    ),
    "by columns": (lambda f: (np.save(f / "c.npy", np.ones((2, 3)).T), stream(f / "c.npy"))[1], "by columns"),
    "no rows": (lambda f: (np.save(f / "e.npy", np.ones((0, 3))), stream(f / "e.npy"))[1], "e.npy"),
    "a number": (lambda f: (np.save(f / "n.npy", 3.0), stream(f / "n.npy"))[1], "event_shape"),
    "text": (lambda f: (np.save(f / "t.npy", np.array(["a"])), stream(f / "t.npy"))[1], "t.npy.*dtype"),
    "workers": (lambda f: stream(npy(f), workers=-1), "workers = -1"),
    "no length": (lambda f: IterableSource(), r"length=100_000"),
    "too long": (lambda f: stream(IterableSource(), length=30), r"ended after 22 rows.*length=22"),
    "the same rows twice": (lambda f: stream(Endless(), length=200, workers=2), "get_worker_info"),
    "one row": (lambda f: Gives(X), "x has 1 row"),
    "no item": (lambda f: Gives(), "its length is 0"),
    "loader": (lambda f: torch.utils.data.DataLoader(Gives(X)), "loader.dataset"),
    "a string": (lambda f: Gives("a", "b"), "row 0 of Gives is a str"),
    "three": (lambda f: Gives((X, 0, 1), (X, 0, 1)), "row 0 of Gives is a tuple of 3"),
    "no label": (lambda f: Gives((X, 0.5), (X, 0.5)), "not an integer"),
    "no x": (lambda f: Gives({"y": X}, {"y": X}), "no 'x'.*'y'"),
    "a picture": (lambda f: Gives(picture(), picture()), "ToTensor"),
    "two shapes": (lambda f: Gives(X, X, torch.zeros(4)), r"row 2 of Gives differs from row 0.*\(4,\)"),
    "another name": (lambda f: Gives({"x": X}, {"x": X, "mask": X > 0}), "row 1 of Gives.*'mask' is"),
    "a bad value": (lambda f: Gives(X, X, X / 0), "row 2 of Gives"),
    "another shape": (lambda f: stream(npy(f, VALUES[:, :2])), r"x has shape \(\d+, 2\)"),
    "statically binary": (lambda f: pv.data.load(npy(f), binarize="static", stream=True), "binarize='dynamic'"),
    "not in [0, 1]": (lambda f: pv.data.load(npy(f), binarize="dynamic", stream=True).train, "row 0 of"),
    "no stream of digits": (lambda f: pv.data.load("digits", stream=True), "read into memory"),
    "stream what": (lambda f: pv.data.load(npy(f), stream="no"), "stream='no'"),  # type: ignore[arg-type]
    "table": (lambda f: stream(3), "a int cannot be read row by row"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_before_training(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    vae = small()
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    with pytest.raises(pv.InputError, match=words):
        fit(vae, make(tmp_path), run=tmp_path / "run")
    assert same(vae.state_dict(), before)
    assert not (tmp_path / "run").exists()


TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"a": ["b", "c"]}, "'a' is of type string.*columns="),
    "lists of no name": ({"a": [[1.0], [2.0]]}, "name it 'x'"),
    "ragged": ({"x": [[1.0], [2.0, 3.0]]}, "row 1 has another length"),
    "two labels": ({"a": [1.0, 2.0], "label": [0, 1], "class": [0, 1]}, "all labels"),
    "no label": ({"a": [1.0, 2.0], "label": ["a", "b"]}, "labels are integers"),
    "labels alone": ({"label": [0, 1]}, "no column of data"),
    "missing": (
        {"a": [1.0, None], "b": [1.0, 2.0], "c": [0.0, 1.0]},
        r"row 1 of '.*', which is x\[0\] here: x\[0, 0\] is nan",
    ),
    "no rows": ({"a": []}, "no rows|not a number"),
}


@pytest.mark.parametrize("name", TABLES)
def test_refuses_tables(name: str, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns, words = TABLES[name]
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(pv.InputError, match=words):
        fit(small(), stream(tmp_path / "x.parquet"))


def test_parquet_refuses_other_files_and_groups_beyond_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path)
    with pytest.raises(pv.InputError, match=r"unknown column 'y'.*Known: x"):
        stream(path, columns=["y"])
    with pytest.raises(pv.InputError, match="leave workers out"):
        stream(path, workers=1)
    monkeypatch.setattr("pyro_vae.data.parquet.MAX_GROUP_BYTES", 100)
    with pytest.raises(pv.InputError, match=r"groups of 5 rows take .* GB.*row_group_size"):
        stream(path)
    Path(path).write_bytes(b"PAR1")
    with pytest.raises(pv.InputError, match="cannot be read"):
        stream(path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(pv.InputError, match=r'pip install "pyro-vae\[parquet\]"'):
        stream(path)
