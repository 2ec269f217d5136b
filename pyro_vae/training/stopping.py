"""Rules that end a training early: functions of its history alone, so that a resumed one ends alike."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pyro_vae.core.config import Config, field
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.training.history import History

BOUNDS = ("loss", "bits_per_dim")
"""Columns that are not comparable after a change of a hyperparameter of the objective."""

RISING = ("log_likelihood",)
"""Ends of the names of columns where more is better."""


class Stopping(Config, ABC):
    """Base of every rule that ends a training."""

    monitor: str
    restore: bool

    @abstractmethod
    def best(self, history: History, scheduled: Collection[str] = ()) -> int | None:
        """Index in the history of the best epoch; None where there is none yet."""

    @abstractmethod
    def reason(self, history: History, scheduled: Collection[str] = ()) -> str:
        """The reason to stop now; empty to continue."""

    def check(self, columns: Iterable[str], held: bool) -> None:
        """Check, before any work, that the history will have the monitored column.

        `columns` are the loss and its parts, on validation data too if there are some held out.

        Raises:
            InputError: it will not.
        """
        if self.monitor.startswith("validation_") and not held:
            raise InputError(
                f"{type(self).__name__}.monitor = {self.monitor!r} needs validation data: give validation=, or watch "
                f"the training rows by monitor={self.monitor.removeprefix('validation_')!r}."
            )
        columns = list(columns)
        known = [*columns, *(f"validation_{name}" for name in columns if held)]
        if self.monitor not in known:
            raise unknown_name_error(f"value of {type(self).__name__}.monitor,", self.monitor, known)


@dataclass(frozen=True)
class EarlyStopping(Stopping):
    r"""Stop when a column of the history has not improved for some epochs.

    Epoch t is an improvement if $m_t < \min_{s < t} m_s - \delta$ (above, for a log-likelihood). While a
    hyperparameter of the objective follows a schedule, losses of different epochs are of different objectives: only
    epochs with its present value count.

    References:
        Prechelt, Early Stopping - But When?, 1998 [prechelt1998], Neural Networks: Tricks of the Trade.

    Args:
        patience: epochs without an improvement after which training stops.
        min_delta: the least improvement $\delta$, in the column's unit, as nats per row.
        monitor: the column m.
        restore: whether the weights of the best epoch are put back at the end.

    >>> EarlyStopping(patience=2).reason(History([{"validation_loss": loss} for loss in (3.0, 2.0, 2.5, 2.1)]))
    'validation_loss had not improved for 2 epochs'
    """

    patience: int = field(10, low=1)
    min_delta: float = field(0.0, low=0.0)
    monitor: str = "validation_loss"
    restore: bool = True

    def best(self, history: History, scheduled: Collection[str] = ()) -> int | None:
        """Index in the history of the last improvement."""
        values = history[self.monitor] * (-1 if self.monitor.endswith(RISING) else 1)
        best, at = math.inf, None
        for place in range(self._since(history, scheduled), len(values)):
            if values[place] < best - self.min_delta:
                best, at = values[place], place
        return at

    def _since(self, history: History, scheduled: Collection[str]) -> int:
        """The first epoch that counts: since then no hyperparameter has changed."""
        if not self.monitor.endswith(BOUNDS):
            return 0
        settings = [[record.get(name) for name in scheduled] for record in history.records]
        return next((place for place in range(len(settings), 0, -1) if settings[place - 1] != settings[-1]), 0)

    def reason(self, history: History, scheduled: Collection[str] = ()) -> str:
        """The reason to stop now, if the last improvement is `patience` epochs ago."""
        if len(history) <= self.patience or (best := self.best(history, scheduled)) is None:
            return ""
        epochs = "1 epoch" if self.patience == 1 else f"{self.patience} epochs"
        return f"{self.monitor} had not improved for {epochs}" if len(history) - 1 - best >= self.patience else ""


STOPPINGS: dict[str, type[Stopping]] = {"EarlyStopping": EarlyStopping}
