"""What a report rests on: a run, loaded, and all that was measured of it on the same rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.evidence import Evidence, evidence
from pyro_vae.criticism.latent_usage import Latents, latents
from pyro_vae.criticism.methods import Method
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.criticism.summary import findings, significant
from pyro_vae.data import Rows
from pyro_vae.model.vae import VAE
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.inputs import load_split
from pyro_vae.training.history import History

if TYPE_CHECKING:
    from xarray import DataTree


@dataclass(frozen=True)
class Settings:
    """How closely a report looks.

    Args:
        split: which rows: "train", "validation" or "test".
        draws: replicate data sets; None for as many as the check needs.
        rows: rows at most, from the first.
        method: how log p(x) is measured.
        seed: of everything random.
        progress: whether to show progress in a terminal.
    """

    split: str
    draws: int | None
    rows: int
    method: Method
    seed: int
    progress: bool


@dataclass(frozen=True, eq=False)
class Measured:
    """A run and what was measured of it.

    Args:
        run: the folder.
        vae: the model.
        rows: the rows looked at.
        available: how many rows there were to look at.
        settings: how closely.
    """

    run: RunFolder
    vae: VAE
    rows: Rows
    available: int
    settings: Settings

    @classmethod
    def of(cls, run: RunFolder, vae: VAE, rows: Rows, settings: Settings) -> "Measured":
        """Take the first rows, in the model's precision; what is random in them is drawn once."""
        chosen = replace(rows, labels=None, tensors={name: t[: settings.rows] for name, t in rows.tensors.items()})
        with seeded(settings.seed), torch.no_grad():
            chosen = replace(chosen, tensors=chosen.batch(), dynamic=False)
        labels = None if rows.labels is None else rows.labels[: settings.rows]
        chosen = replace(chosen.to(dtype=vae.likelihood.device_tensor.dtype), labels=labels)
        return cls(run, vae, chosen, len(rows), settings)

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """What spec.yaml says."""
        return self.run.spec()

    @cached_property
    def history(self) -> History:
        """The training history."""
        return self.run.history()

    @cached_property
    def tree(self) -> "DataTree":
        """The predictive check: new data sets from the model beside these rows."""
        settings = self.settings
        return predictive_check(
            self.vae, self.rows, draws=settings.draws, seed=settings.seed, progress=settings.progress
        )

    @cached_property
    def evidence(self) -> Evidence:
        """Log p(x) of these rows."""
        settings = self.settings
        return evidence(self.vae, self.rows, method=settings.method, seed=settings.seed, progress=settings.progress)

    @cached_property
    def latents(self) -> Latents:
        """The use of the latents by these rows; an InputError says when they are too few."""
        return latents(self.vae, self.rows, seed=self.settings.seed, progress=self.settings.progress)

    @property
    def findings(self) -> list[str]:
        """What the check says, in sentences."""
        return findings(self.tree)

    @property
    def striking(self) -> list[str]:
        """The test statistics in which replicates and data differ, the most striking first."""
        nouns = self.tree["checks"].to_dataset()["noun"].values
        return [str(nouns[at]) for at in significant(self.tree)]

    @property
    def covered(self) -> float:
        """The share of the data in 90 % intervals."""
        at = self.tree["calibration"].sel(level=0.9, method="nearest")
        return float(at["coverage_overall"])

    @property
    def told_apart(self) -> float:
        """The accuracy of a classifier that tells replicates from data; NaN where there is none."""
        parts = self.tree.children
        return float(parts["two_sample"]["classifier_accuracy"]) if "two_sample" in parts else math.nan

    @property
    def active(self) -> float:
        """The number of active latents; NaN of too few rows."""
        try:
            return len(self.latents.active)
        except InputError:
            return math.nan

    @property
    def told_rows(self) -> str:
        """Which rows were looked at."""
        count, split = len(self.rows), self.settings.split
        name = f"{split} " if self.rows.source else ""
        if count < self.available:
            return f"the first {count:,} of {self.available:,} {name}rows"
        return f"all {count:,} {name}rows"


def load_run(path: Path) -> tuple[RunFolder, VAE]:
    """Load a run of a VAE.

    Raises:
        InputError: no run, or one of programs that are no VAE, or of parts that a folder cannot hold.
    """
    run = RunFolder(path)
    run.spec()
    try:
        return run, run.load()
    except InputError as error:
        raise InputError(f"a report tells of a VAE that its folder holds whole: {error}") from error


def rows_of(run: RunFolder, data: Any, split: str) -> Rows:
    """Load the rows that a run is looked at with.

    Args:
        run: the run.
        data: a name, a file, rows themselves, or None for the data of the run.
        split: which of the rows of a name or a file.

    Raises:
        InputError: the data is not there; the message says how to give it.
    """
    if data is not None and not isinstance(data, str | Path):
        return Rows.of(data)
    try:
        return load_split(run, None if data is None else str(data), split)
    except InputError as error:
        if data is None and run.spec().get("data") is not None and "--" not in str(error):
            raise InputError(f"{error} If the data of this run lie elsewhere now, name them with --data.") from error
        raise
