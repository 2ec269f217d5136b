"""Data by name or by path, split at random into rows to train on, to validate on and to test on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.config import Record
from pyro_vae.core.errors import InputError, is_integer, is_real, unknown_name_error
from pyro_vae.data import files
from pyro_vae.data.dispatch import is_large, stream as stream_file
from pyro_vae.data.file_checks import naming
from pyro_vae.data.public import DATASETS
from pyro_vae.data.rows import Rows, quantize, require_probabilities
from pyro_vae.data.streaming import Stream

Data = TypeVar("Data", bound=Rows | Stream)

SOURCE = {"data": "name", "data_seed": "seed"}
"""Fields of `DataOptions` by other names in the `source` of rows."""

BINARIZE = ("static", "dynamic")


@dataclass(frozen=True)
class DataOptions(Record):
    """Arguments of `load` as one record, for the command line, a file or a sweep.

    Args:
        name: a data set (digits, mnist, fashion_mnist, cifar10), .npy, .npz, .csv or .parquet file, folder of images.
        root: folder that holds a named data set's files.
        binarize: draw binary pixels once (static) or anew for every batch (dynamic).
        levels: round pixels in [0, 1] to the integers 0, ..., levels - 1: 256 for pictures of bytes.
        validation: fraction of the rows to validate on while training.
        test: fraction of the rows held out from everything, where there is no official test set.
        seed: of the split and of static binarisation.
        stream: read rows of .npy or .parquet while training; auto does so where they would fill a quarter of memory.

    >>> DataOptions("digits", test=0).load()
    Dataset('digits', event_shape=(1, 8, 8), train=1617, validation=180, test=0, binarize=None)
    """

    name: str
    root: str | None = None
    binarize: Literal["static", "dynamic"] | None = None
    levels: int | None = None
    validation: float = 0.1
    test: float = 0.1
    seed: int = 0
    stream: bool | Literal["auto"] = "auto"

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> "DataOptions | None":
        """Options that rows record as their source; None for rows that were not loaded by name."""
        if source.get("data") is None:
            return None
        return cls(**{SOURCE.get(name, name): value for name, value in source.items() if name != "split"})

    def load(self) -> "Dataset":
        """Data set by these options, as of `load`."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        return load(options.pop("name"), **options)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Rows to train on, to validate on and to test on; no row is in two of them.

    Args:
        name: the data set's name, or the name of its file.
        train: the rows to train on.
        validation: the rows to evaluate while training, or None.
        test: the rows to evaluate once, at the end, or None.

    >>> from pyro_vae.data import load
    >>> load("digits", test=0)
    Dataset('digits', event_shape=(1, 8, 8), train=1617, validation=180, test=0, binarize=None)
    """

    name: str
    train: Rows | Stream
    validation: Rows | Stream | None = None
    test: Rows | Stream | None = None

    def __repr__(self) -> str:
        """Describe it in one line."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = ", ".join(f"{split}={0 if rows is None else len(rows)}" for split, rows in splits.items())
        binarize = self.train.source.get("binarize", "dynamic" if self.train.dynamic else None)
        levels = f", levels={self.train.source['levels']}" if self.train.source.get("levels") else ""
        return f"Dataset({self.name!r}, event_shape={self.event_shape}, {sizes}, binarize={binarize!r}{levels})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum."""
        return self.train.event_shape


@explained
def load(
    data: str | Path,
    *,
    root: str | Path | None = None,
    binarize: Literal["static", "dynamic"] | None = None,
    levels: int | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    stream: bool | Literal["auto"] = "auto",
) -> Dataset:
    """Data set by its public name, or of a file or a folder of images by its path.

    Which rows go where is a permutation fixed by `seed`; within a split the rows keep the order of the file.
    A data set with an official test set keeps it, and `test` is not used. torch's global random state is
    neither read nor changed.

    Args:
        data: a name in `DATASETS`, or a path to an `.npy`, `.npz`, `.csv` or `.parquet` file, or to a folder of
            images or of `.parquet` files. A name goes before a path: `./digits` is the path.
        root: the folder public data sets lie in, or are downloaded to. By default the environment variable
            `PYRO_VAE_DATA`, or else `~/.cache/pyro_vae`.
        binarize: for x in [0, 1]: "static" draws each binary x ~ Bernoulli(x) once, fixed by `seed` whatever
            the split; "dynamic" draws anew for every batch; None leaves x as it is. Likelihoods under the
            three are not comparable.
        levels: for x in [0, 1]: round it to the integers 0, ..., levels - 1, the labels of `Categorical`,
            `OrderedLogistic` and `DiscretizedLogistic`; None leaves x as it is. Pictures of bytes have 256, the
            digits 17.
        validation: the fraction of the rows to validate on, in [0, 1); 0 for none.
        test: the fraction of the rows to test on, in [0, 1); 0 for none.
        seed: of the split and of the static draw.
        stream: whether rows are read while training, instead of now: `.npy` and `.parquet` can; "auto" does so where
            they would fill more than a quarter of the free memory. The splits are the same.

    Returns:
        The data set; every split records these arguments as its `source`.

    Raises:
        InputError: for an unknown name, a missing or unreadable file, fractions that leave no row to train
            on, and values outside [0, 1] to binarise or to round to levels.

    >>> load("digits", binarize="dynamic").train
    Rows(N=1437, x=(1, 8, 8) float32, labels, dynamic)
    >>> load("digits", levels=17).train.x.max()
    tensor(16.)
    """
    _check(data, binarize, levels, {"validation": validation, "test": test}, seed, stream)
    seed, levels = int(seed), None if levels is None else int(levels)  # of NumPy's, perhaps
    rows, official_test = _read(data, root, stream)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator)
    streamed = isinstance(rows, Stream)
    if binarize is not None or levels is not None:
        with naming(Path(data)):
            rows = _discretize(rows, binarize, levels, generator)
            official_test = official_test and _discretize(official_test, binarize, levels, generator)
    splits = _split(rows, order, validation, test=0.0 if official_test else test)
    if official_test:
        splits["test"] = official_test
    source = {
        "data": str(data),
        "root": None if root is None else str(root),
        "binarize": binarize,
        "levels": levels,
        "validation": float(validation),
        "test": float(test),
        "data_seed": seed,
        **({"stream": True} if streamed else {}),
    }
    recorded = {split: replace(part, source={**source, "split": split}) for split, part in splits.items()}
    return Dataset(Path(data).name, recorded["train"], recorded.get("validation"), recorded.get("test"))


def _check(
    data: object, binarize: object, levels: object, fractions: Mapping[str, float], seed: object, stream: object
) -> None:
    """Check the arguments before anything is read."""
    if not isinstance(data, str | Path):
        raise InputError(
            f"data is a name or a path, not a {type(data).__name__}: data in memory needs no `load`, "
            "give it to `fit` as it is."
        )
    if binarize is not None and binarize not in BINARIZE:
        raise unknown_name_error("binarisation", binarize, BINARIZE)
    if levels is not None and (not is_integer(levels) or levels < 2):
        raise InputError(f"levels={levels!r} is an integer, 2 or more: say levels=256 for pictures of bytes.")
    if levels is not None and binarize is not None:
        raise InputError(
            f"binarize={binarize!r} makes x 0 or 1, and levels={levels} makes it 0 to {levels - 1}: give one of them."
        )
    for name, fraction in fractions.items():
        if not is_real(fraction) or not 0 <= fraction < 1:
            raise InputError(f"{name}={fraction!r} is a fraction of the rows, in [0, 1): say {name}=0.1.")
    if sum(fractions.values()) >= 1:
        named = " and ".join(f"{name}={fraction}" for name, fraction in fractions.items())
        raise InputError(f"{named} leave no row to train on: give fractions that add up to less than 1.")
    if not is_integer(seed) or not 0 <= seed < 2**63:
        raise InputError(f"seed={seed!r} is an integer, 0 or more: say seed=0.")
    if stream not in (True, False, "auto"):
        raise InputError(f"stream={stream!r} is True, False or 'auto': say stream=True to read rows while training.")


def _read(data: str | Path, root: str | Path | None, stream: bool | str) -> tuple[Rows | Stream, Rows | None]:
    """All rows, and the official test set where there is one."""
    if data in DATASETS:
        if stream is True:
            raise InputError(
                f"{data!r} is read into memory, and stream=True is for .npy and .parquet files: leave it out."
            )
        where = root if root is not None else os.environ.get("PYRO_VAE_DATA", "~/.cache/pyro_vae")
        return DATASETS[str(data)](Path(where).expanduser())
    path = Path(data).expanduser()
    written_as_path = isinstance(data, Path) or path.suffix or {"/", os.sep} & set(data)
    if not data or not (written_as_path or path.exists()):
        formats = ", ".join(files.FORMATS)
        raise InputError(
            f"{unknown_name_error('data set', data, DATASETS)} Or give the path of a file ({formats}) or of a folder "
            "of images."
        )
    large = stream == "auto" and path.exists() and is_large(path)
    return (stream_file(path) if stream is True or large else files.read(path)), None


def _discretize(rows: Data, binarize: str | None, levels: int | None, generator: torch.Generator) -> Data:
    """Rows with x ~ Bernoulli(x), drawn once or in every batch, or with x rounded to 0, ..., levels - 1."""
    if isinstance(rows, Stream):
        if binarize == "static":
            raise InputError(
                "binarize='static' draws all rows at once, and these are read while training: give "
                "binarize='dynamic', or stream=False where they fit into memory."
            )
        return replace(rows, dynamic=binarize is not None, levels=levels)
    x = rows.x if rows.x.is_floating_point() else rows.x.to(torch.float32)
    if levels is not None:
        return replace(rows, tensors={**rows.tensors, "x": quantize(x, levels)})
    require_probabilities(x)
    x = torch.bernoulli(x, generator=generator) if binarize == "static" else x
    return replace(rows, tensors={**rows.tensors, "x": x}, dynamic=binarize == "dynamic")


def _split(rows: Rows | Stream, order: Tensor, validation: float, test: float) -> dict[str, Rows | Stream]:
    """Rows by split; a fraction above 0 is at least one row."""
    counts = {
        split: max(1, round(fraction * len(rows))) if fraction else 0
        for split, fraction in {"test": test, "validation": validation}.items()
    }
    counts["train"] = len(rows) - sum(counts.values())
    if counts["train"] < 1:
        raise InputError(
            f"validation={validation} and test={test} leave none of the {len(rows)} rows to train on: "
            "give smaller fractions, or validation=0, test=0."
        )
    parts = order.split(list(counts.values()))
    return {split: rows.select(part.sort().values) for split, part in zip(counts, parts, strict=True) if len(part)}
