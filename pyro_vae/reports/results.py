"""Results of a report: a run, and what is computed of it on one set of rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from xarray import DataTree

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.evidence import Evidence, evidence
from pyro_vae.criticism.latent_usage import Latents, latents
from pyro_vae.criticism.methods import Method
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.criticism.summary import significant
from pyro_vae.data import Rows
from pyro_vae.model.vae import VAE
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.inputs import load_split
from pyro_vae.training.history import History


@dataclass(frozen=True)
class ReportSettings:
    """Settings of a report; see `report`."""

    split: str
    draws: int | None
    rows: int
    method: Method
    seed: int
    progress: bool


@dataclass(frozen=True, eq=False)
class RunResults:
    """Results of a run, each computed on first use.

    Args:
        run: the folder.
        vae: the model.
        rows: the rows on which it is evaluated.
        available: the number of rows from which they were taken.
        settings: the report's settings.
    """

    run: RunFolder
    vae: VAE
    rows: Rows
    available: int
    settings: ReportSettings

    @classmethod
    def of(cls, run: RunFolder, vae: VAE, rows: Rows, settings: ReportSettings) -> "RunResults":
        """Results on the first rows, in the model's precision; dynamic rows are drawn once."""
        chosen = replace(rows, labels=None, tensors={name: t[: settings.rows] for name, t in rows.tensors.items()})
        with seeded(settings.seed), torch.no_grad():
            chosen = replace(chosen, tensors=chosen.batch(), dynamic=False)
        labels = None if rows.labels is None else rows.labels[: settings.rows]
        chosen = replace(chosen.to(dtype=vae.row_type), labels=labels)
        return cls(run, vae, chosen, len(rows), settings)

    @property
    def _words(self) -> dict[str, Any]:
        """Keywords that every check takes."""
        return {"seed": self.settings.seed, "progress": self.settings.progress}

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """Content of spec.yaml."""
        return self.run.spec()

    @cached_property
    def history(self) -> History:
        """Training history."""
        return self.run.history()

    @cached_property
    def tree(self) -> DataTree:
        """Predictive check of the rows."""
        return predictive_check(self.vae, self.rows, draws=self.settings.draws, **self._words)

    @cached_property
    def evidence(self) -> Evidence:
        """Log p(x) of the rows."""
        return evidence(self.vae, self.rows, method=self.settings.method, **self._words)

    @cached_property
    def latents(self) -> Latents:
        """Usage of the latents; an InputError where there are too few rows."""
        return latents(self.vae, self.rows, **self._words)

    @property
    def significant(self) -> list[str]:
        """Labels of the test statistics in which replicates and data differ, the most significant first."""
        labels = self.tree["checks"].to_dataset()["label"].values
        return [str(labels[at]) for at in significant(self.tree)]

    @property
    def coverage(self) -> float:
        """Share of the data in 90 % intervals."""
        return float(self.tree["calibration"].sel(level=0.9, method="nearest")["coverage_overall"])

    @property
    def classifier_accuracy(self) -> float:
        """Accuracy of a classifier that distinguishes replicates from data; NaN where there is none."""
        parts = self.tree.children
        return float(parts["two_sample"]["classifier_accuracy"]) if "two_sample" in parts else math.nan

    @property
    def active(self) -> float:
        """Number of active latents; NaN for too few rows."""
        try:
            return len(self.latents.active)
        except InputError:
            return math.nan

    @property
    def described_rows(self) -> str:
        """Description of the rows: "the first 500 of 2,000 test rows"."""
        count, name = len(self.rows), f"{self.settings.split} " if self.rows.source else ""
        if count < self.available:
            return f"the first {count:,} of {self.available:,} {name}rows"
        return f"all {count:,} {name}rows"


def load_run(path: Path) -> tuple[RunFolder, VAE]:
    """Run and its VAE, loaded from a folder.

    Raises:
        InputError: not a run folder, or one of programs other than a VAE, or of parts that a folder cannot hold.
    """
    run = RunFolder(path)
    run.spec()
    try:
        return run, run.load()
    except InputError as error:
        raise InputError(f"a report needs a VAE that its folder holds completely: {error}") from error


def load_rows(run: RunFolder, data: Any, split: str) -> Rows:
    """Rows on which a run is evaluated: a split of its data or of a name or file, or the given rows themselves.

    Raises:
        InputError: the data does not exist; the message says how to give it.
    """
    if data is not None and not isinstance(data, str | Path):
        return Rows.of(data)
    try:
        return load_split(run, None if data is None else str(data), split)
    except InputError as error:
        if data is None and run.spec().get("data") is not None and "--" not in str(error):
            raise InputError(f"{error} If the data of this run lie elsewhere now, name them with --data.") from error
        raise
