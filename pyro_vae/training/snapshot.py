"""A file that holds a tree of tensors and plain values: written atomically, checked when read, nothing to execute.

The file is a safetensors one. Tensors keep their path in the tree as their name; all else is JSON in the header, with
a SHA-256 of it and of every tensor. It is written under another name, synced, and renamed: a crash leaves the file
that was there, and what is torn or altered all the same is noticed when it is read.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.core.files import write_atomically

FORMAT = 1
"""The version of the file's layout; a higher one is refused."""


class Damaged(ValueError):
    """The file is truncated, altered or not a checkpoint; the message has the reason."""


def write(file: Path, packed: tuple[Any, dict[str, Tensor]]) -> None:
    """Write the result of `pack`, in place of the file that was there.

    Raises:
        OSError: the file cannot be written; the one that was there is as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "it", pack({"step": 3, "state": {0: (torch.ones(2), None)}}))
    ...     read(Path(folder) / "it")
    {'step': 3, 'state': {0: (tensor([1., 1.]), None)}}
    """
    plain, tensors = packed
    state = json.dumps(plain)
    metadata = {"format": str(FORMAT), "state": state, "sha256": _digest(state, tensors)}
    try:
        with write_atomically(file, durable=True) as fresh:
            safetensors.torch.save_file(tensors, str(fresh), metadata)
    except SafetensorError as error:
        raise OSError(f"{file}: {error}") from error


def read(file: Path) -> Any:
    """Tree in a file that `write` made.

    Raises:
        Damaged: the file is not that, or not as it was written.
        InputError: it was written by a newer version.
    """
    try:
        if not file.is_file():  # nor a pipe, which would never end
            raise Damaged("it is not a file")
        with safetensors.safe_open(str(file), "pt") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
            if not metadata.get("format", "").isdigit():
                raise Damaged("its header is not that of a checkpoint")
            if int(metadata["format"]) > FORMAT:
                raise InputError(f"{file} was written by a newer pyro_vae: pip install --upgrade pyro-vae.")
            names = opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
        if _digest(metadata["state"], tensors) != metadata["sha256"]:
            raise Damaged("its checksum is not that of its content")
        return unpack(json.loads(metadata["state"]), tensors)
    except InputError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise Damaged(" ".join(str(error).split())) from error


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Plain values of a tree, for JSON, and copies of its tensors on the CPU by their paths.

    Args:
        tree: mappings with names or integers as keys, lists, tuples, plain values and tensors.

    Raises:
        InputError: a value is of another type, and would need pickle.
    """
    tensors: dict[str, Tensor] = {}

    def plain(node: Any, path: str) -> Any:
        if isinstance(node, Tensor):
            tensors[path] = node.detach().to("cpu", copy=True).contiguous()
            return {"tensor": path}
        if isinstance(node, Mapping) and all(type(key) in (str, int) for key in node):
            return {"mapping": [[key, plain(value, f"{path}/{key}".lstrip("/"))] for key, value in node.items()]}
        if isinstance(node, list | tuple):
            items = [plain(item, f"{path}/{i}") for i, item in enumerate(node)]
            return {"tuple": items} if isinstance(node, tuple) else items
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise InputError(
            f"{path} is a {type(node).__name__}, which a checkpoint cannot hold without pickle: leave out "
            "checkpoints=, or train with an optimizer whose state is tensors and numbers, such as optimizer=pv.Adam()."
        )

    return plain(tree, ""), tensors


def unpack(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Tree of the result of `pack`."""
    if isinstance(plain, list):
        return [unpack(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(unpack(item, tensors) for item in content)
    if kind == "mapping":
        return {key: unpack(value, tensors) for key, value in content}
    raise Damaged(f"it holds a {kind!r}, which is not a kind of checkpoint entry")


def _digest(state: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        contents: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(contents)
    return digest.hexdigest()
