"""What a waiting person sees: a bar in a terminal, one line an epoch in a log, or nothing."""

import datetime
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

PARTS = {"log_likelihood": "log-likelihood", "kl": "KL"}
"""The parts of the loss that are shown, and what they are called."""


class Reporter:
    """Shows epochs and steps; costs a step no synchronisation with the device.

    Args:
        epochs: how many epochs there will be.
        steps: how many steps an epoch has.
        show: whether to show anything.
    """

    def __init__(self, epochs: int, steps: int, show: bool) -> None:
        self.epochs, self.steps, self.show = epochs, steps, show
        self.done, self.seconds = 0, list[float]()
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not (show and console.is_terminal),
        )
        self.task = self.bar.add_task("epoch 1", total=epochs * steps)

    def __enter__(self) -> "Reporter":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def begin(self, steps: int) -> None:
        """So many steps were done before."""
        self.done = steps // self.steps
        self.bar.update(self.task, completed=steps)

    def step(self) -> None:
        """One step is done."""
        if not self.bar.disable:
            self.bar.advance(self.task)

    def now(self, names: Sequence[str], means: Tensor) -> None:
        """Show what an epoch has come to so far; asked for only where somebody sees it.

        Args:
            names: of the loss and its parts.
            means: their means per row.
        """
        if not self.bar.disable:
            record = {"epoch": self.done + 1.0, **dict(zip(names, means.tolist(), strict=True))}
            self.bar.update(self.task, description=self._line(record))

    def epoch(self, record: Mapping[str, float]) -> None:
        """An epoch is done."""
        self.done = int(record["epoch"])
        self.seconds.append(record["seconds"])
        if not self.show:
            return
        line = self._line(record)
        if self.bar.disable:
            left = (self.epochs - self.done) * sum(self.seconds) / len(self.seconds)
            ahead = f"  {datetime.timedelta(seconds=round(left))} left" if self.done < self.epochs else ""
            print(f"{line}  {record['seconds']:.1f} s{ahead}", file=sys.stderr, flush=True)
        else:
            self.bar.update(self.task, description=line)

    def _line(self, record: Mapping[str, float]) -> str:
        """The loss and its parts in a line."""
        line = f"epoch {int(record['epoch'])}/{self.epochs}  loss {record['loss']:.3f}"
        parts = {name: told for name, told in PARTS.items() if name in record}
        if parts:
            line += f" ({', '.join(f'{told} {record[name]:.3f}' for name, told in parts.items())})"
        if "validation_loss" in record:
            line += f"  validation {record['validation_loss']:.3f}"
        return line
