"""Evidence: log p(x) of rows, with all that can be said about its error.

A method weighs draws so that their mean weight estimates p(x): `Importance` sampling, or annealing (`AIS`). It is as
good as its draws reach wherever the posterior has mass: k-hat says when they do not.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.criticism.base_measure import measure_of
from pyro_vae.criticism.methods import Importance, Method
from pyro_vae.criticism.methods.base import TAIL
from pyro_vae.criticism.session import EvaluationSession
from pyro_vae.data.fingerprint import fingerprint_of
from pyro_vae.model.programs import Programs, check_programs


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    r"""Log p(x) of N rows, estimated with K draws for each.

    $$ \log \hat p(x_n) = \log \frac1K \sum_k w_{kn}, \qquad
       \mathrm{se}_n^2 = \frac{1}{K} \frac{\widehat{\mathrm{Var}}(w_{\cdot n})}{\hat p(x_n)^2} $$

    The logarithm of a mean lies below, by $\mathrm{se}_n^2 / 2$ to first order: unlike the error over draws, this
    `bias` of `mean` does not fall with the number of rows. And k-hat sees only what draws have reached: a guide that
    misses a whole part of the posterior gives too small a number under a small k-hat. The defensive proposal tells.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519.
        Vehtari et al., Pareto Smoothed Importance Sampling, 2024, https://arxiv.org/abs/1507.02646.

    Args:
        pointwise: log p(x) of each row, (N,), in nats.
        error: its Monte Carlo standard error, (N,), in nats, by the delta method.
        khat: the Pareto shape k of the weights' tail, (N,): above 0.5 they have no variance, and `error` is too small;
            0 where all weights are equal, infinite where a few draws have all the weight, NaN with fewer than 25 draws.
        method: how they were come by.
        pixels: for levels of pixels, those observed in a row, on average; 0 for other data.
        caveat: why the numbers are no log density, where they are none.
        measure: what they are logarithms of, "probabilities" of discrete data or "densities" of continuous ones.
        fingerprint: a hash of the rows, by which they are known again.
        source: the arguments of `pv.data.load` that made the rows; empty for data in memory.
        acceptance: the share of moves accepted in each row, (N,), where draws were moved.
    """

    pointwise: Tensor
    error: Tensor
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
        """The number K of draws per row."""
        return self.method.draws

    @property
    def mean(self) -> float:
        """The mean of log p(x) over rows, in nats."""
        return float(self.pointwise.mean())

    @property
    def se(self) -> float:
        """The standard error of `mean` as that of all data such rows are drawn from; NaN for one row."""
        return float(self.pointwise.std()) / math.sqrt(len(self)) if len(self) > 1 else math.nan

    @property
    def mean_mcse(self) -> float:
        """The Monte Carlo standard error of `mean`, for these rows."""
        return float(self.error.square().sum().sqrt()) / len(self)

    @property
    def bias(self) -> float:
        """How far `mean` is expected to lie from the truth for these rows, to first order; never positive."""
        return -float(self.error.square().mean()) / 2

    @property
    def bits_per_dim(self) -> float | None:
        """Bits per pixel, -mean / (pixels log 2); None where the likelihood is none of pixels."""
        return -self.mean / (self.pixels * math.log(2)) if self.pixels else None

    @property
    def threshold(self) -> float:
        """The largest k-hat with which K draws can be trusted, min(1 - 1 / log10 K, 0.7)."""
        return min(1 - 1 / math.log10(self.draws), 0.7) if self.draws >= TAIL else math.nan

    @property
    def unreliable(self) -> Tensor:
        """The rows whose k-hat is above the threshold, (N,) bool; none where k-hat cannot be told."""
        return self.khat > self.threshold

    @property
    def warning(self) -> str:
        """Why the numbers cannot be trusted; empty where nothing speaks against them."""
        if self.draws < TAIL:
            return self.method.untold(self.error)
        if not bool(self.unreliable.any()):
            return ""
        return (
            f"k-hat is above {self.threshold:.2f} in {int(self.unreliable.sum())} of {len(self)} rows, so the numbers "
            f"and their errors cannot be trusted: {self.method.remedy}."
        )

    def to_csv(self) -> str:
        """The pointwise values as text, one line per row, with every digit."""
        columns = zip(self.pointwise.tolist(), self.error.tolist(), self.khat.tolist(), strict=True)
        return "row,log_p,error,khat\n" + "".join(f"{n},{p!r},{e!r},{k!r}\n" for n, (p, e, k) in enumerate(columns))

    def to_elpd(self) -> Any:
        """The same as ArviZ's `ELPDData`, for `arviz_stats.compare` and `arviz_plots.plot_khat`.

        `arviz_stats.loo` itself has no place here: leaving out a row leaves out its latents too, so that for weights
        as given the predictive density of a row is log p(x), which is what this is.

        References:
            Vehtari, Gelman and Gabry, Practical Bayesian Model Evaluation Using Leave-One-Out Cross-Validation and
                WAIC, 2017, https://arxiv.org/abs/1507.04544.

        Returns:
            `ELPDData` whose elpd is the sum of log p(x) over rows, with its standard error over rows.
        """
        import xarray as xr
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
            p=0.0,  # the weights are as given
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
        khat = "" if self.draws < TAIL else f", largest k-hat {float(self.khat.max()):.2f}"
        return khat if self.acceptance is None else f"{khat}, acceptance {float(self.acceptance.mean()):.2f}"

    def __repr__(self) -> str:
        """Summarise in some lines."""
        name = "log of the mean weight" if self.caveat else "log p(x)"
        rows = f"{self.se:.2g} over rows, " if len(self) > 1 else ""
        bits = "" if self.bits_per_dim is None else f" = {self.bits_per_dim:.4f} bits per dimension"
        lines = [
            f"{name} = {self.mean:.3f} nats per row{bits}",
            f"standard error {rows}{self.mean_mcse:.2g} over draws; bias about {self.bias:.1g}",
            f"{len(self)} rows, {self.method.told}" + self._diagnostics,
        ]
        notes = (("Warning", self.warning), ("Note", self.caveat and f"{self.caveat}."))
        return "\n".join(lines + [f"{word}: {note}" for word, note in notes if note])


def evidence(
    vae: Programs,
    x: Any,
    *,
    method: Method = Importance(),
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """Estimate log p(x) of rows.

    Memory does not grow with the number of draws, and with that of rows only by what is returned for each.

    Args:
        vae: a `VAE`, or any pair of Pyro programs whose latents and data all lie in one plate over rows.
        x: rows (N, *event_shape), as for `fit`, with `mask` and `size_factor` where the model takes them. Rows
            under dynamic binarisation are drawn once, by the seed.
        method: how: `pv.criticism.Importance(draws=1000)`, or `pv.criticism.AIS()` where no guide is trusted.
        batch_size: rows at once.
        seed: of draws and binarisation; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        The estimates, with their errors.

    Raises:
        InputError: an argument or the data cannot be used, or the programs have no rows to weigh one by one.
        FloatingPointError: a weight is not a number; the message names the row.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> found = evidence(vae, torch.zeros(5, 3), method=Importance(draws=500, proposal="defensive"))
    >>> found.pointwise.shape, found.draws
    (torch.Size([5]), 500)
    """
    _check_arguments(vae, method, batch_size, seed)
    subject = EvaluationSession.of(vae, x)
    weigher = method.weigher(vae)
    results: list[tuple[Tensor, ...]] = []
    with subject.activate(seed):
        for start, batch in subject.batches(batch_size, "evidence", progress):
            weights = weigher(batch)
            log_p, error = weights.estimate()
            if not bool((log_p < math.inf).all()):
                row = start + int((~(log_p < math.inf)).to(torch.uint8).argmax())
                raise FloatingPointError(
                    f"the weights of row {row} are not finite: the model's or the guide's density fails there; look at "
                    "vae.decode(vae.encode(x).sample()).log_prob(x) for that row."
                )
            accepted = [] if weights.acceptance is None else [weights.acceptance]
            results.append((log_p, error, weights.khats(), *accepted))
        data = {name: tensor for name, tensor in subject.rows.tensors.items() if name != "row"}  # that is its number
        measure, known_by = measure_of(vae, batch), fingerprint_of(data)
    pointwise, errors, khat, *moved = (torch.cat(parts) for parts in zip(*results, strict=True))
    pixels = subject.rows.n_observed if getattr(vae, "is_pixel", False) else 0.0
    caveat, source = getattr(vae, "caveat", ""), subject.rows.source
    return Evidence(pointwise, errors, khat, method, pixels, caveat, measure, known_by, source, *moved)


def _check_arguments(vae: Any, method: Any, batch_size: Any, seed: Any) -> None:
    check_programs(vae, "evidence")
    if not isinstance(method, Method):
        raise InputError(
            f"method = {method!r} is no method of this package: write method=pv.criticism.Importance(draws=1000)."
        )
    check_integers(batch_size=(batch_size, 1), seed=(seed, 0))
