"""Data: rows in memory or read while training, public data sets by name, a user's own files by path."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pyro_vae.data.datasets import Dataset, load
from pyro_vae.data.given import as_data, stream
from pyro_vae.data.named import cifar10, digits, fashion_mnist, mnist
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream

# name -> what reads it from the folder of downloads: all rows, and the official test set or None
DATASETS: Mapping[str, Callable[[Path], tuple[Rows, Rows | None]]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}

__all__ = ["DATASETS", "Dataset", "Rows", "Stream", "as_data", "load", "stream"]
