"""`Monitor`: what is recorded of a training beside its history, and the rule that ends it early."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyro_vae.core.config import Record
from pyro_vae.core.errors import InputError
from pyro_vae.training.stopping import Stopping


@dataclass(frozen=True)
class Monitor(Record):
    """What is recorded of a training beside its history, and the rule that ends it early.

    Args:
        loggers: Lightning's loggers; or "csv" and "tensorboard", which write into the folder `logs` beside the run;
            one of these, or a list.
        profile: whether to profile some steps: a table is printed, and with a run written into it as profile.txt
            beside trace.json, which a browser shows (chrome://tracing, ui.perfetto.dev).
        stopping: when to end before the last epoch, as in pv.EarlyStopping(patience=10).

    Raises:
        InputError: a field of the wrong type.

    >>> from pyro_vae.training import EarlyStopping
    >>> Monitor(stopping=EarlyStopping(patience=5)).profile
    False
    """

    loggers: Any = ()
    profile: bool = False
    stopping: Stopping | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if isinstance(self.loggers, str):
            object.__setattr__(self, "loggers", (self.loggers,))
        if not isinstance(self.loggers, Sequence):
            raise InputError(f"loggers = {self.loggers!r} has to be a list: loggers=[...].")
        if self.stopping is not None and not isinstance(self.stopping, Stopping):
            raise InputError(
                f"stopping = {self.stopping!r} has to be a rule, as in stopping=pv.EarlyStopping(patience=10)."
            )
        super().__post_init__()
