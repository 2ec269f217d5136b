"""What a waiting person sees: a bar in a terminal, one line an epoch in a log, or nothing."""

import sys
from collections.abc import Mapping
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


class Reporter:
    """Shows epochs and steps; costs a step no synchronisation with the device.

    Args:
        epochs: how many epochs there will be.
        steps: how many steps an epoch has.
        show: whether to show anything.
    """

    def __init__(self, epochs: int, steps: int, show: bool) -> None:
        self.epochs, self.steps, self.show = epochs, steps, show
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
        self.bar.update(self.task, completed=steps)

    def step(self) -> None:
        """One step is done."""
        if not self.bar.disable:
            self.bar.advance(self.task)

    def epoch(self, record: Mapping[str, float]) -> None:
        """An epoch is done."""
        if not self.show:
            return
        line = f"epoch {int(record['epoch'])}/{self.epochs}  loss {record['loss']:.3f}"
        if "validation_loss" in record:
            line += f"  validation {record['validation_loss']:.3f}"
        if self.bar.disable:
            print(f"{line}  {record['seconds']:.1f} s", file=sys.stderr, flush=True)
        else:
            self.bar.update(self.task, description=line)
