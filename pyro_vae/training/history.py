"""The record of a training, epoch by epoch."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_vae.core.errors import InputError, unknown_name_error


@dataclass
class History:
    """One record per epoch; every quantity is a mean per row in nats, except epoch and seconds.

    Columns: "epoch" (from 1), "seconds" (of that epoch), "loss" (minus the bound, averaged over the epoch's
    steps), "log_likelihood" and "kl" (its parts), the same with "validation_" in front where validation data
    was given, and "kl_z_0", "kl_z_1", ... (KL per latent on the validation data, or on training rows). An objective
    may add parts of its own ("total_correlation", "mmd", ...), and each hyperparameter that follows a schedule its
    value after the epoch ("beta"). Where the likelihood is one of pixel levels and the objective a bound on log p(x)
    there is also "bits_per_dim", the loss per element of x and log 2.

    Args:
        records: the records, in order.
        caveat: a note on the log-likelihood; empty for a density.
        stopped: why training ended early; empty when it did not.
    """

    records: list[dict[str, float]] = field(default_factory=list)
    caveat: str = ""
    stopped: str = ""

    def __len__(self) -> int:
        """The number of epochs."""
        return len(self.records)

    def __getitem__(self, column: str) -> NDArray[np.float64]:
        """One column over epochs.

        Raises:
            InputError: there is no such column.
        """
        if column not in self.columns:
            raise unknown_name_error("column of the history", column, self.columns)
        return np.array([record.get(column, np.nan) for record in self.records])

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    @property
    def last(self) -> Mapping[str, float]:
        """The last epoch's record."""
        if not self.records:
            raise InputError("this history has no epochs yet.")
        return self.records[-1]

    def to_pandas(self) -> pd.DataFrame:
        """The history as a table, one row per epoch."""
        return pd.DataFrame(self.records, columns=self.columns)

    def to_csv(self) -> str:
        """The history as text, with every digit."""
        return str(self.to_pandas().to_csv(index=False, lineterminator="\n", na_rep="nan"))

    @classmethod
    def from_csv(cls, path: Path, caveat: str = "", stopped: str = "") -> "History":
        """History in a file that `to_csv` made.

        Raises:
            InputError: the file is not a table of numbers.
        """
        try:
            with path.open(newline="") as file:
                records = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        except (ValueError, TypeError, AttributeError, OSError) as error:
            raise InputError(f"{path} is not a history of a run: {error}") from error
        return cls([record | {"epoch": int(record["epoch"])} for record in records], caveat, stopped)

    def add(self, record: dict[str, float], elements: float = 0.0, held_elements: float = 0.0) -> None:
        """Append an epoch's record; of pixels, with the mean number of observed elements per row of both splits."""
        for prefix, count in (("", elements), ("validation_", held_elements)):
            if count and f"{prefix}loss" in record:
                record[f"{prefix}bits_per_dim"] = record[f"{prefix}loss"] / (count * math.log(2))
        self.records.append(record)

    def __repr__(self) -> str:
        """Show the last epoch in a line."""
        if not self.records:
            return "History(no epochs)"
        shown = {name: value for name, value in self.last.items() if not name.startswith("kl_")}
        values = ", ".join(f"{name}={value:.4g}" for name, value in shown.items() if name != "epoch")
        notes = "".join(f"; {note}" for note in (self.stopped, self.caveat) if note)
        return f"History({len(self)} epochs; last: {values}{notes})"
