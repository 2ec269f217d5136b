"""Decompositions of fused kernels into elementary operations, which a compiler can fuse with those around them.

A traced step has them in place of the kernels. The compiler cannot inline an optimizer's fused kernel; its
decomposition changes the same tensors in place. The kernel of a product with a bias writes the bias to memory, and
reads it back, before it multiplies. Values are the same up to rounding.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Tensors = Sequence[Tensor]


def _adam(
    weights: Tensors,
    gradients: Tensors,
    means: Tensors,
    squares: Tensors,
    largest: Tensors,
    steps: Tensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    amsgrad: bool,
    maximize: bool,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    decoupled: bool = False,
) -> None:
    rates = (lr / _bias_correction(steps, beta1)).to(weights[0].dtype)
    roots = _bias_correction(steps, beta2).rsqrt().to(weights[0].dtype)
    for i, (weight, gradient, mean, square) in enumerate(zip(weights, gradients, means, squares, strict=True)):
        slope = _slope(gradient, maximize, grad_scale)
        start = weight
        if weight_decay and decoupled:
            start = weight * (1 - lr * weight_decay)
        elif weight_decay:
            slope = slope + weight_decay * weight
        new_mean = mean.lerp(slope, 1 - beta1)
        new_square = square * beta2 + slope * slope * (1 - beta2)
        bound = torch.maximum(largest[i], new_square) if amsgrad else new_square
        new_weight = start - rates[i] * new_mean / (bound.sqrt() * roots[i] + eps)
        _update(found_inf, (weight, new_weight), (mean, new_mean), (square, new_square))
        if amsgrad:
            _update(found_inf, (largest[i], bound))


def _adamw(*tensors: Any, **settings: Any) -> None:
    _adam(*tensors, **settings, decoupled=True)


def _sgd(
    weights: Tensors,
    gradients: Tensors,
    velocities: Tensors,
    *,
    weight_decay: float,
    momentum: float,
    lr: float | Tensor,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        slope = _slope(gradient, maximize, grad_scale)
        if weight_decay:
            slope = slope + weight_decay * weight
        if momentum:
            velocity = slope if is_first_step else velocities[i] * momentum + slope * (1 - dampening)
            _update(found_inf, (velocities[i], velocity))
            slope = slope + momentum * velocity if nesterov else velocity
        _update(found_inf, (weight, weight - lr * slope))


def _bias_correction(steps: Tensors, beta: float) -> Tensor:
    """1 - beta ** t of every weight, as one vector: otherwise a compiler would compute the power for every element."""
    log = math.log(beta) if beta else -math.inf
    return 1 - torch.exp(torch.stack(list(steps)).double() * log)


def _slope(gradient: Tensor, maximize: bool, scale: Tensor | None) -> Tensor:
    slope = gradient if scale is None else gradient / scale
    return -slope if maximize else slope


def _update(found_inf: Tensor | None, *pairs: tuple[Tensor, Tensor]) -> None:
    """Write new values in place, except where a gradient scaler found infinite gradients."""
    for old, new in pairs:
        old.copy_(new if found_inf is None else torch.where(found_inf == 1, old, new))


def _addmm(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """Product plus bias as two operations, with a view between them, or the compiler would fuse them to one kernel.

    It is left to the kernel on a GPU, where the bias is added without another pass over memory, and in half precision,
    where the product would be rounded.
    """
    if bias.device.type != "cpu" or bias.dtype not in (torch.float32, torch.float64) or beta != 1 or alpha != 1:
        return NotImplemented
    product = left @ right
    return (product.unsqueeze(-1) + bias.unsqueeze(-1)).view(product.shape)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    overload: written
    for kernel, written in ((aten._fused_adam_, _adam), (aten._fused_adamw_, _adamw), (aten._fused_sgd_, _sgd))
    for overload in (kernel.default, kernel.tensor_lr)
} | {aten.addmm.default: _addmm}
"""Decomposition by kernel, for `make_fx`."""
