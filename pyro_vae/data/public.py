"""Public data sets by name: where their files lie, and how they become rows.

A reader takes the folder of downloads and returns all rows for training and, where the data set has an
official one, its test set. Pictures are (N, C, H, W) in [0, 1]; labels are the classes.
"""

import contextlib
import gzip
import http.client
import io
import logging
import math
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_vae.core.errors import InputError
from pyro_vae.data.images import intensities
from pyro_vae.data.limits import require_room
from pyro_vae.data.paths import naming
from pyro_vae.data.rows import Rows

IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist

_log = logging.getLogger(__name__)


def digits(root: Path) -> tuple[Rows, Rows | None]:
    """Read scikit-learn's 1797 handwritten digits of 8 x 8 pixels: built in, no download.

    Args:
        root: not used.

    Returns:
        All rows, x of shape (1797, 1, 8, 8), and no test set.

    >>> digits(Path())[0]
    Rows(N=1797, x=(1, 8, 8) float32, labels)
    """
    from sklearn.datasets import load_digits

    content = load_digits()
    x = torch.from_numpy(content.images).to(torch.float32).div_(16)[:, None]  # 17 grey levels, 0 ... 16
    return Rows({"x": x}, torch.from_numpy(content.target)), None


def mnist(root: Path) -> tuple[Rows, Rows | None]:
    """Read MNIST: 60,000 and 10,000 handwritten digits of 28 x 28 pixels.

    Args:
        root: the folder of `MNIST/raw`.

    Returns:
        Training and test rows, x of shape (N, 1, 28, 28).

    Raises:
        InputError: where files are missing and cannot be downloaded, or are damaged.
    """
    return _read_idx_set("MNIST", root, [root / "MNIST" / "raw"])


def fashion_mnist(root: Path) -> tuple[Rows, Rows | None]:
    """Read Fashion-MNIST: 60,000 and 10,000 pictures of clothes of 28 x 28 pixels.

    The files of Debian's package `dataset-fashion-mnist` are found as well.

    Args:
        root: the folder of `FashionMNIST/raw`.

    Returns:
        Training and test rows, x of shape (N, 1, 28, 28).

    Raises:
        InputError: where files are missing and cannot be downloaded, or are damaged.
    """
    folders = [root / "FashionMNIST" / "raw", DEBIAN_FASHION_MNIST]
    return _read_idx_set("FashionMNIST", root, folders, hint=" (Debian: `apt-get install dataset-fashion-mnist`)")


def cifar10(root: Path) -> tuple[Rows, Rows | None]:
    """Read CIFAR-10: 50,000 and 10,000 photographs of 32 x 32 pixels in colour.

    Args:
        root: the folder of `cifar-10-batches-py`.

    Returns:
        Training and test rows, x of shape (N, 3, 32, 32).

    Raises:
        InputError: where files are missing and cannot be downloaded. They are pickles, so torchvision
            compares their checksums before it reads them.
    """
    from torchvision.datasets import CIFAR10

    def read(train: bool) -> Rows:
        with warnings.catch_warnings():  # numpy deprecates how these pickles name their types
            warnings.simplefilter("ignore")
            content = CIFAR10(root, train=train)
        x = intensities(content.data.transpose(0, 3, 1, 2))
        return Rows({"x": x.contiguous()}, torch.tensor(content.targets))

    try:
        return read(True), read(False)
    except RuntimeError:  # not there, or not with the checksums of the original
        batches = [name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]]
        _download("CIFAR10", root, root / CIFAR10.base_folder, [*batches, CIFAR10.meta["filename"]])
        return read(True), read(False)


def _read_idx_set(name: str, root: Path, folders: Sequence[Path], hint: str = "") -> tuple[Rows, Rows | None]:
    """Read four idx files, plain or gzipped, from the first folder that has them all."""
    names = [file for pair in IDX.values() for file in pair]
    found = next((folder for folder in folders if not _missing(folder, names)), None)
    if found is None:
        _download(name, root, folders[0], _missing(folders[0], names), hint)
        found = folders[0]
    train, test = (
        Rows(
            {"x": intensities(_read_idx(found / x)[:, None])},
            torch.from_numpy(_read_idx(found / y).astype(np.int64)),
        )
        for x, y in IDX.values()
    )
    return train, test


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not ((folder / name).is_file() or (folder / f"{name}.gz").is_file())]


def _read_idx(path: Path) -> np.ndarray:
    """Read an array of bytes in LeCun's idx format: two zeros, type, rank, shape (big-endian), values."""
    path = path if path.is_file() else path.with_name(f"{path.name}.gz")
    with naming(path):
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
                head = stream.read(4)
                if head[:3] != b"\x00\x00\x08" or len(head) < 4:
                    raise ValueError("it does not begin as an idx file of bytes does")
                shape = tuple(map(int, np.frombuffer(stream.read(4 * head[3]), ">u4", head[3])))
                require_room(5 * math.prod(shape), "what it declares")  # as bytes, and as float32
                content = stream.read(math.prod(shape) + 1)  # a byte more would not fit its shape
        except zlib.error as error:
            raise ValueError(error) from error
        return np.frombuffer(bytearray(content), np.uint8).reshape(shape)


def _download(name: str, root: Path, folder: Path, files: Sequence[str], hint: str = "") -> None:
    """Let torchvision download a data set, saying so; where it cannot, say which files belong where."""
    import torchvision

    _log.warning("%s is not complete in %s: downloading it", name, folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            dataset: Any = getattr(torchvision.datasets, name)
            dataset(root, download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        raise InputError(
            f"{name} is not complete in '{folder}' and cannot be downloaded ({reason}). Put these files "
            f"there: {', '.join(files)}{hint}. Or name the folder that has '{folder.relative_to(root)}' in it: "
            f"load(..., root='FOLDER') or `export PYRO_VAE_DATA=FOLDER`."
        ) from error


# name -> what reads it from the folder of downloads: all rows, and the official test set or None
DATASETS: Mapping[str, Callable[[Path], tuple[Rows, Rows | None]]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}
