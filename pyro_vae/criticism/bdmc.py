"""How far annealing is from log p(x), on data of the model's own: a bound from below and one from above."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.criticism.methods.annealing import AIS, Simulated
from pyro_vae.criticism.session import EvaluationSession, evaluation, reference_tensor
from pyro_vae.data.rows import Rows
from pyro_vae.model.programs import Programs, as_module, check_programs

WIDE = 0.5
"""A gap, in nats, about which models are commonly said to differ."""


@dataclass(frozen=True, eq=False, repr=False)
class BDMC:
    r"""Log p(x) of N rows of a model's own, between two stochastic bounds (bidirectional Monte Carlo).

    $$ E\, \log \frac1K \sum_k w_k \;\le\; \log p(x) \;\le\; -E\, \log \frac1K \sum_k \frac{1}{w'_k} $$

    Chains annealed to the posterior have the weights $w$; chains that go back from the latents that x was drawn with,
    which are an exact draw from the posterior, have the weights $w'$. The bounds hold on average: those of one row may
    cross by their noise. What they say is about data like the model's own, and no more of other data than these are
    like it.

    References:
        Grosse, Ghahramani and Adams, Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo, 2015,
        https://arxiv.org/abs/1511.02543. Grosse, Ancha and Roy, Measuring the Reliability of MCMC Inference with
        Bidirectional Monte Carlo, 2016, https://arxiv.org/abs/1606.02275.

    Args:
        lower: the lower bound of each row, (N,), in nats.
        upper: the upper bound of each row, (N,), in nats.
        acceptance: the share of transitions accepted in each row, forth and back, (N,).
        method: what was annealed.
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
        """The mean of the lower bounds, in nats."""
        return float(self.lower.mean())

    @property
    def mean_upper(self) -> float:
        """The mean of the upper bounds, in nats."""
        return float(self.upper.mean())

    @property
    def gap(self) -> float:
        """The mean upper bound minus the mean lower one, in nats; around 0, and perhaps below, where both are tight."""
        return self.mean_upper - self.mean_lower

    @property
    def gap_error(self) -> float:
        """The standard error of `gap` over rows and chains; NaN for one row."""
        return float((self.upper - self.lower).std()) / math.sqrt(len(self)) if len(self) > 1 else math.nan

    @property
    def within(self) -> float:
        """What the error of annealing is below, on average over such rows: the gap and two standard errors of it."""
        return max(self.gap, 0.0) + (2 * self.gap_error if len(self) > 1 else 0.0)

    @property
    def warning(self) -> str:
        """Why numbers by this method cannot be trusted; empty where nothing speaks against them."""
        if self.within <= WIDE:
            return ""
        return (
            f"evidence by this method may be {self.within:.2g} nats too low even on the model's own data, so no "
            f"difference of that size says anything: take AIS(temperatures={10 * self.method.temperatures})."
        )

    def __repr__(self) -> str:
        """Summarise in some lines."""
        error = f" +- {self.gap_error:.2g}" if len(self) > 1 else ""
        lines = [
            f"{self.mean_lower:.3f} <= log p(x) <= {self.mean_upper:.3f} nats per row, a gap of {self.gap:.2g}{error}",
            f"AIS with these settings is within {self.within:.2g} nats of log p(x), on average over data of the "
            "model's own",
            f"{len(self)} rows, {self.method.told}, acceptance {float(self.acceptance.mean()):.2f}",
        ]
        return "\n".join(lines + [f"Warning: {self.warning}"] * bool(self.warning))


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
    """Bound log p(x) from both sides on data drawn from the model, to know how far annealing is from it.

    Args:
        vae: a `VAE`, or any pair of Pyro programs, as for `evidence`.
        rows: the number N of rows to draw.
        x: rows as for `evidence`, in place of `rows`, for programs that cannot draw without: all that they observe is
            drawn anew, beside what else the rows hold (a mask, a size factor).
        method: the annealing that is judged.
        batch_size: rows at once.
        seed: of all draws; the global random state is left as it was.
        progress: whether to show progress in a terminal.
        given: what rows are drawn with, (N, ...) by name: `size_factor` or `mask`.

    Returns:
        Both bounds of each row.

    Raises:
        InputError: an argument cannot be used, or the programs have no rows to weigh one by one.
        FloatingPointError: a weight is not a number; the message names the row.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> found = bdmc(vae, rows=20, method=AIS(chains=8, temperatures=20, leapfrog=3))
    >>> found.lower.shape, found.within > 0
    (torch.Size([20]), True)
    """
    _check_arguments(vae, rows, method, batch_size, seed)
    subject = EvaluationSession.of(vae, _drawn(vae, rows, seed, given) if x is None else _joined(x, given))
    annealer = method.weigher(vae)
    results: list[tuple[Tensor, ...]] = []
    with subject.activate(seed):
        for start, batch in subject.batches(batch_size, "BDMC", progress):
            annealer.check(batch)
            with pyro.validation_enabled(False):
                own = Simulated.of(annealer, batch)
                steps = annealer.tuned(own.model, own.batch)
                forth = annealer.weights(own.model, own.batch, steps)
                back = annealer.weights(own.model, own.batch, steps, exact=own.latents)
            bounds = forth.estimate()[0], -back.estimate()[0]
            _check_finite(start, *bounds)
            accepted = [part.acceptance for part in (forth, back) if part.acceptance is not None]
            results.append((*bounds, torch.stack(accepted).mean(0)))
    lower, upper, acceptance = (torch.cat(parts) for parts in zip(*results, strict=True))
    return BDMC(lower, upper, acceptance, method)


def _joined(x: Any, given: dict[str, Tensor]) -> Rows:
    rows = Rows.of(x)
    return Rows({**rows.tensors, **given}, dynamic=rows.dynamic)


def _drawn(vae: Programs, rows: int, seed: int, given: dict[str, Tensor]) -> Rows:
    """Rows for programs that draw them from nothing but their number."""
    try:
        inspect.signature(vae.model).bind(rows=rows, **given)
    except TypeError:
        raise InputError(
            "this model cannot be called as model(rows=N), without data, to draw some: give it rows of the right "
            "shape, bdmc(programs, x=x); what it observes is then drawn anew."
        ) from None
    device = reference_tensor(as_module(vae)).device
    given = {name: value.to(device) for name, value in given.items()}
    with evaluation(vae, seed):
        drawn = vae.model(rows=rows, **given)
    if not isinstance(drawn, Tensor) or drawn.shape[:1] != (rows,):
        raise InputError(
            f"model(rows={rows}) did not return {rows} rows of x: end the model with `return x`, or give rows of the "
            "right shape, bdmc(programs, x=x); what it observes is then drawn anew."
        )
    return Rows({"x": drawn, **given})


def _check_finite(start: int, *bounds: Tensor) -> None:
    wrong = ~torch.stack(bounds).isfinite().all(0)
    if bool(wrong.any()):
        raise FloatingPointError(
            f"the bounds of row {start + int(wrong.to(torch.uint8).argmax())} are not finite: the model's density "
            "fails at latents of its own; look at its log_prob there."
        )


def _check_arguments(vae: Any, rows: Any, method: Any, batch_size: Any, seed: Any) -> None:
    check_programs(vae, "bdmc")
    if not isinstance(method, AIS):
        raise InputError(f"method = {method!r} is no annealing: write method=pv.criticism.AIS(temperatures=1000).")
    check_integers(rows=(rows, 1), batch_size=(batch_size, 1), seed=(seed, 0))
