"""What is kept of replicates while they pass: numbers of every data set, ranks of every value, a few rows whole."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.datatree import feature_names, variables
from pyro_vae.criticism.ecdf_bands import two_sided
from pyro_vae.criticism.pit import ELEMENTS, RankCounter, calibration, false_discovery
from pyro_vae.criticism.sampler import PredictiveSampler
from pyro_vae.criticism.statistics import Kind, Statistic
from pyro_vae.criticism.summary import sentence
from pyro_vae.criticism.test_statistics import Asked, Quantities, chosen
from pyro_vae.criticism.two_sample import ROWS
from pyro_vae.criticism.two_sample import two_sample as compared
from pyro_vae.distributions.constraints import element_of
from pyro_vae.model.programs import Programs
from pyro_vae.model.vae import VAE

if TYPE_CHECKING:
    import xarray as xr

NUMBERS_KEPT = 2**22
"""Numbers at most among the replicates that are returned whole."""


class PredictiveAccumulator:
    """What is kept of replicates while they pass.

    Args:
        programs: the pair.
        batch: all rows.
        named: the names of a row's elements, where they have names.
        what: the kind of replicates.
        asked: the test quantities asked for.
        candidates: draws of the guide for each that is used.
        keep: rows and replicates returned whole.

    Raises:
        InputError: the programs cannot draw data in this way, or the quantities cannot be computed.
    """

    def __init__(
        self,
        programs: Programs,
        batch: Mapping[str, Tensor],
        named: tuple[str, ...],
        what: str,
        asked: Asked,
        candidates: int,
        keep: int,
    ) -> None:
        self.what, self.asked, self.keep = what, asked, keep
        self.left_out: list[str] = []
        self.x = _filled(programs, batch)
        self.seen = batch["mask"].bool() if "mask" in batch else None
        self.batch = {**batch, "x": self.x}
        self.features = feature_names(self.x.shape[1:], named)
        self.replicator = PredictiveSampler(programs, what, candidates, self.batch)
        self.kind = _kind(self.replicator, self.batch)
        self.quantities = Quantities(self._suitable(), self.features, self.x, self.seen)
        own = self.quantities.row_values(
            self.x, dict.fromkeys(self.quantities.discrepancies, self.x.new_zeros(len(self.x)))
        )
        self.own = own
        self.rows = {name: RankCounter(values) for name, values in own.items()}
        self.sums = {name: torch.zeros_like(values, dtype=torch.float64) for name, values in own.items()}
        self.realized: list[Tensor] = []
        self.replicated: list[Tensor] = []
        size = max(1, self.x[0].numel())
        self.ranked = max(1, ELEMENTS // size)
        self.elements = RankCounter(self.x[: self.ranked].reshape(-1, size))
        self.kept_rows = max(1, min(keep, len(self.x), NUMBERS_KEPT // (size * keep)))
        self.first = self.x[:ROWS].clone()

    def at(self, draws: int) -> Iterator[int]:
        """Draw the replicates and look at each; yield how many are done."""
        # Room is made once: small pieces kept between large ones would leave memory in splinters.
        self.kept = self.x.new_empty(min(self.keep, draws), self.kept_rows, *self.x.shape[1:])
        for chunk in self.replicator.data_sets(self.batch, draws, self.quantities.discrepancies):
            for at, replicate in enumerate(chunk.x):
                x = replicate if self.seen is None else torch.where(self.seen, replicate, self.x)
                self._see(x, *({n: t[at] for n, t in of.items()} for of in (chunk.realized, chunk.replicated)))
            yield len(self.replicated)

    def _see(self, x: Tensor, realized: Mapping[str, Tensor], replicated: Mapping[str, Tensor]) -> None:
        """Look at one replicate."""
        if not self.replicated:
            self.first.copy_(x[: len(self.first)])
        if len(self.replicated) < len(self.kept):
            self.kept[len(self.replicated)] = x[: self.kept_rows]
        self.elements.add(x[: self.ranked].reshape(len(self.elements.values), -1))
        of_data = {**self.own, **{name: term[: self.quantities.rows[name]] for name, term in realized.items()}}
        of_replicate = self.quantities.row_values(x, replicated)
        for name, ranks in self.rows.items():
            ranks.add(of_replicate[name], of_data[name])
            self.sums[name] += of_data[name]
        if realized or not self.realized:  # only discrepancies make the data's numbers vary
            self.realized.append(self.quantities.values(self.x, of_data))
        values = self.quantities.values(x, of_replicate)
        if not bool(values.isfinite().all()):
            self._refuse(x, values)
        self.replicated.append(values)

    def groups(self, two_sample: bool, seed: int) -> dict[str, "xr.Dataset"]:
        """What was found, as data sets by the names of their groups."""
        rank, discrete = self.x.ndim - 1, self.kind.discrete
        group = "prior_predictive" if self.what == "prior" else "posterior_predictive"
        kept = partial(variables, features=self.features, event_rank=rank, discrete=discrete)
        pit = self.elements.randomised_pit()
        known = torch.ones_like(pit, dtype=torch.bool)
        if self.seen is not None:
            known = self.seen[: self.ranked].reshape(pit.shape)
        found = {
            "observed_data": kept(self.x[: self.kept_rows], draws=False),
            group: kept(self.kept, draws=True),
            **self._checks(),
            "calibration": calibration(pit, known, self.features),
        }
        if self.rows:
            found["rows"] = self._rows()
        if two_sample:
            whole = slice(None) if self.seen is None else self.seen[:ROWS].flatten(1).all(1)
            told = compared(self.x[:ROWS][whole], self.first[whole], self.features, seed)
            if told is None:
                self.left_out.append("Fewer than 50 rows without missing values are too few for two-sample tests.")
            else:
                found["two_sample"] = told
        return found

    def _checks(self) -> dict[str, "xr.Dataset"]:
        import xarray as xr

        replicated = torch.stack(self.replicated).cpu().numpy()
        realized = np.broadcast_to(torch.stack(self.realized).cpu().numpy(), replicated.shape)
        draws = len(replicated)
        below, equal = (replicated < realized).sum(0), (replicated == realized).sum(0)
        p_values = two_sided(below, equal, draws)
        half = p_values / 2
        observed, listed = realized.mean(0), self.quantities.list
        above = (replicated > realized).mean(0)
        numbers = zip(observed, np.median(replicated, 0), p_values, above, strict=True)
        told = [sentence(quantity, *each, draws) for quantity, each in zip(listed, numbers, strict=True)]
        coords = {"quantity": np.array([quantity.name for quantity in listed], dtype=str)}
        of_draws = {"chain": [0], "draw": np.arange(draws), **coords}
        dims = ("chain", "draw", "quantity")
        columns = {
            "observed": observed,
            "mean": replicated.mean(0),
            "sd": replicated.std(0),
            "p_value": p_values,
            "p_error": 2 * np.sqrt(half * (1 - half) / draws),
            "q_value": false_discovery(p_values),
            "rows": np.array([quantity.rows for quantity in listed]),
            "scope": np.array([quantity.scope for quantity in listed], dtype=str),
            "noun": np.array([quantity.label for quantity in listed], dtype=str),
            "sentence": np.array(told, dtype=str),
        }
        values = {"replicated": (dims, replicated[None]), "realized": (dims, realized[None].copy())}
        return {
            "statistics": xr.Dataset(values, coords=of_draws),
            "checks": xr.Dataset({name: ("quantity", column) for name, column in columns.items()}, coords=coords),
        }

    def _rows(self) -> "xr.Dataset":
        import xarray as xr

        observed, tail = (np.full((len(self.x), len(self.rows)), np.nan) for _ in range(2))
        for at, (name, ranks) in enumerate(self.rows.items()):
            below, equal = (count.cpu().double().numpy() for count in (ranks.below, ranks.equal))
            tail[: len(below), at] = two_sided(below, equal, ranks.draws)
            observed[: len(below), at] = (self.sums[name] / ranks.draws).cpu().numpy()
        if self.seen is not None:
            tail[~self.seen.flatten(1).any(1).cpu().numpy()] = np.nan
        dims = ("row", "row_quantity")
        coords = {"row": np.arange(len(self.x)), "row_quantity": np.array(list(self.rows), dtype=str)}
        return xr.Dataset({"observed": (dims, observed), "tail": (dims, tail)}, coords=coords)

    def _suitable(self) -> dict[str, Statistic]:
        """The test quantities, less discrepancies that have no place: a default is left out, a wish is refused."""
        found = chosen(self.asked, self.kind, self.x)
        few = {name: tensor[:2] for name, tensor in self.batch.items()} if self.replicator.plan.by_rows else self.batch
        for name in [name for name, each in found.items() if each.of == "discrepancy"]:
            why = "" if self.what == "posterior" else f"{self.what} replicates have no z that belongs to a row"
            try:
                if not why:
                    self.replicator(few, 1, {name: found[name]})
            except InputError as error:
                why = str(error)
            if why and self.asked is not None:
                raise InputError(f"statistics: {name!r} cannot be computed: {why}; ask for kind='posterior'.")
            if why:
                if self.what == "posterior":
                    self.left_out.append(f"The {found[name].label} was left out: {why}")
                del found[name]
        return found

    def _refuse(self, x: Tensor, values: Tensor) -> None:
        bad = (~x.isfinite()).reshape(len(x), -1).any(1)
        if bool(bad.any()):
            raise FloatingPointError(
                f"replicate {len(self.replicated)} of row {int(bad.to(torch.uint8).argmax())} is not finite: the "
                "likelihood draws NaN or infinity there; look at vae.sample(1000)."
            )
        name = self.quantities.list[int((~values.isfinite()).to(torch.uint8).argmax())].name
        raise FloatingPointError(f"test quantity {name!r} is not finite for replicate {len(self.replicated)}.")


def _kind(replicator: PredictiveSampler, batch: Mapping[str, Tensor]) -> Kind:
    """What sort of data a model describes: by its support, or by data and a replicate where that is not told."""
    shape = tuple(batch["x"].shape[1:])
    if replicator.support is None:
        seen = torch.cat([batch["x"], replicator(batch, 1, {}).x[0]])
        discrete = bool((seen == seen.round()).all())
        return Kind(shape, discrete, discrete and bool(((seen == 0) | (seen == 1)).all()))
    element = element_of(replicator.support)
    low, high = (getattr(element, name, None) for name in ("lower_bound", "upper_bound"))
    unit = (
        low is not None
        and high is not None
        and not bool(torch.as_tensor(low).any())
        and torch.as_tensor(high).max() == 1
    )
    binary = bool(element.is_discrete) and (element is torch.distributions.constraints.boolean or bool(unit))
    return Kind(shape, element.is_discrete, binary, element.is_discrete and low is not None and high is None)


def _filled(programs: Programs, batch: Mapping[str, Tensor]) -> Tensor:
    """The data, where values that a mask leaves out are filled."""
    if "mask" not in batch:
        return batch["x"]
    if isinstance(programs, VAE):
        return programs.impute(batch)
    return torch.where(batch["mask"].bool(), batch["x"], 0)
