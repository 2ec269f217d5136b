"""Progress of a training: a bar in a terminal, one line an epoch in a log, or nothing."""

import datetime
import sys
from collections.abc import Mapping, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from pyro_vae.core.progress import progress_bar

PARTS = {"log_likelihood": "log-likelihood", "kl": "KL"}
"""The parts of the loss that are shown, and what they are called."""


class ProgressReporter:
    """A display of epochs, and of the steps of each, with no host sync."""

    def __init__(self, epochs: int, steps: int, show: bool) -> None:
        self.epochs, self.steps, self.show = epochs, steps, show
        self.done, self.seconds = 0, list[float]()
        self.bar = progress_bar(
            show,
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.task = self.bar.add_task("epoch 1", total=epochs * steps)

    def __enter__(self) -> "ProgressReporter":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begin(self, steps: int) -> None:
        """Start after so many steps that a resumed training has made before."""
        self.done = steps // self.steps
        self.bar.update(self.task, completed=steps)

    def step(self) -> None:
        """Count a step."""
        if not self.bar.disable:
            self.bar.advance(self.task)

    def update(self, names: Sequence[str], means: Tensor) -> None:
        """Show the means per row of the loss and its parts, by name, in the running epoch; read only for a bar."""
        if not self.bar.disable:
            record = {"epoch": self.done + 1.0, **dict(zip(names, means.tolist(), strict=True))}
            self.bar.update(self.task, description=self._line(record))

    def epoch(self, record: Mapping[str, float]) -> None:
        """Show the record of a finished epoch."""
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
        parts = {name: label for name, label in PARTS.items() if name in record}
        if parts:
            line += f" ({', '.join(f'{label} {record[name]:.3f}' for name, label in parts.items())})"
        if "validation_loss" in record:
            line += f"  validation {record['validation_loss']:.3f}"
        return line
