"""A small sweep, for the tests of sweeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_vae as pv


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a small fit, to rows in a file."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", torch.randn(60, 3, generator=torch.Generator().manual_seed(3)).numpy())
    return {"data": "x.npy", "encoder": {"MLP": {"hidden": [4]}}, "epochs": 2, "batch_size": 30}


def sweep(over: Any, base: Any, to: str = "sweep", **words: Any) -> pv.Sweep:
    return pv.sweep(over, base, to=to, **{"progress": False, **words})


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()
