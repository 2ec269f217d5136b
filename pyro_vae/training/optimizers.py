"""Optimizers: declared like families, with a learning rate of its own for a part of a model."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from pyro_vae.core.calls import check_kind
from pyro_vae.core.config import Config, FrozenMapping, field
from pyro_vae.core.errors import InputError, abbreviated_repr, is_real, unknown_name_error
from pyro_vae.schedules import Number, Schedule


@dataclass(frozen=True)
class Optimizer(Config):
    r"""Base of every declared optimizer: a torch optimizer's arguments as fields, and accumulation and averaging.

    The gradient of a step is that of the mean loss of `accumulate_grad_batches` batches. Where its norm over all
    weights is above `clip_norm` it is scaled down to that. With `ema` the model that is evaluated, and left at the end,
    has the exponential moving average of the weights,

    $$ \bar w_t = d_t \bar w_{t-1} + (1 - d_t) w_t, \qquad d_t = \min\{d, (1 + t) / (10 + t)\} $$

    References:
        Pascanu et al., On the Difficulty of Training Recurrent Neural Networks, 2013 [pascanu2013],
            https://arxiv.org/abs/1211.5063.
        Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992 [polyak1992].

    Args:
        lr: the learning rate, a number or a schedule of the clock.
        lr_by_part: learning rates of parts by name prefix, as in {"posterior": 1e-4}; 0 freezes a part.
        clip_norm: the largest norm of a step's gradient; None for any.
        accumulate_grad_batches: batches per step.
        ema: the decay d of the average, in [0, 1); None for no average.
        max_nonfinite_steps: the largest number of steps with a NaN or infinite gradient that are skipped, and counted
            in the history, before that is an error.

    Raises:
        InputError: a learning rate that cannot be one.
    """

    lr: Number = field(1e-3, low=0.0)
    lr_by_part: FrozenMapping[float] = field(FrozenMapping(), low=0.0)
    _: KW_ONLY
    clip_norm: float | None = field(None, low=1e-12)
    accumulate_grad_batches: int = field(1, low=1)
    ema: float | None = field(None, low=0.0, high=1 - 1e-9)
    max_nonfinite_steps: int = field(0, low=0)
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]]

    def __post_init__(self) -> None:
        """Check the schedule of the learning rate."""
        super().__post_init__()
        if isinstance(self.lr, Schedule):
            name = type(self).__name__
            if self.lr.is_adaptive:
                raise InputError(
                    f"{name}.lr = {self.lr!r} follows what is observed, and a learning rate follows the clock: take "
                    f"another schedule, as in {name}(lr=pv.schedules.Cosine(1e-3, 0, epochs=20))."
                )
            if (low := min(self.rates(epoch / 4)[self.lr] for epoch in range(4001))) < 0:
                raise InputError(f"{name}.lr = {self.lr!r} falls to {low:g}, and a learning rate is at least 0.")

    def build(self, weights: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Fused torch optimizer of all trainable tensors by their dotted names; a part is a prefix of these.

        Raises:
            InputError: a part that no weight belongs to, or nothing left to train.
        """
        for part in self.lr_by_part:
            if not any(_belongs(name, part) for name in weights):
                raise unknown_name_error("part of the model", part, sorted({name.split(".")[0] for name in weights}))
        groups = self.groups(weights)
        if not groups:
            raise InputError(
                "every part of the model is frozen, so there is nothing to train: raise lr or drop lr_by_part."
            )
        around = {field.name for field in dataclasses.fields(Optimizer)}
        arguments = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in around}
        now = self.rates(0.0)
        listed = [{"params": group, "lr": now[rate]} for rate, group in groups.items()]
        return self.torch_class(listed, fused=True, **arguments)

    def groups(self, weights: Mapping[str, nn.Parameter]) -> dict[Number, list[nn.Parameter]]:
        """The weights that are trained, by their learning rates, in the order of the torch optimizer's groups."""
        groups: dict[Number, list[nn.Parameter]] = {}
        for name, weight in weights.items():
            if (rate := self.rate(name)) != 0:
                groups.setdefault(rate, []).append(weight)
        return groups

    def rates(self, epoch: float) -> dict[Number, float]:
        """The numbers that learning rates are after some epochs.

        >>> from pyro_vae.schedules import Linear
        >>> Adam(Linear(1e-3, 0, epochs=10), lr_by_part={"posterior": 1e-4}).rates(5.0)
        {Linear(start=0.001, end=0.0, epochs=10.0): 0.0005, 0.0001: 0.0001}
        """
        nothing = torch.zeros(0)
        listed: tuple[Number, ...] = (self.lr, *self.lr_by_part.values())
        return {rate: float(rate.value(epoch, nothing)) if isinstance(rate, Schedule) else rate for rate in listed}

    def rate(self, name: str) -> Number:
        """The learning rate of a weight: that of the longest part it belongs to.

        >>> Adam(1e-3, lr_by_part={"posterior": 0}).rate("posterior.network.body.0.weight")
        0.0
        """
        mine = [part for part in self.lr_by_part if _belongs(name, part)]
        return self.lr_by_part[max(mine, key=len)] if mine else self.lr


def _belongs(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam, adaptive moment estimation; the other arguments are those of `Optimizer`.

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015 [kingma2015], https://arxiv.org/abs/1412.6980.

    Args:
        betas: decay rates of the two moment averages.
        eps: added to the denominator.

    >>> Adam(3e-4)
    Adam(lr=0.0003, lr_by_part={}, clip_norm=None, accumulate_grad_batches=1, ema=None, max_nonfinite_steps=0,
         betas=(0.9, 0.999), eps=1e-08)
    """

    betas: tuple[float, float] = field((0.9, 0.999), low=0.0, high=1.0)
    eps: float = field(1e-8, low=0.0)
    torch_class: ClassVar = torch.optim.Adam


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay; the other arguments are those of `Optimizer`.

    References:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019 [loshchilov2019],
            https://arxiv.org/abs/1711.05101.

    Args:
        betas: decay rates of the two moment averages.
        eps: added to the denominator.
        weight_decay: the share of a weight that is taken off, times lr, at each step.
    """

    betas: tuple[float, float] = field((0.9, 0.999), low=0.0, high=1.0)
    eps: float = field(1e-8, low=0.0)
    weight_decay: float = field(1e-2, low=0.0)
    torch_class: ClassVar = torch.optim.AdamW


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent; the other arguments are those of `Optimizer`.

    References:
        Robbins and Monro, A Stochastic Approximation Method, 1951 [robbins1951].

    Args:
        momentum: the decay rate of the velocity; 0 for none.
    """

    momentum: float = field(0.0, low=0.0, high=1.0)
    torch_class: ClassVar = torch.optim.SGD


OPTIMIZERS: dict[str, type[Optimizer]] = {"Adam": Adam, "AdamW": AdamW, "SGD": SGD}

OptimizerLike = Optimizer | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""A declared optimizer, or a callable from parameters to a torch one."""


def build_optimizer(spec: Any, weights: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """The torch optimizer of some weights, given by name.

    Raises:
        InputError: it cannot be made.
    """
    if isinstance(spec, Optimizer):
        return spec.build(weights)
    if isinstance(spec, torch.optim.Optimizer):
        name, lr = type(spec).__name__, spec.param_groups[0]["lr"]
        ours = f"pv.{name}(lr={lr:g})" if name in OPTIMIZERS else f"functools.partial(torch.optim.{name}, lr={lr:g})"
        raise InputError(
            f"optimizer is a torch {name} with weights of its own, and fit gives it those of the model: write "
            f"optimizer={ours}."
        )
    is_class = isinstance(spec, type) and issubclass(spec, Optimizer)
    made = spec(list(weights.values())) if callable(spec) and not is_class else None
    if not isinstance(made, torch.optim.Optimizer):
        other = ", or a callable such as functools.partial(torch.optim.RMSprop, lr=1e-3)"
        example = f"pv.Adam(lr={spec!r})" if is_real(spec) else "pv.Adam(lr=1e-3)"
        if made is None:
            check_kind("optimizer", spec, Optimizer, example, other)
        raise InputError(
            f"optimizer = {abbreviated_repr(spec)} makes no torch optimizer: write optimizer={example}{other}."
        )
    return made
