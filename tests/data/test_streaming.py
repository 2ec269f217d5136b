"""Rows that are read while training are the rows that lie there, in the order that was asked for."""

import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, StackDataset, TensorDataset, get_worker_info

import pyro_vae as pv
from pyro_vae.data import Rows, Stream, as_data, stream
from pyro_vae.data.rows import concat

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # as torch does

N, EVENT = 203, (4, 2)
VALUES = np.random.default_rng(0).normal(size=(N, *EVENT)).astype("float32")


def shuffled(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Numbered(Dataset):
    """A data set of pairs."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, n: int) -> tuple[Tensor, int]:
        return torch.from_numpy(VALUES[n]), n % 3


class IterableSource(IterableDataset):
    """The same rows, in their order, shared out among workers."""

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        return (torch.from_numpy(row) for row in VALUES[first::step])


def npy(folder: Path, values: np.ndarray = VALUES) -> str:
    np.save(folder / "x.npy", values)
    return str(folder / "x.npy")


def parquet(folder: Path, group: int = 20, **columns: Any) -> str:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns or {"x": VALUES.tolist()}), folder / "x.parquet", row_group_size=group)
    return str(folder / "x.parquet")


PLACES: dict[str, Callable[[Path], Any]] = {
    "npy": lambda f: stream(npy(f)),
    "npy, 2 workers": lambda f: stream(npy(f), workers=2),
    "npy of other bytes": lambda f: stream(npy(f, VALUES.astype(">f8"))),
    "mapped": lambda f: as_data(np.load(npy(f), mmap_mode="r")),
    "mapped, a part": lambda f: as_data(np.load(npy(f, np.repeat(VALUES, 2, 1)), mmap_mode="r")[:, ::2]),
    "mapped, rows of it": lambda f: as_data(
        np.load(npy(f, np.concatenate([VALUES[:9], VALUES])), mmap_mode="r")[3:][6:]
    ),
    "mapped, every second": lambda f: as_data(np.load(npy(f, np.repeat(VALUES, 2, 0)), mmap_mode="r")[::2]),
    "mapped by columns": lambda f: as_data(np.load(npy(f, np.asfortranarray(VALUES)), mmap_mode="r")),
    "data set": lambda f: as_data(Numbered()),
    "data set, 2 workers": lambda f: stream(Numbered(), workers=2),
    "named": lambda f: as_data(StackDataset(x=VALUES)),
    "list": lambda f: stream(list(VALUES)),
    "parquet": lambda f: stream(parquet(f)),
}
"""Where the same rows may lie and can be asked for by number."""


@pytest.mark.parametrize("place", PLACES)
def test_rows_are_those_that_lie_there(place: str, tmp_path: Path) -> None:
    rows = PLACES[place](tmp_path)
    assert isinstance(rows, Stream)
    assert (len(rows), rows.event_shape, rows.names) == (N, EVENT, ("x",))
    order = rows.order(shuffled())
    assert torch.equal(order, Rows.of(VALUES).order(shuffled()))  # so that training is the same as in memory
    placed = rows.to(dtype=torch.float32)
    for plan in (order.split(16), [torch.tensor([5]), torch.tensor([5, 4, 202, 0]), torch.arange(60, 90)]):
        read = list(placed.read(plan))
        assert [batch["x"].numpy().tolist() for batch in read] == [VALUES[part.numpy()].tolist() for part in plan]
    pieces = list(placed.chunks(50))
    assert [len(piece) for piece in pieces] == [50, 50, 50, 50, 3]
    assert np.array_equal(torch.cat([piece.x for piece in pieces]), VALUES)
    assert np.array_equal(placed.head_sample().x, VALUES)
    assert {tuple(row) for row in placed.head_sample(24).x.flatten(1).tolist()} <= {
        tuple(r) for r in VALUES.reshape(N, -1).tolist()
    }
    assert len(placed.head_sample(24)) == 24


@pytest.mark.parametrize("place", PLACES)
def test_picked_rows_keep_the_laws_of_all(place: str, tmp_path: Path) -> None:
    index = torch.arange(1, N, 3)
    rows, held = PLACES[place](tmp_path).to(dtype=torch.float32).select(index), Rows.of(VALUES).select(index)
    assert np.array_equal(rows.head_sample().x, held.x)
    plan = rows.order(shuffled()).split(10)
    assert sorted(torch.cat(plan).tolist()) == list(range(len(index)))
    for mine, theirs in zip(rows.read(plan), held.read(plan), strict=True):
        assert torch.equal(mine["x"], theirs["x"])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_iterable_is_read_forward_to_the_selected_rows(workers: int) -> None:
    rows = stream(IterableSource(), length=N, workers=workers)
    plan = rows.order(shuffled()).split(16)
    whole = [batch["x"] for batch in rows.read(plan)]
    assert sorted(torch.cat(whole).flatten(1).tolist()) == sorted(VALUES.reshape(N, -1).tolist())
    if workers < 2:
        assert np.array_equal(torch.cat(whole), VALUES)
    for begin in (1, 7, 12):  # after a crash
        assert all(
            torch.equal(*both) for both in zip((b["x"] for b in rows.read(plan[begin:])), whole[begin:], strict=True)
        )
    half = [batch["x"] for batch in rows.read([part[1::2] for part in plan])]  # of two processes that share the plan
    assert all(torch.equal(one, other[1::2]) for one, other in zip(half, whole, strict=True))


def test_rows_that_are_passed_over_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.data.torch_datasets.CHUNK", 8)
    kept: list[int] = []
    monkeypatch.setattr(
        "pyro_vae.data.torch_datasets.concat", lambda parts: (kept.append(sum(map(len, parts))), concat(parts))[1]
    )
    list(stream(IterableSource(), length=N).read(torch.arange(N).split(10)[12:]))
    assert max(kept) <= 10 + 2 * 8


def test_shorter_length_is_an_epoch_of_the_first_rows() -> None:
    rows = stream(IterableSource(), length=10)
    assert np.array_equal(rows.head_sample().x, VALUES[:10])


class Augmenting(Dataset):
    """Rows that are random, by every generator there is."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, n: int) -> Tensor:
        import random

        noise = [float(torch.rand(())), float(np.random.rand()), random.random()]  # noqa: NPY002 - what users do
        return torch.tensor(noise) + n


class Shuffling(IterableDataset):
    """Rows in an order that is random anew."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.rand(100, 2))


def test_random_rows_depend_on_what_is_read_and_on_no_state() -> None:
    plan = torch.randperm(40, generator=shuffled()).split(7)
    before = torch.get_rng_state()
    once, again, workers = (
        [batch["x"] for batch in stream(Augmenting(), workers=workers).read(plan)] for workers in (0, 0, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.cat(once), torch.cat(again))
    assert torch.equal(torch.cat(once), torch.cat(workers))
    other = next(stream(Augmenting()).read([plan[0].flip(0)]))["x"].flip(0)
    assert not torch.equal(once[0], other)
    assert (once[0] % 1).std() > 0.2


def test_epoch_has_an_order_of_its_own_that_comes_back() -> None:
    rows = stream(Shuffling(), length=100)
    plan = torch.arange(100).split(30)
    first, second, again = ([b["x"] for b in rows.read(plan, epoch)] for epoch in (1, 2, 1))
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(first[0], second[0])
    assert torch.equal(next(rows.read(plan[2:], 1))["x"], first[2])


def test_set_epoch_is_called() -> None:
    class Told(IterableSource):
        told: Sequence[int] = ()

        def set_epoch(self, epoch: int) -> None:
            self.told = [*self.told, epoch]

    data = Told()
    rows = stream(data, length=N)
    next(rows.read([torch.arange(3)], 7))
    assert list(data.told)[-1] == 7


# Parquet


def test_groups_are_shuffled_and_each_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stream(parquet(tmp_path, group=10))
    rows.origin.__dict__["mixed"] = 3
    read: list[int] = []
    group = type(rows.origin)._group
    monkeypatch.setattr(type(rows.origin), "_group", lambda self, n: (read.append(n), group(self, n))[1])
    order = rows.order(shuffled())
    assert sorted(order.tolist()) == list(range(N))
    assert not torch.equal(order, rows.order(shuffled(2)))
    first = order[:23].div(10, rounding_mode="floor")  # at least so many are in three groups, one of which has 3 rows
    assert 2 <= len(first.unique()) <= 3
    assert len(first.unique_consecutive()) > 5  # and mixed
    plan = order.split(8)
    batches = [batch["x"].float().numpy() for batch in rows.read(plan)]
    assert np.array_equal(np.concatenate(batches), VALUES[order])
    assert sorted(read) == list(range(21))


def test_columns_side_by_side_are_x(tmp_path: Path) -> None:
    a, b, label = VALUES[:, 0, 0], np.arange(N), np.arange(N) % 4
    path = parquet(tmp_path, a=a, label=label, b=b)
    rows = stream(path)
    assert (rows.features, rows.event_shape) == (("a", "b"), (2,))
    taken = rows.head_sample(9)
    assert taken.features == ("a", "b")
    assert taken.labels is not None
    assert torch.equal(taken.labels, taken.x[:, 1].long() % 4)
    assert stream(path, columns=["b", "label"]).features == ("b",)
    data = pv.data.load(path, stream=False)
    assert isinstance(data.train, Rows)
    assert data.train.labels is not None


def test_named_columns_of_a_folder(tmp_path: Path) -> None:
    for name, part in (("1", slice(100)), ("2", slice(100, None))):
        (tmp_path / name).mkdir()
        parquet(tmp_path / name, x=VALUES[part].tolist(), size_factor=np.arange(N)[part] + 1.0)
    rows = stream(tmp_path)
    batch = next(rows.read([torch.tensor([150, 3])]))
    assert batch["size_factor"].tolist() == [151, 4]
    assert np.array_equal(batch["x"].float(), VALUES[[150, 3]])


# Splits, kinds of x, and what is known of the rows


@pytest.mark.parametrize("kind", [{}, {"binarize": "dynamic"}, {"levels": 9}], ids=["plain", "dynamic", "levels"])
@pytest.mark.parametrize("bytes", [False, True], ids=["numbers", "pictures"])
def test_load_splits_as_in_memory(kind: dict[str, Any], bytes: bool, tmp_path: Path) -> None:
    unit = (VALUES - VALUES.min()) / (VALUES.max() - VALUES.min())
    path = npy(tmp_path, np.uint8(unit * 255) if bytes else unit)
    read, held = (pv.data.load(path, stream=streamed, **kind) for streamed in (True, False))
    assert read.train.source == {**held.train.source, "stream": True}
    for split in ("train", "validation", "test"):
        mine, theirs = getattr(read, split), getattr(held, split)
        assert isinstance(mine, Stream)
        assert torch.equal(mine.head_sample().x, theirs.x)
        plan = theirs.order(shuffled()).split(6)
        for one, other in zip(seeded(mine, plan), seeded(theirs, plan), strict=True):
            assert torch.equal(one["x"], other["x"])


def seeded(rows: Rows | Stream, plan: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    torch.manual_seed(3)
    return list(rows.read(plan))


def test_auto_reads_what_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(pv.data.load(npy(tmp_path)).train, Rows)
    monkeypatch.setattr("pyro_vae.data.dispatch.available_memory", lambda: 4.0 * VALUES.nbytes - 1)
    assert isinstance(pv.data.load(npy(tmp_path)).train, Stream)
    assert isinstance(pv.data.load(npy(tmp_path), stream=False).train, Rows)


def test_fingerprint_distinguishes_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stream(npy(tmp_path))
    known = rows.fingerprint()
    assert rows.to("cpu", torch.float64).fingerprint() == known == stream(npy(tmp_path)).fingerprint()
    others = [rows.select(torch.arange(100)), stream(npy(tmp_path, VALUES[:-1])), stream(npy(tmp_path, VALUES + 1))]
    assert len({known, *(other.fingerprint() for other in others)}) == 4
    monkeypatch.setattr("pyro_vae.data.streaming.FINGERPRINT_ROWS", 2)  # rows 0 and 9 of both
    assert (
        rows.select(torch.tensor([0, 3, 9, 20])).fingerprint() != rows.select(torch.tensor([0, 4, 9, 20])).fingerprint()
    )


def test_values_are_checked_by_their_number_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.data.streaming.CHUNK_BYTES", 40 * 32)  # forty rows
    vae = pv.VAE(EVENT, 2, encoder=pv.MLP(hidden=(4,)))
    bad = VALUES.copy()
    bad[177, 2, 1] = np.nan
    rows = stream(npy(tmp_path, bad))
    with pytest.raises(
        pv.InputError, match=r"^row 177 of '.*x.npy', which is x\[0\] here: x\[0, 2, 1\] is nan, and 1 of 8"
    ):
        rows.checked(vae.check)
    with pytest.raises(pv.InputError, match=r"^row 177 of"):
        rows.select(torch.arange(100, N)).checked(vae.check)
    assert rows.select(torch.arange(100)).checked(vae.check) is not None


def test_masked_values_are_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.data.streaming.CHUNK_BYTES", 40 * 64)
    vae, mask = pv.VAE(EVENT, 2, encoder=pv.MLP(hidden=(4,))), np.ones((N, *EVENT), bool)
    mask[:90] = False
    values = np.where(mask, VALUES, np.nan)
    mapped = {"x": np.load(npy(tmp_path, values), mmap_mode="r"), "mask": mask}
    rows = as_data(mapped)
    assert isinstance(rows, Stream)
    assert rows.checked(vae.check).n_observed == 8 * (N - 90) / N
    with pytest.raises(pv.InputError, match="mask leaves out every value"):
        rows.select(torch.arange(90)).checked(vae.check)


def test_signals_end_workers_by_ending_training() -> None:
    class Asked(Numbered):
        def __getitem__(self, n: int) -> Any:
            ignored = [signal.getsignal(each) == signal.SIG_IGN for each in (signal.SIGINT, signal.SIGTERM)]
            return torch.tensor(ignored).float()

    assert next(stream(Asked(), workers=1).read([torch.arange(2)]))["x"].tolist() == [[1, 1], [1, 1]]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_error_of_a_worker_is_a_sentence() -> None:
    class Uneven(Numbered):
        def __getitem__(self, n: int) -> Any:
            return torch.zeros(2 + n // 100)

    with pytest.raises(pv.InputError) as refused:
        list(stream(Uneven(), workers=1).read([torch.tensor([3, 150])]))
    assert str(refused.value).startswith("row 150 of Uneven differs from row 3: its 'x' is (3,), and there (2,)")
    with pytest.raises(pv.InputError, match=r"row 150 of Uneven is .* and the first row is"):
        list(stream(Uneven()).read([torch.tensor([150])]))


class Late(Numbered):
    """A data set whose row 151 is no number."""

    def __getitem__(self, n: int) -> tuple[Tensor, int]:
        x, label = super().__getitem__(n)
        return (x * float("nan") if n == 151 else x), label


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_row_of_a_data_set_is_named_when_it_comes(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.data.streaming.SAMPLE_ITEMS", 64)  # among which it is not
    vae = pv.VAE(EVENT, 2, encoder=pv.MLP(hidden=(4,)))
    rows = stream(Late(), workers=workers).select(torch.arange(51, N)).checked(vae.check)
    read = rows.read(torch.arange(len(rows)).split(30))
    assert len(list(itertools.islice(read, 3))) == 3
    with pytest.raises(pv.InputError, match=r"row 151 of Late, which is x\[0\] here: x\[0, 0, 0\] is nan"):
        next(read)


def test_is_in_memory_recognizes_mapped_and_given_data(tmp_path: Path) -> None:
    mapped = np.load(npy(tmp_path), mmap_mode="r")
    kept: list[Any] = [
        VALUES,
        torch.zeros(2, 3),
        [[1.0]],
        TensorDataset(torch.zeros(2)),
        {"x": VALUES},
        Rows.of(VALUES),
    ]
    read: list[Any] = [
        mapped,
        mapped[3:],
        Numbered(),
        stream(IterableSource(), length=3),
        {"x": VALUES, "size_factor": mapped},
    ]
    assert [type(as_data(x)) for x in kept] == [Rows] * len(kept)
    assert [type(as_data(x)) for x in read] == [Stream] * len(read)
