"""The rows that stand for a data set are spread over all of it, and its fingerprint follows from source and rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_vae.data import Rows, stream

N = 20_000


def numbered() -> torch.Tensor:
    return torch.arange(N, dtype=torch.float64)[:, None].expand(N, 2).contiguous()


def sources(folder: Path) -> dict[str, Any]:
    np.save(folder / "x.npy", numbered().numpy())
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"x": numbered().tolist()}), folder / "x.parquet", row_group_size=1000)
    dataset = torch.utils.data.TensorDataset(numbered())
    return {
        "rows": Rows.of(numbered()),
        "npy": stream(folder / "x.npy"),
        "parquet": stream(folder / "x.parquet"),
        "dataset": stream(dataset),
    }


@pytest.mark.parametrize("n", [10, 999, 4096])
@pytest.mark.parametrize("name", ["rows", "npy", "parquet", "dataset"])
def test_representative_rows_are_spread_over_all_rows(name: str, n: int, tmp_path: Path) -> None:
    found = sources(tmp_path)[name].head_sample(n).x[:, 0].numpy()
    assert len(found) == n
    assert (np.diff(found) > 0).all()
    shares = np.histogram(found, bins=np.linspace(0, N, 5))[0] / n
    np.testing.assert_allclose(shares, 0.25, atol=0.5 / np.sqrt(n))


def test_an_iterable_data_set_is_represented_by_its_start() -> None:
    class Source(torch.utils.data.IterableDataset[torch.Tensor]):
        def __iter__(self) -> Any:
            return iter(numbered()[:200])

    rows = stream(Source(), length=200).head_sample(9)
    torch.testing.assert_close(rows.x[:, 0], torch.arange(9.0, dtype=rows.x.dtype))


def test_the_fingerprint_of_a_file_has_its_stamp_beside_sampled_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are not sampled change the size of a Parquet file, and so its fingerprint."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("pyro_vae.data.streaming.FINGERPRINT_ROWS", 2)  # rows 0 and 50
    files, noise = [], np.random.default_rng(0).normal(size=100)
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        x = np.zeros(100) if part == "a" else np.where(np.arange(100) % 50 == 0, 0, noise)
        parquet.write_table(pa.table({"value": x}), tmp_path / part / "x.parquet")
        files.append(stream(tmp_path / part / "x.parquet"))
    one, other = files
    assert torch.equal(one.head_sample(2).x, other.head_sample(2).x)
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() == stream(tmp_path / "a" / "x.parquet").fingerprint()
