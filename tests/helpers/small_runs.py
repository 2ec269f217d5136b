"""Runs of a small VAE, and all that is in them."""

from pathlib import Path
from typing import Any

from torch import Tensor

import pyro_vae as pv
from helpers.cases import FAMILIES, seeded
from helpers.fitting import grouped


def small(event: tuple[int, ...] = (3,), **arguments: Any) -> pv.VAE:
    return pv.VAE(event, 2, **{"encoder": pv.MLP(hidden=(5,)), **arguments})


def rows(name: str = "Normal", event: tuple[int, ...] = (3,)) -> Tensor:
    return FAMILIES[name].data(12, event, seeded()).float()


def fit(vae: Any, x: Any, run: Path, **arguments: Any) -> pv.History:
    return pv.fit(vae, x, **grouped(run=run, **{"epochs": 2, "batch_size": 6, "progress": False, **arguments}))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
