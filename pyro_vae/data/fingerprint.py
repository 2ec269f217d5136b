"""Fingerprints: short hashes that identify data."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint(x: Tensor) -> str:
    """Hash of a tensor: of its shape, dtype and values.

    >>> fingerprint(torch.zeros(2)) == fingerprint(torch.ones(2))
    False
    """
    digest = hashlib.sha256(f"{tuple(x.shape)} {x.dtype}".encode())
    digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint_of(batch: Mapping[str, Tensor]) -> str:
    """Hash of named tensors, invariant to masked values and dtype.

    >>> x, mask = torch.tensor([[1.0, torch.nan]]), torch.tensor([[True, False]])
    >>> fingerprint_of({"x": x, "mask": mask}) == fingerprint_of({"x": torch.tensor([[1, 7]]), "mask": mask})
    True
    """
    seen = dict(batch)
    if "mask" in seen:
        seen["x"] = torch.where(seen["mask"].bool(), seen["x"], 0)
    parts = [f"{name} {fingerprint(seen[name].cpu().double())}" for name in sorted(seen)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
