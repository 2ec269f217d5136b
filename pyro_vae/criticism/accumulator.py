"""Results of a predictive check, accumulated over replicates: test statistics, ranks of values, and a few rows."""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.datatree import feature_names, to_dataset
from pyro_vae.criticism.ecdf_bands import two_sided_p_values
from pyro_vae.criticism.pit import ELEMENTS, RankCounter, adjust_p_values, pit_calibration
from pyro_vae.criticism.sampler import PredictiveSampler
from pyro_vae.criticism.statistics import DataKind, Statistic
from pyro_vae.criticism.summary import comparison_sentence
from pyro_vae.criticism.test_statistics import StatisticEvaluator, StatisticsArgument, select_statistics
from pyro_vae.criticism.two_sample_tests import ROWS, two_sample_dataset
from pyro_vae.data.rows import observed_mask
from pyro_vae.distributions.constraints import element_of
from pyro_vae.model.programs import Programs
from pyro_vae.model.vae import VAE

NUMBERS_KEPT = 2**22
"""Maximum number of elements of the replicates that are returned."""

WITHOUT_INDEPENDENCE = ("coverage_error", "pit_p_value", "pit_q_value", "band_low", "band_high")
"""Numbers of a calibration that assume independent rows."""


class PredictiveAccumulator:
    """Results of a predictive check, accumulated over replicates of which a few are in memory at a time.

    Its arguments are those of `predictive_check`, with `batch` of all rows, and `named`, the names of a row's elements
    if they have names.

    Raises:
        InputError: the programs cannot draw data in this way, or a test statistic cannot be computed.
    """

    def __init__(
        self,
        programs: Programs,
        batch: Mapping[str, Tensor],
        named: tuple[str, ...],
        kind: str,
        statistics: StatisticsArgument,
        candidates: int,
        keep: int,
    ) -> None:
        self.kind, self.statistics, self.keep = kind, statistics, keep
        self.notes: list[str] = []
        self.x = _fill_missing(programs, batch)
        self.observed_mask = observed_mask(batch)
        self.batch = {**batch, "x": self.x}
        self.features = feature_names(self.x.shape[1:], named)
        self.sampler = PredictiveSampler(programs, kind, candidates, self.batch)
        self.data_kind = _data_kind(self.sampler, self.batch)
        self.evaluator = StatisticEvaluator(self._select(), self.features, self.x, self.observed_mask)
        zeros = dict.fromkeys(self.evaluator.discrepancies, self.x.new_zeros(len(self.x)))
        self.row_values = self.evaluator.row_values(self.x, zeros)
        self.rows = {name: RankCounter(values) for name, values in self.row_values.items()}
        self.sums = {name: torch.zeros_like(values, dtype=torch.float64) for name, values in self.row_values.items()}
        self.realized: list[Tensor] = []
        self.replicated: list[Tensor] = []
        size = max(1, self.x[0].numel())
        self.ranked = max(1, ELEMENTS // size)
        self.elements = RankCounter(self.x[: self.ranked].reshape(-1, size))
        self.kept_rows = max(1, min(keep, len(self.x), NUMBERS_KEPT // (size * keep)))
        self.first = self.x[:ROWS].clone()

    def run(self, draws: int) -> Iterator[int]:
        """Numbers of replicates done, while `draws` of them are drawn and accumulated."""
        # Allocated once: small tensors kept between large ones would fragment memory.
        self.kept = self.x.new_empty(min(self.keep, draws), self.kept_rows, *self.x.shape[1:])
        for chunk in self.sampler.replicates(self.batch, draws, self.evaluator.discrepancies):
            for at, replicate in enumerate(chunk.x):
                x = replicate if self.observed_mask is None else torch.where(self.observed_mask, replicate, self.x)
                self._update(x, *({n: t[at] for n, t in of.items()} for of in (chunk.realized, chunk.replicated)))
            yield len(self.replicated)

    def _update(self, x: Tensor, realized: Mapping[str, Tensor], replicated: Mapping[str, Tensor]) -> None:
        """Accumulate one replicate x (N, *event_shape) with its discrepancies (N,) by name."""
        if not self.replicated:
            self.first.copy_(x[: len(self.first)])
        if len(self.replicated) < len(self.kept):
            self.kept[len(self.replicated)] = x[: self.kept_rows]
        self.elements.update(x[: self.ranked].reshape(len(self.elements.values), -1))
        of_data = {**self.row_values, **{name: term[: self.evaluator.rows[name]] for name, term in realized.items()}}
        of_replicate = self.evaluator.row_values(x, replicated)
        for name, ranks in self.rows.items():
            ranks.update(of_replicate[name], of_data[name])
            self.sums[name] += of_data[name]
        if realized or not self.realized:  # without discrepancies, the data's values do not vary
            self.realized.append(self.evaluator.values(self.x, of_data))
        values = self.evaluator.values(x, of_replicate)
        if not bool(values.isfinite().all()):
            self._raise_not_finite(x, values)
        self.replicated.append(values)

    def to_datasets(self, two_sample: bool, seed: int) -> dict[str, xr.Dataset]:
        """Results as datasets, by the names of their groups, with or without two-sample tests of a seed."""
        rank, discrete = self.x.ndim - 1, self.data_kind.discrete
        group = "prior_predictive" if self.kind == "prior" else "posterior_predictive"
        as_dataset = partial(to_dataset, features=self.features, event_rank=rank, discrete=discrete)
        pit = self.elements.randomised_pit()
        known = torch.ones_like(pit, dtype=torch.bool)
        if self.observed_mask is not None:
            known = self.observed_mask[: self.ranked].reshape(pit.shape)
        found = {
            "observed_data": as_dataset(self.x[: self.kept_rows], draws=False),
            group: as_dataset(self.kept, draws=True),
            **self._test_statistics(),
            "calibration": pit_calibration(pit, known, self.features),
        }
        if self.rows:
            found["rows"] = self._row_statistics()
        shared = self.sampler.plan.shared
        if shared:
            self.notes.append(
                f"All rows share the latent {', '.join(map(repr, shared))}, so they depend on each other: PIT, "
                "coverage and two-sample tests, which take rows for independent, have no errors and p-values. Test "
                "statistics of all data have: each replicate draws that latent anew."
            )
            for name in WITHOUT_INDEPENDENCE:
                found["calibration"][name] = found["calibration"][name] * math.nan
        if two_sample and not shared:
            complete = slice(None) if self.observed_mask is None else self.observed_mask[:ROWS].flatten(1).all(1)
            compared = two_sample_dataset(self.x[:ROWS][complete], self.first[complete], self.features, seed)
            if compared is None:
                self.notes.append("Two-sample tests need at least 50 rows without missing values.")
            else:
                found["two_sample"] = compared
        return found

    def _test_statistics(self) -> dict[str, xr.Dataset]:
        """Groups `statistics`, the values of every replicate, and `checks`, their comparison with the data."""
        replicated = torch.stack(self.replicated).cpu().numpy()
        realized = np.broadcast_to(torch.stack(self.realized).cpu().numpy(), replicated.shape)
        draws = len(replicated)
        below, equal = (replicated < realized).sum(0), (replicated == realized).sum(0)
        p_values = two_sided_p_values(below, equal, draws)
        half = p_values / 2
        observed, scalars = realized.mean(0), self.evaluator.scalars
        above = (replicated > realized).mean(0)
        numbers = zip(scalars, observed, np.median(replicated, 0), p_values, above, strict=True)
        sentences = [comparison_sentence(*each, draws) for each in numbers]
        coords = {"statistic": np.array([one.name for one in scalars], dtype=str)}
        of_draws = {"chain": [0], "draw": np.arange(draws), **coords}
        dims = ("chain", "draw", "statistic")
        columns = {
            "observed": observed,
            "mean": replicated.mean(0),
            "sd": replicated.std(0),
            "p_value": p_values,
            "p_error": 2 * np.sqrt(half * (1 - half) / draws),
            "q_value": adjust_p_values(p_values),
            "rows": np.array([one.rows for one in scalars]),
            "scope": np.array([one.scope for one in scalars], dtype=str),
            "label": np.array([one.label for one in scalars], dtype=str),
            "sentence": np.array(sentences, dtype=str),
        }
        values = {"replicated": (dims, replicated[None]), "realized": (dims, realized[None].copy())}
        return {
            "statistics": xr.Dataset(values, coords=of_draws),
            "checks": xr.Dataset({name: ("statistic", column) for name, column in columns.items()}, coords=coords),
        }

    def _row_statistics(self) -> xr.Dataset:
        """Group `rows`: values and two-sided tail probabilities of each row."""
        observed, tail = (np.full((len(self.x), len(self.rows)), np.nan) for _ in range(2))
        for at, (name, ranks) in enumerate(self.rows.items()):
            below, equal = (count.cpu().double().numpy() for count in (ranks.below, ranks.equal))
            tail[: len(below), at] = two_sided_p_values(below, equal, ranks.draws)
            observed[: len(below), at] = (self.sums[name] / ranks.draws).cpu().numpy()
        if self.observed_mask is not None:
            tail[~self.observed_mask.flatten(1).any(1).cpu().numpy()] = np.nan
        dims = ("row", "row_statistic")
        coords = {"row": np.arange(len(self.x)), "row_statistic": np.array(list(self.rows), dtype=str)}
        return xr.Dataset({"observed": (dims, observed), "tail": (dims, tail)}, coords=coords)

    def _select(self) -> dict[str, Statistic]:
        """Test statistics by name; discrepancies that cannot be computed are dropped, or refused where given."""
        found = select_statistics(self.statistics, self.data_kind, self.x)
        few = {name: tensor[:2] for name, tensor in self.batch.items()} if self.sampler.plan.by_rows else self.batch
        for name in [name for name, each in found.items() if each.of == "discrepancy"]:
            why = "" if self.kind == "posterior" else f"{self.kind} replicates have no z of a row"
            try:
                if not why:
                    self.sampler(few, 1, {name: found[name]})
            except InputError as error:
                why = str(error)
            if why and self.statistics is not None:
                raise InputError(f"statistics: {name!r} cannot be computed: {why}; take kind='posterior'.")
            if why:
                if self.kind == "posterior":
                    self.notes.append(f"The {found[name].label} was left out: {why}")
                del found[name]
        return found

    def _raise_not_finite(self, x: Tensor, values: Tensor) -> None:
        bad = (~x.isfinite()).reshape(len(x), -1).any(1)
        if bool(bad.any()):
            raise FloatingPointError(
                f"replicate {len(self.replicated)} of row {int(bad.to(torch.uint8).argmax())} is not finite: the "
                "likelihood draws NaN or infinity there; inspect vae.sample(1000)."
            )
        name = self.evaluator.scalars[int((~values.isfinite()).to(torch.uint8).argmax())].name
        raise FloatingPointError(f"test statistic {name!r} is not finite for replicate {len(self.replicated)}.")


def _data_kind(sampler: PredictiveSampler, batch: Mapping[str, Tensor]) -> DataKind:
    """Kind of data that a model describes: by its support or, where that is unknown, by data and a replicate."""
    shape = tuple(batch["x"].shape[1:])
    if sampler.support is None:
        values = torch.cat([batch["x"], sampler(batch, 1, {}).x[0]])
        discrete = bool((values == values.round()).all())
        return DataKind(shape, discrete, discrete and bool(((values == 0) | (values == 1)).all()))
    element = element_of(sampler.support)
    low, high = (getattr(element, name, None) for name in ("lower_bound", "upper_bound"))
    bounded = low is not None and high is not None
    unit = bounded and not bool(torch.as_tensor(low).any()) and bool(torch.as_tensor(high).max() == 1)
    binary = element.is_discrete and (element is torch.distributions.constraints.boolean or unit)
    return DataKind(shape, element.is_discrete, binary, element.is_discrete and low is not None and high is None)


def _fill_missing(programs: Programs, batch: Mapping[str, Tensor]) -> Tensor:
    """Data x with missing values filled: imputed by a VAE, 0 for other programs."""
    mask = observed_mask(batch)
    if mask is None:
        return batch["x"]
    if isinstance(programs, VAE):
        return programs.impute(batch)
    return torch.where(mask, batch["x"], 0)
