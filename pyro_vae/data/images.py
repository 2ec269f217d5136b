"""Images as one float tensor (N, C, H, W) in [0, 1]: from bytes, and from a folder of image files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.data.file_checks import check_memory
from pyro_vae.data.rows import Rows

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")

# how Pillow stores a picture -> the channels it is read as
MODES = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Whether events can be shown as images: (H, W), or (C, H, W) with C = 1 (grey) or 3 (RGB)."""
    return len(event_shape) == 2 or (len(event_shape) == 3 and event_shape[0] in (1, 3))


def intensities(pixels: np.ndarray) -> Tensor:
    """Intensities pixels / 255 in [0, 1], float32, of uint8 pixels of any shape in writable memory.

    >>> intensities(np.array([0, 51, 255], dtype=np.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return torch.from_numpy(pixels).to(torch.float32).div_(255)


def pictures(x: np.ndarray) -> np.ndarray | Tensor:
    """Intensities of bytes of shape (N, H, W) or (N, C, H, W); other arrays as they are."""
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        return x
    if x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        raise InputError(
            f"its shape {x.shape} is that of pictures with the channels last, and pictures are (N, C, H, W): "
            "give `numpy.save(file, x.transpose(0, 3, 1, 2))`."
        )
    return intensities(x[:, None] if x.ndim == 3 else x)


def folder(path: Path) -> Rows:
    """Rows of all image files below a folder, in the order of their names.

    Files whose names begin with a dot, and files that are not images, are ignored. Sub-folders of images are the
    classes: labels number them in the order of their names.

    Returns:
        The rows: x in [0, 1], float32, shape (N, C, H, W) with C = 1 (grey), 2 (grey and alpha), 3 (RGB) or
        4 (RGBA).

    Raises:
        InputError: without an image, where images lie both in the folder and in sub-folders, and naming the
            first image that is unreadable or differs from the first in size or in channels.
    """
    inside = sorted(file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    files = [file for file in inside if not any(part.startswith(".") for part in file.parts)]
    if not files:
        raise InputError(f"there is no image ({', '.join(SUFFIXES)}) in it: name the folder that holds them.")
    loose = [file for file in files if len(file.parts) == 1]
    if loose and len(loose) < len(files):
        nested = next(file for file in files if file not in loose)
        raise InputError(
            f"image '{loose[0]}' lies beside the sub-folder of '{nested}': sub-folders are classes, so put "
            "every image into one, or all of them into the folder itself."
        )
    first = _read(path, files[0])
    check_memory(5 * len(files) * first.size, f"these {len(files)} images")  # as bytes, and as float32
    pixels = np.empty((len(files), *first.shape), dtype=np.uint8)
    for row, file in enumerate(files):
        image = _read(path, file, first.shape[1:])
        if image.shape != first.shape:
            raise InputError(
                f"image '{file}' is {_describe(image)} and '{files[0]}' is {_describe(first)}: give all one "
                "size and mode, `PIL.Image.open(file).convert('RGB').resize((width, height)).save(file)`."
            )
        pixels[row] = image
    classes = sorted({file.parts[0] for file in files})
    labels = None if loose else torch.tensor([classes.index(file.parts[0]) for file in files])
    return Rows({"x": intensities(pixels)}, labels)


def _read(path: Path, file: Path, size: tuple[int, ...] = ()) -> np.ndarray:
    """Bytes of an image, shape (C, H, W); not decoded if its size differs from `size`."""
    from PIL import Image

    try:
        with Image.open(path / file) as image:
            if image.mode.startswith(("I", "F")):
                files = f"sorted(pathlib.Path({str(path)!r}).rglob('*{file.suffix}'))"
                raise InputError(
                    f"image '{file}' has mode {image.mode}, which has more levels of grey than bytes have: give the "
                    "images as an array that keeps them, "
                    f"`numpy.stack([numpy.asarray(PIL.Image.open(file), 'float32') for file in {files}])[:, None]`, "
                    "divided by its maximum."
                )
            if image.mode not in MODES:
                raise InputError(
                    f"image '{file}' has mode {image.mode}, which is not 8 bits of grey or RGB: "
                    "`PIL.Image.open(file).convert('RGB').save(file)`."
                )
            width, height = image.size
            if size and size != (height, width):
                return np.broadcast_to(np.uint8(0), (len(image.getbands()), height, width))
            check_memory(4.0 * width * height, f"image '{file}'")
            pixels = np.asarray(image.convert(MODES[image.mode]))
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"image '{file}' cannot be read ({error}): replace it or remove it.") from error
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def _describe(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{width} x {height} pixels of {channels} channel{'s' * (channels > 1)}"
