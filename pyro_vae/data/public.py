"""Public data sets by name, and the readers that make their files rows.

    digits         1,797 handwritten digits of 8 x 8 pixels, of scikit-learn: built in, with no test set
    mnist          60,000 and 10,000 handwritten digits of 28 x 28 pixels, in ROOT/MNIST/raw
    fashion_mnist  60,000 and 10,000 pictures of clothes of 28 x 28 pixels, in ROOT/FashionMNIST/raw or from Debian
    cifar10        50,000 and 10,000 photographs of 32 x 32 pixels in colour, in ROOT/cifar-10-batches-py

A reader is given the folder ROOT of downloads, and returns all rows for training and, where there is an official one,
the test set: x in [0, 1], (N, C, H, W), and the classes as labels. What is missing is downloaded by torchvision.
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
from pyro_vae.data.file_checks import check_memory, naming
from pyro_vae.data.images import intensities
from pyro_vae.data.rows import Rows

IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist

_log = logging.getLogger(__name__)


def digits(root: Path) -> tuple[Rows, Rows | None]:
    """Rows of scikit-learn's digits, x of shape (1797, 1, 8, 8), and no test set."""
    from sklearn.datasets import load_digits

    content = load_digits()
    x = torch.from_numpy(content.images).to(torch.float32).div_(16)[:, None]  # 17 grey levels, 0 ... 16
    return Rows({"x": x}, torch.from_numpy(content.target)), None


def cifar10(root: Path) -> tuple[Rows, Rows | None]:
    """Training and test rows of CIFAR-10, x of shape (N, 3, 32, 32).

    Its files are pickles, so torchvision compares their checksums before it reads them.

    Raises:
        InputError: files are missing and cannot be downloaded.
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


def read_idx_set(root: Path, name: str, installed: Path | None = None, hint: str = "") -> tuple[Rows, Rows]:
    """Training and test rows of a set of four idx files, plain or gzipped, x of shape (N, 1, H, W).

    Args:
        root: the folder of downloads, with the files in NAME/raw.
        name: of torchvision's class.
        installed: another folder that may have the files.
        hint: on how to get them there.

    Raises:
        InputError: files are missing and cannot be downloaded, or are damaged.
    """
    folder = downloads = root / name / "raw"
    names = [file for pair in IDX.values() for file in pair]
    if missing := _missing(downloads, names):
        if installed is not None and not _missing(installed, names):
            folder = installed
        else:
            _download(name, root, downloads, missing, hint)
    train, test = (
        Rows(
            {"x": intensities(_read_idx(folder / x)[:, None])},
            torch.from_numpy(_read_idx(folder / y).astype(np.int64)),
        )
        for x, y in IDX.values()
    )
    return train, test


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not ((folder / name).is_file() or (folder / f"{name}.gz").is_file())]


def _read_idx(path: Path) -> np.ndarray:
    """Array of bytes of a file in LeCun's idx format: two zeros, type, rank, shape (big-endian), values."""
    path = path if path.is_file() else path.with_name(f"{path.name}.gz")
    with naming(path):
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
                head = stream.read(4)
                if head[:3] != b"\x00\x00\x08" or len(head) < 4:
                    raise ValueError("it does not begin as an idx file of bytes does")
                shape = tuple(map(int, np.frombuffer(stream.read(4 * head[3]), ">u4", head[3])))
                check_memory(5 * math.prod(shape), "what it declares")  # as bytes, and as float32
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


DATASETS: Mapping[str, Callable[[Path], tuple[Rows, Rows | None]]] = {
    "digits": digits,
    "mnist": lambda root: read_idx_set(root, "MNIST"),
    "fashion_mnist": lambda root: read_idx_set(
        root, "FashionMNIST", DEBIAN_FASHION_MNIST, hint=" (Debian: `apt-get install dataset-fashion-mnist`)"
    ),
    "cifar10": cifar10,
}
"""The readers of the data sets by name."""
