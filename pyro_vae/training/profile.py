"""A profile of some steps, by torch's profiler."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

WAIT, STEPS, LINES = 10, 20, 20
"""Steps before the first that is profiled, profiled steps, and operations in the table."""


class StepProfiler:
    """A profiler of some steps of a training, after it has warmed up.

    Args:
        steps: the number of steps of the training; of few, fewer are skipped first.
        device: of the steps.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        from torch.profiler import ProfilerActivity, profile, schedule

        wait = min(WAIT, steps // 3)
        self.steps = max(1, min(STEPS, steps - wait - 1))
        self.unit = "cuda" if device.type == "cuda" else "cpu"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.unit == "cuda")
        self.files: dict[str, str] = {}
        self.running: Any = profile(
            activities=activities,
            schedule=schedule(wait=wait, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=self._read,
            acc_events=True,
        )
        self.running.start()

    def step(self) -> None:
        """Count a step."""
        if self.running is not None:
            self.running.step()
            if self.files:  # of no use any more, and not free
                self.end()

    def end(self) -> None:
        """End profiling."""
        if self.running is not None:
            running, self.running = self.running, None
            running.stop()

    def finish(self) -> dict[str, str]:
        """Texts of the profile by file name, if there is one; the table of operations is printed."""
        self.end()
        print(self.files.get("profile.txt", ""))
        return self.files

    def _read(self, profiled: Any) -> None:
        order = f"self_{self.unit}_time_total"
        table = profiled.key_averages().table(sort_by=order, row_limit=LINES, max_name_column_width=50)
        heading = f"The operations that took most time of {self.steps} steps, after warming up.\n\n"
        self.files["profile.txt"] = f"{heading}{table}"
        with TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            profiled.export_chrome_trace(str(file))
            self.files["trace.json"] = file.read_text(encoding="utf-8")
