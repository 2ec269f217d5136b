"""Simulation-based calibration: whether a guide is the posterior, for data simulated by the model itself.

    z* ~ p(z),  x ~ p(x|z*),  z_1 ... z_L ~ q(z|x):   the rank of f(z*, x) among f(z_l, x) is uniform if q = p(z|x)

Nothing is refitted: the guide is amortised, so a simulation takes one draw from the model and L from the guide.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.pit import uniform_p_values
from pyro_vae.criticism.ranks import JOINT, RankStatistics
from pyro_vae.criticism.session import EvaluationSession, evaluation
from pyro_vae.data.convert import as_tensor
from pyro_vae.data.rows import Rows
from pyro_vae.model.programs import Programs, check_programs
from pyro_vae.model.vae import VAE

LEVEL = 0.05
"""Significance level of all quantities together."""

SIGNIFICANT_SE = 3.0
"""Standard errors above which a deviation of the ranks is described."""


@dataclass(frozen=True, eq=False, repr=False)
class SBC:
    r"""Ranks of S simulated truths among L draws of the guide, for Q quantities.

    Each quantity is tested by the Kolmogorov-Smirnov distance of (r + u) / (L + 1), u uniform on [0, 1], to the uniform
    distribution, which it follows exactly if the guide is the posterior; Holm's correction combines them.

    References:
        Talts et al., Validating Bayesian Inference Algorithms with Simulation-Based Calibration, 2018 [talts2018],
            https://arxiv.org/abs/1804.06788.
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979 [holm1979].

    Args:
        quantities: the names of the quantities: the log joint, then each element of each latent site.
        ranks: the ranks, (S, Q), integers in 0 ... L.
        draws: the number L of draws.
        seed: of the random numbers u.
    """

    quantities: tuple[str, ...]
    ranks: NDArray[np.int64]
    draws: int
    seed: int = 0

    def __len__(self) -> int:
        """Return the number of simulations, S."""
        return len(self.ranks)

    @cached_property
    def uniforms(self) -> NDArray[np.float64]:
        """Values (r + u) / (L + 1) in [0, 1), (S, Q)."""
        within = np.random.default_rng(self.seed).random(self.ranks.shape)
        return (self.ranks + within) / (self.draws + 1)

    @cached_property
    def p_values(self) -> dict[str, float]:
        """P-value of each quantity by itself."""
        return dict(zip(self.quantities, uniform_p_values(self.uniforms).tolist(), strict=True))

    @cached_property
    def adjusted_p_values(self) -> dict[str, float]:
        """P-values with Holm's correction: for the exact posterior, any is below 5 % in at most 5 % of runs."""
        names = sorted(self.quantities, key=self.p_values.__getitem__)
        steps = (min(1.0, (len(names) - place) * self.p_values[name]) for place, name in enumerate(names))
        found = dict(zip(names, itertools.accumulate(steps, max), strict=True))
        return {name: found[name] for name in self.quantities}

    @property
    def p_value(self) -> float:
        """P-value of all quantities together."""
        return min(self.adjusted_p_values.values())

    @property
    def failed(self) -> tuple[str, ...]:
        """Quantities whose ranks are not uniform, at a level of 5 % over all of them."""
        return tuple(name for name, p in self.adjusted_p_values.items() if p < LEVEL)

    @property
    def passed(self) -> bool:
        """Whether no quantity failed."""
        return not self.failed

    @property
    def coverage(self) -> dict[str, float]:
        """Coverage of the guide's central 90 % interval over simulations, for each quantity."""
        held = (np.abs(self.uniforms - 0.5) < 0.45).mean(0)
        return dict(zip(self.quantities, held.tolist(), strict=True))

    @property
    def findings(self) -> list[str]:
        """Sentence on each quantity that failed, with the deviation of the guide that its ranks show."""
        return [self._finding(name) for name in self.failed]

    def __repr__(self) -> str:
        """Summary in a few lines."""
        name = min(self.p_values, key=self.p_values.__getitem__)
        many = len(self.quantities)
        lines = [
            f"simulation-based calibration: {len(self)} simulations, {self.draws} draws of the guide for each",
            f"{many} quantities, smallest {format_p_value(self.p_values[name])} ({name}), "
            f"{format_p_value(self.p_value)} for all together",
        ]
        if self.passed:
            unseen = 1.36 / math.sqrt(len(self))
            lines.append("No sign of a wrong guide on data of the model's own; errors of its quantile levels below")
            return "\n".join([*lines, f"{unseen:.2f} would not show."])
        items = [f"- {sentence}." for sentence in self.findings]
        more = [f"- ... and {len(items) - 8} more."] if len(items) > 8 else []
        lines.append("Warning: the guide is not the posterior of the model's own data.")
        return "\n".join([*lines, *items[:8], *more, "A richer guide, or longer training, brings it closer."])

    def _finding(self, name: str) -> str:
        u = self.uniforms[:, self.quantities.index(name)]
        bias = (u.mean() - 0.5) * math.sqrt(12 * len(u))
        spread = (u.var() - 1 / 12) * math.sqrt(180 * len(u))
        if name == JOINT and abs(bias) > SIGNIFICANT_SE:
            cause = "too wide, in a wrong place, or ignore the data" if bias > 0 else "too narrow"
            return f"{name}: the truth is more probable than {u.mean():.0%} of the guide's draws, so these are {cause}"
        deviations = []
        if abs(bias) > SIGNIFICANT_SE and name != JOINT:
            where, side = ("low", "above") if bias > 0 else ("high", "below")
            share = max((u > 0.5).mean(), (u < 0.5).mean())
            deviations.append(
                f"the guide puts it too {where}, the truth lies {side} its median in {share:.0%} of simulations"
            )
        if abs(spread) > SIGNIFICANT_SE:
            word = "over" if spread > 0 else "under"
            deviations.append(
                f"the guide is {word}confident, 90 % intervals hold the truth {self.coverage[name]:.0%} of the time"
            )
        return f"{name}: " + ("; ".join(deviations) or "its ranks are not uniform")


@explained
def sbc(
    vae: Programs,
    *,
    simulations: int = 500,
    draws: int = 199,
    given: Any = None,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> SBC:
    r"""Simulation-based calibration of a guide, without refits.

    $$ z^* \sim p(z), \quad x \sim p(x \mid z^*), \quad z_1, \dots, z_L \sim q(z \mid x), \qquad
       r = \#\{l: f(z_l, x) < f(z^*, x)\} $$

    is uniform on 0 ... L for every function f if q is the posterior. The f here are each element of z, and the log
    joint log p(x, z), which alone detects a guide that ignores the data. Ties are broken at random.

    The data are the model's own, so a guide that passes may still be poor for data that the model does not describe;
    and a prior far from the aggregate posterior shows as a guide that fails, which was not trained on such data.

    Programs whose latents and data lie in one plate over rows are simulated for many rows at once. Where a latent lies
    outside of the plate, one simulation is one run of the programs on all of `given`, and each row's latents are
    quantities of their own: give few rows.

    References:
        Talts et al., Validating Bayesian Inference Algorithms with Simulation-Based Calibration, 2018 [talts2018],
            https://arxiv.org/abs/1804.06788.
        Modrak et al., Simulation-Based Calibration Checking for Bayesian Computation: The Choice of Test Quantities
            Shapes Sensitivity, 2023 [modrak2023], https://arxiv.org/abs/2211.02383.

    Args:
        vae: a `VAE`, or any pair of Pyro programs.
        simulations: the number S of simulations.
        draws: draws L from the guide for each.
        given: the rows that simulations are conditioned on, with `mask`, `size_factor` or covariates, taken in turn.
            Own programs need it, since they take their shapes from `x`, whose values are replaced; a `VAE` only for
            such tensors, and `x` may be left out.
        batch_size: simulations at once, where rows are independent.
        seed: of everything random; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        Ranks, p-values and findings.

    Raises:
        InputError: an argument cannot be used, or the programs cannot be simulated from.
        FloatingPointError: a density or a draw is NaN; the message names the quantity.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> found = sbc(vae, simulations=200, draws=19)
    >>> found.quantities, found.ranks.shape
    (('log joint', 'z[0]', 'z[1]'), (200, 3))
    """
    check_programs(vae, "sbc")
    check_integers(simulations=(simulations, 20), draws=(draws, 2), batch_size=(batch_size, 1), seed=(seed, 0))
    session = EvaluationSession.of(vae, _rows(vae, given, seed))
    with session.activate(seed):
        count = len(session.rows)
        complete = next(iter(session.batches(count, "", False)))[1]
        statistics = RankStatistics(vae, complete, draws)
        if statistics.by_rows:
            order = torch.randperm(count) if simulations < count else torch.arange(count)
            index = order[torch.arange(simulations) % count].to(session.rows.x.device)
            session.rows = Rows(session.rows.batch(index))
            parts = [statistics(batch) for _, batch in session.batches(batch_size, "simulations", progress)]
        else:
            session.rows = Rows({"x": torch.zeros(simulations, 1)})  # one batch per simulation
            parts = [statistics(complete) for _ in session.batches(1, "simulations", progress)]
    return SBC(statistics.quantities, np.concatenate(parts), draws, seed)


def _rows(vae: Programs, given: Any, seed: int) -> Rows:
    """Rows that simulations are conditioned on; for a VAE, with an `x` of its own where none is given."""
    if isinstance(vae, VAE) and (given is None or (isinstance(given, Mapping) and "x" not in given)):
        tensors = {str(name): as_tensor(str(name), values) for name, values in (given or {}).items()}
        names, count = {"size_factor"} & set(tensors), len(next(iter(tensors.values()))) if tensors else 1
        sized: dict[str, Any] = {name: tensors[name].to(vae.likelihood.device_tensor) for name in names}
        with evaluation(vae, seed):
            return Rows.of({"x": vae.sample(count, **sized).cpu(), **tensors})
    if given is None:
        raise InputError(
            "own programs take the shapes of simulated data from a batch: give one, as in "
            "sbc(programs, given={'x': x}); the values of x are replaced."
        )
    return Rows.of(given)
