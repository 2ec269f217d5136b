"""Schedules that are functions of the epoch alone."""

import bisect
import math
from dataclasses import dataclass

from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.schedules.base import Schedule


@dataclass(frozen=True)
class Linear(Schedule):
    r"""A linear change from one value to another, constant afterwards.

    $$ v(t) = a + (b - a) \min(t / T, 1) $$

    As `beta` from 0 to 1 it is the warm-up against collapse of latents before the decoder has learned to use them.

    References:
        Bowman et al., Generating Sentences from a Continuous Space, 2016 [bowman2016],
            https://arxiv.org/abs/1511.06349.
        Sønderby et al., Ladder Variational Autoencoders, 2016 [sonderby2016], https://arxiv.org/abs/1602.02282.

    Args:
        start: the value a at the start.
        end: the value b from epoch T on.
        epochs: the length T of the change, in epochs.

    >>> [Linear(0, 1, epochs=10).value(epoch, None) for epoch in (0, 5, 10, 20)]
    [0.0, 0.5, 1.0, 1.0]
    """

    start: float = 0.0
    end: float = 1.0
    epochs: float = field(10.0, low=1e-9)

    def value(self, epoch: float, state: Tensor | None) -> float:
        """Value after some epochs."""
        return self.start + (self.end - self.start) * min(epoch / self.epochs, 1.0)


@dataclass(frozen=True)
class Sigmoid(Schedule):
    r"""A logistic curve from one value to another, with both reached exactly, constant afterwards.

    $$ v(t) = a + (b - a) \frac{\sigma(s(2u - 1)) - \sigma(-s)}{\sigma(s) - \sigma(-s)}, \qquad u = \min(t / T, 1) $$

    References:
        Bowman et al., Generating Sentences from a Continuous Space, 2016 [bowman2016],
            https://arxiv.org/abs/1511.06349.

    Args:
        start: the value a at the start.
        end: the value b from epoch T on.
        epochs: the length T of the change, in epochs.
        steepness: the slope s of the curve; high values approach a step halfway.

    >>> [round(Sigmoid(epochs=10).value(epoch, None), 3) for epoch in (0, 2.5, 5, 10, 20)]
    [0.0, 0.071, 0.5, 1.0, 1.0]
    """

    start: float = 0.0
    end: float = 1.0
    epochs: float = field(10.0, low=1e-9)
    steepness: float = field(5.0, low=1e-3, high=50)

    def value(self, epoch: float, state: Tensor | None) -> float:
        """Value after some epochs."""
        reach = math.tanh(self.steepness / 2)  # sigma(s) - sigma(-s); and sigma(y) = (1 + tanh(y / 2)) / 2
        along = math.tanh(self.steepness * (2 * min(epoch / self.epochs, 1.0) - 1) / 2)
        return self.start + (self.end - self.start) * (along + reach) / (2 * reach)


@dataclass(frozen=True)
class Cyclical(Schedule):
    r"""Periods of a linear change, each followed by a constant part.

    $$ v(t) = a + (b - a) \min\big((t \bmod T) / (rT), 1\big) $$

    and b after the last period. Each period starts from the latents that the period before made useful.

    References:
        Fu et al., Cyclical Annealing Schedule, 2019 [fu2019], https://arxiv.org/abs/1903.10145.

    Args:
        start: the value a at the start of a period.
        end: the value b at its end.
        period: its length T, in epochs.
        ratio: the share r of a period in which the value changes, in (0, 1].
        periods: the number of periods.

    >>> schedule = Cyclical(period=4, ratio=0.5, periods=2)
    >>> [schedule.value(epoch, None) for epoch in (0, 1, 2, 3, 4, 5, 8, 100)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0]
    """

    start: float = 0.0
    end: float = 1.0
    period: float = field(10.0, low=1e-9)
    ratio: float = field(0.5, low=1e-9, high=1)
    periods: int = field(4, low=1)

    def value(self, epoch: float, state: Tensor | None) -> float:
        """Value after some epochs."""
        if epoch >= self.period * self.periods:
            return self.end
        return self.start + (self.end - self.start) * min(epoch % self.period / (self.ratio * self.period), 1.0)


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Half a cosine wave from one value to another, after a linear warm-up from 0.

    $$ v(t) = a \frac{t}{W} \;\text{for}\; t < W, \qquad
       v(t) = b + \frac{a - b}{2} \Big(1 + \cos \pi \min\Big(\frac{t - W}{T - W}, 1\Big)\Big) \;\text{after} $$

    It is a common learning rate for long training: a warm-up, then a slow decay.

    References:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017 [loshchilov2017],
            https://arxiv.org/abs/1608.03983.

    Args:
        start: the value a after the warm-up.
        end: the value b from epoch T on.
        epochs: the length T, warm-up included, in epochs.
        warmup: the length W of the warm-up, in epochs, less than `epochs`.

    Raises:
        InputError: the warm-up is not shorter than T.

    >>> schedule = Cosine(1e-3, 0, epochs=10, warmup=2)
    >>> [round(schedule.value(epoch, None), 6) for epoch in (0, 1, 2, 6, 10, 20)]
    [0.0, 0.0005, 0.001, 0.0005, 0.0, 0.0]
    """

    start: float = 1e-3
    end: float = 0.0
    epochs: float = field(10.0, low=1e-9)
    warmup: float = field(0.0, low=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup >= self.epochs:
            raise InputError(
                f"Cosine.warmup = {self.warmup} has to be less than epochs = {self.epochs}, which include it: "
                f"Cosine(epochs={self.epochs}, warmup={self.epochs / 10})."
            )

    def value(self, epoch: float, state: Tensor | None) -> float:
        """Value after some epochs."""
        if epoch < self.warmup:
            return self.start * epoch / self.warmup
        along = min((epoch - self.warmup) / (self.epochs - self.warmup), 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * along)) / 2


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""A geometric change from one positive value to another, constant afterwards.

    $$ v(t) = a (b / a)^{\min(t / T, 1)} $$

    Args:
        start: the value a at the start.
        end: the value b from epoch T on.
        epochs: the length T of the change, in epochs.

    >>> [round(Exponential(1e-2, 1e-4, epochs=10).value(epoch, None), 6) for epoch in (0, 5, 10, 20)]
    [0.01, 0.001, 0.0001, 0.0001]
    """

    start: float = field(1e-3, low=1e-30)
    end: float = field(1e-5, low=1e-30)
    epochs: float = field(10.0, low=1e-9)

    def value(self, epoch: float, state: Tensor | None) -> float:
        """Value after some epochs."""
        return self.start * (self.end / self.start) ** min(epoch / self.epochs, 1.0)


@dataclass(frozen=True)
class MultiStep(Schedule):
    """A piecewise constant value, which changes at given epochs.

    Burda et al. train with 0.001 * 10^(-i/7) for 3^i epochs, i = 0, ..., 7.

    References:
        Burda et al., Importance Weighted Autoencoders, 2016 [burda2016], https://arxiv.org/abs/1509.00519.

    Args:
        values: the values in their order.
        epochs: the epoch at which each value but the last ends, increasing; one fewer than `values`.

    Raises:
        InputError: `epochs` is not one shorter than `values`, or does not increase.

    >>> [MultiStep((1e-3, 1e-4), epochs=(5,)).value(epoch, None) for epoch in (0, 4.9, 5, 20)]
    [0.001, 0.001, 0.0001, 0.0001]
    """

    values: tuple[float, ...] = (1e-3, 1e-4)
    epochs: tuple[float, ...] = field((10.0,), low=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != len(self.epochs) + 1 or sorted(set(self.epochs)) != list(self.epochs):
            raise InputError(
                f"{self!r} needs an epoch for the end of each value but the last, increasing, as in "
                "MultiStep(values=(1e-3, 1e-4), epochs=(10,))."
            )

    def value(self, epoch: float, state: Tensor | None) -> float:
        """Value after some epochs."""
        return self.values[bisect.bisect_right(self.epochs, epoch)]
