"""The rows that a run was fitted to, and its model before training."""

import dataclasses
import sys

from pyro_vae import data as datasets
from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import seeded
from pyro_vae.data import Rows, Stream
from pyro_vae.model.vae import VAE
from pyro_vae.registry import tables
from pyro_vae.runs.folder import RunFolder


def load_untrained(run: RunFolder) -> VAE:
    """Model of a run with its weights from before training.

    Raises:
        InputError: the run declares no VAE, or its data cannot be read.
    """
    with seeded(run.spec().get("seed", 0)):
        vae = run.build_model()
    return vae.initialize(**load_split(run, None, "train").batch())


def load_split(run: RunFolder, data: str | None = None, split: str = "test") -> Rows:
    """Rows to evaluate a run on; of a `Stream`, as many as fit into memory.

    Args:
        run: the run.
        data: data set, file or folder; by default the data of the run.
        split: which of its splits, "train", "validation" or "test".

    Raises:
        InputError: a run on data in memory without `data`, or a split without rows.
    """
    plain = run.spec()
    if data is None and plain.get("data") is None:
        raise InputError(f"{run.path} was fitted to data in memory: name data of that shape with --data.")
    options: datasets.DataOptions = tables.from_dict("data", data if plain.get("data") is None else plain["data"])
    if data is not None:
        options = dataclasses.replace(options, name=data, stream="auto")
    rows: Rows | Stream | None = getattr(options.load(), split)
    if rows is None:
        raise InputError(f"--split {split}: this data has no such rows; take --split train.")
    taken = rows.head_sample()
    if len(taken) < len(rows):
        print(f"Of {len(rows):,} rows, {len(taken):,} are used, evenly spread over all.", file=sys.stderr)
    return taken
