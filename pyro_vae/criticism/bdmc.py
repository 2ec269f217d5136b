"""Bidirectional Monte Carlo: bounds of log p(x) from below and above, on data of the model's own."""

import inspect
import math
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.criticism.methods.annealing import AIS, SimulatedRows
from pyro_vae.criticism.session import EvaluationSession, check_rows, evaluation, reference_tensor
from pyro_vae.data.rows import Rows
from pyro_vae.model.programs import Programs, as_module, check_programs

LARGE_GAP = 0.5
"""Gap, in nats, above which differences of models are doubtful."""

BOUNDS_FAIL = (
    "the bounds of row {row} are not finite: the model's density fails at latents of its own; "
    "inspect its log_prob there."
)


@dataclass(frozen=True, eq=False, repr=False)
class BDMC:
    r"""Stochastic bounds of log p(x) of N rows simulated by the model (bidirectional Monte Carlo).

    $$ E\, \log \frac1K \sum_k w_k \;\le\; \log p(x) \;\le\; -E\, \log \frac1K \sum_k \frac{1}{w'_k} $$

    Chains annealed to the posterior have the weights $w$; reverse chains from the latents that x was drawn with, an
    exact draw from the posterior, have the weights $w'$. The bounds hold in expectation: those of one row may cross by
    their noise. They hold for data like the model's own, and for other data as far as these are alike.

    References:
        Grosse, Ghahramani and Adams, Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo, 2015
            [grosse2015], https://arxiv.org/abs/1511.02543. Grosse, Ancha and Roy, Measuring the Reliability of MCMC
            Inference with Bidirectional Monte Carlo, 2016 [grosse2016], https://arxiv.org/abs/1606.02275.

    Args:
        lower: the lower bound of each row, (N,), in nats.
        upper: the upper bound of each row, (N,), in nats.
        acceptance: the share of transitions accepted in each row, forward and reverse, (N,).
        method: the annealing.
    """

    lower: Tensor
    upper: Tensor
    acceptance: Tensor
    method: AIS

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.lower)

    @property
    def mean_lower(self) -> float:
        """Mean of the lower bounds, in nats."""
        return float(self.lower.mean())

    @property
    def mean_upper(self) -> float:
        """Mean of the upper bounds, in nats."""
        return float(self.upper.mean())

    @property
    def gap(self) -> float:
        """Mean upper bound minus mean lower bound, in nats; around 0, possibly below, where both are tight."""
        return self.mean_upper - self.mean_lower

    @property
    def gap_se(self) -> float:
        """Standard error of `gap` over rows and chains; NaN for one row."""
        return float((self.upper - self.lower).std()) / math.sqrt(len(self)) if len(self) > 1 else math.nan

    @property
    def error_bound(self) -> float:
        """Bound on the mean error of annealing for such rows: the gap plus two of its standard errors."""
        return max(self.gap, 0.0) + (2 * self.gap_se if len(self) > 1 else 0.0)

    @property
    def warning(self) -> str:
        """Why estimates by this method are unreliable; empty if they are not."""
        if self.error_bound <= LARGE_GAP:
            return ""
        return (
            f"evidence by this method may be {self.error_bound:.2g} nats too low even on the model's own data, so "
            f"differences of that size are not reliable: take AIS(temperatures={10 * self.method.temperatures})."
        )

    def __repr__(self) -> str:
        """Summary in a few lines."""
        error = f" +- {self.gap_se:.2g}" if len(self) > 1 else ""
        lines = [
            f"{self.mean_lower:.3f} <= log p(x) <= {self.mean_upper:.3f} nats per row, a gap of {self.gap:.2g}{error}",
            f"AIS with these settings is within {self.error_bound:.2g} nats of log p(x), on average over data of the "
            "model's own",
            f"{len(self)} rows, {self.method.describe()}, acceptance {float(self.acceptance.mean()):.2f}",
        ]
        return "\n".join(lines + [f"Warning: {self.warning}"] * bool(self.warning))


@explained
def bdmc(
    vae: Programs,
    rows: int = 100,
    *,
    x: Any = None,
    method: AIS = AIS(),
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
    **given: Tensor,
) -> BDMC:
    """Bounds of log p(x) on data simulated by the model, which bound the error of annealing.

    Args:
        vae: a `VAE`, or any pair of Pyro programs, as for `evidence`.
        rows: the number N of rows to draw.
        x: rows as for `evidence`, in place of `rows`, for programs that cannot draw without them: observed sites
            are simulated, and other tensors of the rows (a mask, a size factor) kept.
        method: the annealing whose error is bounded.
        batch_size: rows at once.
        seed: of all draws; the global random state is left as it was.
        progress: whether to show progress in a terminal.
        given: tensors that rows are simulated with, (N, ...) by name: `size_factor` or `mask`.

    Returns:
        Both bounds of each row.

    Raises:
        InputError: an argument cannot be used, or the programs have no weight of each row.
        FloatingPointError: a weight is NaN or infinite; the message names the row.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> found = bdmc(vae, rows=20, method=AIS(chains=8, temperatures=20, leapfrog=3))
    >>> found.lower.shape, found.error_bound > 0
    (torch.Size([20]), True)
    """
    check_programs(vae, "bdmc")
    if not isinstance(method, AIS):
        raise InputError(f"method = {method!r} is not annealing: write method=pv.criticism.AIS(temperatures=1000).")
    check_integers(rows=(rows, 1), batch_size=(batch_size, 1), seed=(seed, 0))
    session = EvaluationSession.of(vae, _simulate_rows(vae, rows, seed, given) if x is None else _merge_rows(x, given))
    sampler = method.build_sampler(vae)
    results: list[tuple[Tensor, ...]] = []
    with session.activate(seed):
        for start, batch in session.batches(batch_size, "BDMC", progress):
            sampler.check(batch)
            with pyro.validation_enabled(False):
                simulated = SimulatedRows.of(sampler, batch)
                steps = sampler.tune_step_sizes(simulated.model, simulated.batch)
                forward = sampler.log_weights(simulated.model, simulated.batch, steps)
                reverse = sampler.log_weights(simulated.model, simulated.batch, steps, exact=simulated.latents)
            bounds = forward.estimate()[0], -reverse.estimate()[0]
            check_rows(torch.stack(bounds).isfinite().all(0), start, BOUNDS_FAIL)
            accepted = [part.acceptance for part in (forward, reverse) if part.acceptance is not None]
            results.append((*bounds, torch.stack(accepted).mean(0)))
    lower, upper, acceptance = (torch.cat(parts) for parts in zip(*results, strict=True))
    return BDMC(lower, upper, acceptance, method)


def _merge_rows(x: Any, given: dict[str, Tensor]) -> Rows:
    rows = Rows.of(x)
    return replace(rows, tensors={**rows.tensors, **given})


def _simulate_rows(vae: Programs, rows: int, seed: int, given: dict[str, Tensor]) -> Rows:
    """Rows simulated by programs that need only their number."""
    try:
        inspect.signature(vae.model).bind(rows=rows, **given)
    except TypeError:
        raise InputError(
            "this model cannot be called as model(rows=N), without data, to simulate data: give it rows of the "
            "right shape, bdmc(programs, x=x); its observed sites are then simulated."
        ) from None
    device = reference_tensor(as_module(vae)).device
    given = {name: value.to(device) for name, value in given.items()}
    with evaluation(vae, seed):
        drawn = vae.model(rows=rows, **given)
    if not isinstance(drawn, Tensor) or drawn.shape[:1] != (rows,):
        raise InputError(
            f"model(rows={rows}) did not return {rows} rows of x: end the model with `return x`, or give rows of the "
            "right shape, bdmc(programs, x=x); its observed sites are then simulated."
        )
    return Rows({"x": drawn, **given})
