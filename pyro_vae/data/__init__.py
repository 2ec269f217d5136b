"""Data: rows in memory or read while training, public data sets by name, a user's own files by path."""

from pyro_vae.data.datasets import DataOptions, Dataset, load
from pyro_vae.data.dispatch import as_data, stream
from pyro_vae.data.public import DATASETS
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream

__all__ = ["DATASETS", "DataOptions", "Dataset", "Rows", "Stream", "as_data", "load", "stream"]
