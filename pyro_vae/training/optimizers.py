"""Optimizers: declared like families, with one learning rate per part where that is wanted."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from pyro_vae.declared import Declared, FrozenMapping, option
from pyro_vae.errors import InputError, unknown


@dataclass(frozen=True)
class Optimizer(Declared):
    """Base of every declared optimizer: a torch optimizer's arguments as fields, and learning rates by part."""

    lr: float = option(1e-3, low=0.0)
    parts: FrozenMapping[float] = option(FrozenMapping(), low=0.0)
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]]

    def build(self, weights: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Make the fused torch optimizer.

        Args:
            weights: every trainable tensor by its dotted name; a part is a prefix of such names.

        Raises:
            InputError: a part that no weight belongs to, or nothing left to train.
        """
        for part in self.parts:
            if not any(_belongs(name, part) for name in weights):
                raise unknown("part of the model", part, sorted({name.split(".")[0] for name in weights}))
        groups: dict[float, list[nn.Parameter]] = {}
        for name, weight in weights.items():
            if (rate := self.rate(name)) > 0:
                groups.setdefault(rate, []).append(weight)
        if not groups:
            raise InputError("every part of the model is frozen, so there is nothing to train: raise lr or drop parts.")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arguments = {name: value for name, value in fields.items() if name != "parts"}
        listed = [{"params": group, "lr": rate} for rate, group in groups.items()]
        return self.torch_class(listed, fused=True, **arguments)

    def rate(self, name: str) -> float:
        """The learning rate of a weight: that of the longest part it belongs to.

        >>> Adam(1e-3, parts={"encoder": 0}).rate("encoder.network.body.0.weight")
        0.0
        """
        mine = [part for part in self.parts if _belongs(name, part)]
        return self.parts[max(mine, key=len)] if mine else self.lr


def _belongs(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam.

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015, https://arxiv.org/abs/1412.6980.

    Args:
        lr: the learning rate.
        parts: learning rates of parts by name prefix, as in {"encoder": 1e-4}; 0 freezes a part.
        betas: decay rates of the two moment averages.
        eps: added to the denominator.

    >>> Adam(3e-4)
    Adam(lr=0.0003, parts={}, betas=(0.9, 0.999), eps=1e-08)
    """

    betas: tuple[float, float] = option((0.9, 0.999), low=0.0, high=1.0)
    eps: float = option(1e-8, low=0.0)
    torch_class: ClassVar = torch.optim.Adam


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    References:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, https://arxiv.org/abs/1711.05101.

    Args:
        lr: the learning rate.
        parts: learning rates of parts by name prefix; 0 freezes a part.
        betas: decay rates of the two moment averages.
        eps: added to the denominator.
        weight_decay: the share of a weight that is taken off, times lr, at each step.
    """

    betas: tuple[float, float] = option((0.9, 0.999), low=0.0, high=1.0)
    eps: float = option(1e-8, low=0.0)
    weight_decay: float = option(1e-2, low=0.0)
    torch_class: ClassVar = torch.optim.AdamW


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent.

    References:
        Robbins and Monro, A Stochastic Approximation Method, 1951.

    Args:
        lr: the learning rate.
        parts: learning rates of parts by name prefix; 0 freezes a part.
        momentum: the decay rate of the velocity; 0 for none.
    """

    momentum: float = option(0.0, low=0.0, high=1.0)
    torch_class: ClassVar = torch.optim.SGD


OPTIMIZERS: dict[str, type[Optimizer]] = {"Adam": Adam, "AdamW": AdamW, "SGD": SGD}
