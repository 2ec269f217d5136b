r"""Test statistics of images (N, *channels, H, W): position, sharpness, and connected parts.

Each is one value of each image, from that image alone, and finite for a blank image, as its docstring states.
"""

import numpy as np
import torch
from torch import Tensor


def sparsity(x: Tensor) -> Tensor:
    r"""Hoyer's sparsity of each image, (N,): 0 where all n elements are equal, 1 where all but one are zero.

    $$ (\sqrt n - \|x\|_1 / \|x\|_2) / (\sqrt n - 1), $$ and 0 for a blank image.

    References:
        Hoyer, Non-negative Matrix Factorization with Sparseness Constraints, 2004 [hoyer2004],
            https://jmlr.org/papers/v5/hoyer04a.html.
    """
    rows = _scaled(x).reshape(len(x), -1)
    root = rows.shape[1] ** 0.5
    norm = torch.linalg.vector_norm(rows, dim=1)
    ratio = torch.where(norm > 0, rows.abs().sum(1) / torch.where(norm > 0, norm, 1), root)
    return ((root - ratio) / (root - 1)).clamp(0, 1)


def edges(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of each image, (N,), in the data's unit."""
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().reshape(len(x), -1)
    across = (x[..., 1:] - x[..., :-1]).abs().reshape(len(x), -1)
    return (down.sum(1) + across.sum(1)) / (down.shape[1] + across.shape[1])


def centre_row(x: Tensor) -> Tensor:
    """Row of the centre of mass |x| of each image, (N,), in pixels from the top one; the middle of a blank one."""
    return _centre(x.abs().sum(-1))


def centre_column(x: Tensor) -> Tensor:
    """Column of the centre of mass |x| of each image, (N,), in pixels from the left one."""
    return _centre(x.abs().sum(-2))


def autocorrelation(x: Tensor) -> Tensor:
    r"""Moran's I of each image, (N,): the correlation of pixels with their neighbours above, below, left and right.

    $$ I = \frac{n}{|E|} \frac{\sum_{(i,j) \in E} (x_i - \bar x)(x_j - \bar x)}{\sum_i (x_i - \bar x)^2} $$

    over all pairs E of neighbours; channels have their own means and their sums are joined. 0 for a blank image.

    References:
        Moran, Notes on Continuous Stochastic Phenomena, 1950 [moran1950].
    """
    centred = _scaled(x - x[..., :1, :1])  # exactly 0 for a blank image
    centred -= centred.mean((-2, -1), keepdim=True)
    down = (centred[..., 1:, :] * centred[..., :-1, :]).reshape(len(x), -1)
    across = (centred[..., 1:] * centred[..., :-1]).reshape(len(x), -1)
    squares = centred.square().reshape(len(x), -1)
    joint = (down.sum(1) + across.sum(1)) / (down.shape[1] + across.shape[1])
    own = squares.mean(1)
    return torch.where(own > 0, joint / torch.where(own > 0, own, 1), 0)


def high_frequencies(x: Tensor) -> Tensor:
    """Share of each image's power, without its mean, above a quarter of a cycle per pixel, (N,); 0 for a blank one."""
    height, width = x.shape[-2:]
    power = torch.fft.rfft2(_scaled(x - x[..., :1, :1])).abs().square()
    down, across = torch.fft.fftfreq(height).to(x), torch.fft.rfftfreq(width).to(x)
    # rfft2 omits the half of the spectrum that mirrors the other: frequencies with a mirror image count twice.
    twice = torch.where((across > 0) & (across < 0.5), 2.0, 1.0).to(x) * torch.ones_like(down)[:, None]
    twice[0, 0] = 0
    high = twice * (down[:, None].square() + across.square() > 0.25**2 + 1e-6)  # rounding aside
    total, part = ((power * weight).reshape(len(x), -1).sum(1) for weight in (twice, high))
    return torch.where(total > 0, part / torch.where(total > 0, total, 1), 0)


def components(x: Tensor) -> Tensor:
    """Number of connected parts of each image, (N,): pixels above the middle of its range, eight neighbours each.

    Channels are averaged first. A blank image has none.
    """
    from scipy.ndimage import label  # here, for importing it takes time

    grey = x.reshape(len(x), -1, *x.shape[-2:]).mean(1)
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    on = (grey > low + (high - low) / 2).cpu().numpy()
    within = np.zeros((3, 3, 3), dtype=int)
    within[1] = 1  # neighbours lie in the same image
    labels, count = label(on, within)
    image = np.zeros(count + 1, dtype=int)
    image[labels] = np.arange(len(x))[:, None, None]
    return torch.as_tensor(np.bincount(image[1:], minlength=len(x))).to(x)


def _scaled(x: Tensor) -> Tensor:
    """Images with elements in [-1, 1], in units of their largest, so that no square overflows; blank ones unchanged."""
    low, high = x.reshape(len(x), -1).aminmax(dim=1)
    scale = torch.maximum(high, -low)
    return x / torch.where(scale > 0, scale, 1).reshape(-1, *[1] * (x.ndim - 1))


def _centre(mass: Tensor) -> Tensor:
    """Mean position of mass (N, ..., L) along its last dimension, (N,)."""
    mass = mass.reshape(len(mass), -1, mass.shape[-1]).sum(1)
    position = torch.arange(mass.shape[1]).to(mass)
    total = mass.sum(1)
    middle = (mass.shape[1] - 1) / 2
    return middle + torch.where(total > 0, mass @ (position - middle) / torch.where(total > 0, total, 1), 0)
