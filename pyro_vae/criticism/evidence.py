"""Evidence: log p(x) of rows, with its Monte Carlo error and diagnostics.

A method weighs draws so that their mean weight estimates p(x): `Importance` sampling, or annealing (`AIS`). Estimates
are reliable if draws reach all of the posterior's mass, which k-hat diagnoses.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import check_integers
from pyro_vae.criticism.base_measure import base_measure
from pyro_vae.criticism.methods import Importance, Method
from pyro_vae.criticism.methods.base import MIN_TAIL_DRAWS, Batch, check_method
from pyro_vae.criticism.session import DENSITY_FAILS, EvaluationSession, check_rows
from pyro_vae.data.rows import fingerprint_of
from pyro_vae.model.programs import Programs, Traits, check_programs

MAX_KHAT = 0.7
"""Largest k-hat that is reliable, however many draws there are (Vehtari et al. 2024)."""


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    r"""Estimates of log p(x) of N rows, with K draws for each.

    $$ \log \hat p(x_n) = \log \frac1K \sum_k w_{kn}, \qquad
       \mathrm{se}_n^2 = \frac{1}{K} \frac{\widehat{\mathrm{Var}}(w_{\cdot n})}{\hat p(x_n)^2} $$

    The logarithm of a mean is biased low, by $\mathrm{se}_n^2 / 2$ to first order: unlike the error over draws, this
    `bias` of `mean` does not fall with the number of rows. And k-hat diagnoses only the draws there are: a guide that
    misses a part of the posterior gives too small an estimate with a small k-hat; the defensive proposal reveals it.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016 [burda2016],
            https://arxiv.org/abs/1509.00519.
        Vehtari et al., Pareto Smoothed Importance Sampling, 2024 [vehtari2024], https://arxiv.org/abs/1507.02646.

    Args:
        pointwise: log p(x) of each row, (N,), in nats.
        mcse: its Monte Carlo standard error, (N,), in nats, by the delta method.
        khat: the Pareto shape k of the weights' tail, (N,): above 0.5 they have no variance, and `mcse` is too small;
            0 where all weights are equal, infinite where a few draws have all the weight, NaN with fewer than 25 draws.
        method: the method of estimation.
        pixels: for pixel levels, the mean number of observed pixels of a row; 0 for other data.
        caveat: why the values are not log densities; empty if they are.
        measure: the base measure, "probabilities" of discrete data or "densities" of continuous data.
        fingerprint: a hash of the rows, which identifies them.
        source: the arguments of `pv.data.load` that made the rows; empty for data in memory.
        acceptance: the share of accepted transitions of each row, (N,), for methods that move draws.
    """

    pointwise: Tensor
    mcse: Tensor
    khat: Tensor
    method: Method
    pixels: float = 0.0
    caveat: str = ""
    measure: str = ""
    fingerprint: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    acceptance: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.pointwise)

    @property
    def draws(self) -> int:
        """Number K of draws per row."""
        return self.method.draws

    @property
    def mean(self) -> float:
        """Mean of log p(x) over rows, in nats."""
        return float(self.pointwise.mean())

    @property
    def se(self) -> float:
        """Standard error of `mean` over rows, as an estimate for their population; NaN for one row."""
        return float(self.pointwise.std()) / math.sqrt(len(self)) if len(self) > 1 else math.nan

    @property
    def mean_mcse(self) -> float:
        """Monte Carlo standard error of `mean`, for these rows."""
        return float(self.mcse.square().sum().sqrt()) / len(self)

    @property
    def bias(self) -> float:
        """Bias of `mean` for these rows, to first order; never positive."""
        return -float(self.mcse.square().mean()) / 2

    @property
    def bits_per_dim(self) -> float | None:
        """Bits per pixel, -mean / (pixels log 2); None where the likelihood is not one of pixels."""
        return -self.mean / (self.pixels * math.log(2)) if self.pixels else None

    @property
    def threshold(self) -> float:
        """Largest reliable k-hat of K draws, min(1 - 1 / log10 K, 0.7)."""
        return min(1 - 1 / math.log10(self.draws), MAX_KHAT) if self.draws >= MIN_TAIL_DRAWS else math.nan

    @property
    def unreliable(self) -> Tensor:
        """Rows whose k-hat is above the threshold, (N,) bool; none where k-hat is unknown."""
        return self.khat > self.threshold

    @property
    def warning(self) -> str:
        """Why the estimates are unreliable; empty if they are not."""
        if self.draws < MIN_TAIL_DRAWS:
            return self.method.few_draws_warning(self.mcse)
        if not bool(self.unreliable.any()):
            return ""
        return (
            f"k-hat is above {self.threshold:.2f} in {int(self.unreliable.sum())} of {len(self)} rows, so these "
            f"estimates and their errors are unreliable: {self.method.recommendation}."
        )

    def to_csv(self) -> str:
        """Pointwise values as CSV text, one line per row, with every digit."""
        columns = zip(self.pointwise.tolist(), self.mcse.tolist(), self.khat.tolist(), strict=True)
        return "row,log_p,mcse,khat\n" + "".join(f"{n},{p!r},{e!r},{k!r}\n" for n, (p, e, k) in enumerate(columns))

    def to_elpd(self) -> Any:
        """Evidence as ArviZ's `ELPDData`, for `arviz_stats.compare` and `arviz_plots.plot_khat`.

        `arviz_stats.loo` itself does not apply: leaving out a row leaves out its latents too, so that for given weights
        the log predictive density of a row is log p(x), the value estimated here.

        References:
            Vehtari, Gelman and Gabry, Practical Bayesian Model Evaluation Using Leave-One-Out Cross-Validation and
                WAIC, 2017 [vehtari2017], https://arxiv.org/abs/1507.04544.

        Returns:
            `ELPDData` whose elpd is the sum of log p(x) over rows, with its standard error over rows.
        """
        from arviz_stats.utils import ELPDData

        rows = {"row": range(len(self))}
        pointwise, khat = (
            xr.DataArray(values.numpy(), dims="row", coords=rows, name=name)
            for values, name in ((self.pointwise, "elpd_i"), (self.khat, "pareto_k"))
        )
        return ELPDData(
            kind="loo",
            elpd=float(self.pointwise.sum()),
            se=self.se * len(self),
            p=0.0,  # no parameters are integrated over
            n_samples=self.draws,
            n_data_points=len(self),
            scale="log",
            warning=bool(self.unreliable.any()),
            good_k=self.threshold,
            elpd_i=pointwise,
            pareto_k=khat,
        )

    @property
    def _diagnostics(self) -> str:
        khat = "" if self.draws < MIN_TAIL_DRAWS else f", largest k-hat {float(self.khat.max()):.2f}"
        return khat if self.acceptance is None else f"{khat}, acceptance {float(self.acceptance.mean()):.2f}"

    def __repr__(self) -> str:
        """Summary in a few lines."""
        name = "log of the mean weight" if self.caveat else "log p(x)"
        rows = f"{self.se:.2g} over rows, " if len(self) > 1 else ""
        bits = "" if self.bits_per_dim is None else f" = {self.bits_per_dim:.4f} bits per dimension"
        lines = [
            f"{name} = {self.mean:.3f} nats per row{bits}",
            f"standard error {rows}{self.mean_mcse:.2g} over draws; bias about {self.bias:.1g}",
            f"{len(self)} rows, {self.method.describe()}" + self._diagnostics,
        ]
        notes = (("Warning", self.warning), ("Note", self.caveat and f"{self.caveat}."))
        return "\n".join(lines + [f"{word}: {note}" for word, note in notes if note])


@explained
def evidence(
    vae: Programs,
    x: Any,
    *,
    method: Method = Importance(),
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """Estimates of log p(x) of rows.

    Memory does not grow with the number of draws, and with that of rows only by the values returned for each.

    Args:
        vae: a `VAE`, or any pair of Pyro programs whose latents and data all lie in one plate over rows.
        x: rows (N, *event_shape), as for `fit`, with `mask` and `size_factor` where the model takes them. Rows
            under dynamic binarisation are drawn once, by the seed.
        method: importance sampling, `Importance`, or annealing, `AIS`, where the guide is unreliable.
        batch_size: rows at once.
        seed: of draws and binarisation; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        The estimates, with errors and diagnostics.

    Raises:
        InputError: an argument or the data cannot be used, or the programs have no weight of each row.
        FloatingPointError: a weight is NaN or infinite; the message names the row.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> found = evidence(vae, torch.zeros(5, 3), method=Importance(draws=500, proposal="defensive"))
    >>> found.pointwise.shape, found.draws
    (torch.Size([5]), 500)
    """
    check_programs(vae, "evidence")
    check_method(method)
    check_integers(batch_size=(batch_size, 1), seed=(seed, 0))
    session = EvaluationSession.of(vae, x)
    sampler = method.build_sampler(vae)
    results: list[tuple[Tensor, ...]] = []
    with session.activate(seed):
        for start, batch in session.batches(batch_size, "evidence", progress):
            weights = sampler(batch)
            log_p, mcse = weights.estimate()
            check_rows(log_p < math.inf, start, f"the weights of row {{row}} are not finite: {DENSITY_FAILS}")
            accepted = [] if weights.acceptance is None else [weights.acceptance]
            results.append((log_p, mcse, weights.pareto_k(), *accepted))
        described = describe_data(session, batch)
    pointwise, errors, khat, *moved = (torch.cat(parts) for parts in zip(*results, strict=True))
    return Evidence(pointwise, errors, khat, method, acceptance=moved[0] if moved else None, **described)


def describe_data(session: EvaluationSession, batch: Batch) -> dict[str, Any]:
    """Fields of `Evidence` that programs and rows determine, from the rows and one batch of them."""
    traits, rows = Traits.of(session.programs), session.rows
    if len(set(rows.features)) == len(rows.features):  # the same rows for models with other orders of columns
        rows = rows.aligned(sorted(rows.features, key=lambda name: (len(name), name)))
    data = {name: tensor for name, tensor in rows.tensors.items() if name != "row"}  # an index, not data
    return {
        "pixels": rows.n_observed if traits.is_pixel else 0.0,
        "caveat": traits.caveat,
        "measure": base_measure(session.programs, batch),
        "fingerprint": fingerprint_of(data),
        "source": rows.source,
    }
