"""Comparison of models by their log p(x) of the same held-out rows, with errors over rows and seeds.

Rows are hard or easy for all models alike, so models are compared by their differences, row by row; and since two seeds
of one specification differ too, a specification is compared by several of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas
import torch
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError
from pyro_vae.criticism.evidence import Evidence

LEVEL = 0.95
"""Coverage of the intervals."""

FEW_SEEDS = 5
"""Number of seeds below which the summary explains why the interval of a group is wide."""

ROWS = "measure them on the same rows, in the same order and binarised by the same seed"


@dataclass(frozen=True)
class Estimate:
    """Mean in nats per row, with its standard error and a 95 % interval.

    Args:
        value: the estimate.
        se_rows: its standard error over rows, as an estimate for their population.
        se_seeds: its standard error over seeds, as an estimate for all trainings; 0 with one seed, where it is unknown.
        half_width: half of the interval's width.
    """

    value: float
    se_rows: float
    se_seeds: float
    half_width: float

    @property
    def se(self) -> float:
        """Standard error over rows and seeds."""
        return math.hypot(self.se_rows, self.se_seeds)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval."""
        return self.value - self.half_width, self.value + self.half_width


@dataclass(frozen=True)
class ComparedModel:
    """Row of a comparison: one model, or a group of seeds of one specification.

    Args:
        name: the name of the model or group.
        seeds: the number S of seeds.
        log_p: the mean of log p(x) over rows and seeds.
        difference: its paired difference to the best model, negative where this one is worse; 0 for the best.
        mcse: the Monte Carlo standard error of `log_p`, which its error over rows includes.
        warning: why its numbers are unreliable; empty if they are not.
    """

    name: str
    seeds: int
    log_p: Estimate
    difference: Estimate
    mcse: float
    warning: str = ""

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference to the best model excludes 0."""
        return abs(self.difference.value) > self.difference.half_width


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    r"""Comparison of models by their mean log p(x) of the same N rows, best first, with differences to the best.

    For $y_{sn}$, log p(x) of row n under seed s of a specification, model rows and seeds as random:
    $y_{sn} = \mu + a_s + b_n + c_{sn}$. All seeds see the same rows, so that

    $$ \mathrm{Var}(\bar y) = \frac{\sigma_a^2}{S} + \frac{\sigma_b^2}{N} + \frac{\sigma_c^2}{SN}
       = \frac{\sigma_a^2}{S} + \frac{\mathrm{Var}_n(\bar y_{\cdot n})}{N}, \qquad
       \hat\sigma_a^2 = \Big(\mathrm{Var}_s(\bar y_{s\cdot}) - \frac{\hat\sigma_c^2}{N}\Big)_+ $$

    with $\hat\sigma_c^2$ the mean square of residuals after means of rows and of seeds. The difference of two
    groups has the rows' variance of its own row means, and the sum of both groups' $\sigma_a^2 / S$, for seeds of
    different specifications have nothing in common. An interval takes each variance v with the quantile of
    Student's t of its own degrees of freedom, $\sqrt{\sum_i t_i^2 v_i}$ (Howe): N - 1 for rows and S - 1 for seeds,
    12.7 for two seeds and 4.3 for three. The Monte Carlo error is part of every row's value and so of the error
    over rows: it is reported beside it, and not added again. One seed represents itself, not its specification.

    References:
        Searle, Casella and McCulloch, Variance Components, 1992 [searle1992] (chapter 4).
        Howe, Approximate Confidence Limits on the Mean of X + Y, 1974 [howe1974], Journal of the American Statistical
            Association 69.
        Vehtari, Gelman and Gabry, Practical Bayesian Model Evaluation Using Leave-One-Out Cross-Validation and
            WAIC, 2017 [vehtari2017], https://arxiv.org/abs/1507.04544.

    Args:
        models: the models, best first.
        rows: the number N of rows.
    """

    models: tuple[ComparedModel, ...]
    rows: int

    @property
    def best(self) -> ComparedModel:
        """Model with the largest mean log p(x)."""
        return self.models[0]

    @property
    def names(self) -> list[str]:
        """Names of the models, best first."""
        return [model.name for model in self.models]

    @property
    def warning(self) -> str:
        """Why the comparison is unreliable; empty if it is not."""
        return " ".join(f"{model.name}: {model.warning}" for model in self.models if model.warning)

    def to_pandas(self) -> pandas.DataFrame:
        """DataFrame by name, best first, in nats per row, with columns named after ArviZ's."""
        records = [
            {
                "rank": rank,
                "log_p": at.log_p.value,
                "se": at.log_p.se,
                "difference": at.difference.value,
                "dse": at.difference.se,
                "low": at.difference.interval[0],
                "high": at.difference.interval[1],
                "se_rows": at.log_p.se_rows,
                "se_seeds": at.log_p.se_seeds if at.seeds > 1 else math.nan,
                "se_draws": at.mcse,
                "seeds": at.seeds,
                "warning": bool(at.warning),
            }
            for rank, at in enumerate(self.models)
        ]
        return pandas.DataFrame.from_records(records, index=pandas.Index(self.names, name="model"))

    def to_csv(self) -> str:
        """Table as CSV text, with every digit."""
        return str(self.to_pandas().to_csv(lineterminator="\n"))

    def __repr__(self) -> str:
        """Table, followed by its summary."""
        width = max(len("model"), *map(len, self.names))
        head = (
            f"{'model':<{width}}  {'log p(x)':>11} {'error':>7}  {'difference':>10} {'error':>7}  {'95 % interval':<20}"
        )
        lines = [f"{head} seeds"]
        for at in self.models:
            low, high = at.difference.interval
            numbers = f"{at.difference.value:>+10.3f} {at.difference.se:>7.2g}  {f'[{low:+.3f}, {high:+.3f}]':<20}"
            shown = " " * 40 if at is self.best else numbers
            mark = " !" if at.warning else ""
            lines.append(
                f"{at.name:<{width}}  {at.log_p.value:>11.3f} {at.log_p.se:>7.2g}  {shown} {at.seeds:>5}{mark}"
            )
        lines.append(f"Nats per row, mean of {self.rows} rows; differences are to the best, row by row.")
        lines += [self._describe_difference(at) for at in self.models[1:]]
        lines.append(self._describe_errors())
        return "\n".join(lines + [f"Warning: {at.name}: {at.warning}" for at in self.models if at.warning])

    def _describe_difference(self, at: ComparedModel) -> str:
        doubt = ", by unreliable numbers" if at.warning or self.best.warning else ""
        if at.differs:
            return f"{self.best.name} is ahead of {at.name} by {-at.difference.value:.3g} nats per row{doubt}."
        pair = f"{at.name} and {self.best.name}"
        return f"{pair} do not differ significantly: the interval of their difference holds 0{doubt}."

    def _describe_errors(self) -> str:
        counts = {at.seeds for at in self.models}
        alone = [at.name for at in self.models if at.seeds == 1]
        draws = f"draws make up to {max(at.mcse for at in self.models):.2g} of them"
        if counts == {1}:
            return f"Errors are over rows ({draws}); they do not include differences between seeds."
        few = min(counts - {1})
        text = f"Errors are over rows and seeds ({draws})."
        if few < FEW_SEEDS:
            text += f" {few} seeds are few, so intervals are wide: Student's t with {few - 1} degrees of freedom."
        return text + (f" One seed of {', '.join(alone)} represents itself alone." if alone else "")


@explained
def compare(models: Mapping[str, Evidence | Sequence[Evidence]]) -> Comparison:
    """Comparison of models by their log p(x) of the same held-out rows.

    Args:
        models: evidence by name; a list of evidence is a group, several seeds of one specification.

    Returns:
        The models, best first, with paired differences to the best.

    Raises:
        InputError: fewer than two models, or what cannot be compared: other rows, probabilities with densities, a
            cross-entropy that is not a density, one training twice, rows of probability 0.

    >>> from pyro_vae.criticism import Importance, evidence
    >>> from pyro_vae import MLP, VAE, Normal
    >>> x = torch.randn(50, 3)
    >>> narrow, wide = (VAE((3,), 2, likelihood=Normal(scale=s), encoder=MLP(hidden=(8,))) for s in (0.3, 1))
    >>> measured = {name: evidence(vae, x, method=Importance(500)) for name, vae in (("a", narrow), ("b", wide))}
    >>> compare(measured).names
    ['b', 'a']
    """
    groups = _groups(models)
    check_same_rows([(name, found) for name, group in groups.items() for found in group])
    values = {name: torch.stack([found.pointwise.double() for found in group]) for name, group in groups.items()}
    for name, value in values.items():
        _check_finite(name, value)
    ordered = sorted(groups, key=lambda name: -float(values[name].mean()))
    best = ordered[0]
    rows = tuple(
        _compared_model(name, groups[name], values[name], groups[best], None if name == best else values[best])
        for name in ordered
    )
    return Comparison(rows, values[best].shape[1])


def estimate(values: Tensor, reference: Tensor | None = None) -> Estimate:
    """Mean of a group over rows and seeds, minus that of another on the same rows; see `Comparison`.

    Args:
        values: log p(x) by seed and row, (S, N).
        reference: that of the other group, (S', N).

    >>> estimate(torch.tensor([[1.0, 2.0, 3.0]])).value
    2.0
    """
    from scipy.stats import t

    sides = [values] if reference is None else [values, reference]
    rows = values.mean(0) if reference is None else values.mean(0) - reference.mean(0)
    parts = [(float(rows.var()) / len(rows), len(rows) - 1)]
    parts += [(_between_seeds(side) / len(side), len(side) - 1) for side in sides if len(side) > 1]
    half_width = math.sqrt(sum(v * float(t.ppf((1 + LEVEL) / 2, freedom)) ** 2 for v, freedom in parts))
    se_seeds = math.sqrt(sum(v for v, _ in parts[1:]))
    return Estimate(float(rows.mean()), math.sqrt(parts[0][0]), se_seeds, half_width)


def check_same_measure(sides: Sequence[tuple[str, str, str]]) -> None:
    """Check names, measures and caveats of numbers: that they are values of log p(x) under one base measure.

    Raises:
        InputError: two of them cannot be compared.
    """
    (first, measure, _), *others = sides
    for name, _, caveat in sides:
        if caveat:
            other = next(other for other, _, _ in sides if other != name)
            raise InputError(
                f"{name!r} cannot be compared with {other!r}, for its values are not log p(x): {caveat}. Fit it with "
                "a likelihood of its data, such as pv.ContinuousBernoulli() for values in [0, 1]."
            )
    for name, found, _ in others:
        if found != measure:
            raise InputError(
                f"{first!r} and {name!r} cannot be compared: the first gives {measure or 'numbers of unknown kind'}, "
                f"the second {found or 'numbers of unknown kind'}, whose logarithms have no common unit. Fit both with "
                "likelihoods of one kind."
            )


def check_same_rows(sides: Sequence[tuple[str, Evidence]]) -> None:
    """Check that evidence, with the names of its models, is of the same rows, under one base measure.

    Raises:
        InputError: two of them cannot be compared, or there is a single row.
    """
    (first, one), *others = sides
    for name, found in others:
        settings = sorted(set(one.source) | set(found.source))
        different = [key for key in settings if key != "root" and one.source.get(key) != found.source.get(key)]
        if (len(one), one.fingerprint) == (len(found), found.fingerprint):
            continue
        if different:
            here, there = (f"{different[0]}={side.source.get(different[0])!r}" for side in (one, found))
            why = f"the first was measured on data loaded with {here}, the second with {there}"
        elif len(one) != len(found):
            why = f"the first was measured on {len(one)} rows, the second on {len(found)}"
        else:
            why = "they were measured on different rows"
        raise InputError(f"{first!r} and {name!r} cannot be compared: {why}. To compare them, {ROWS}.")
    check_same_measure([(name, found.measure, found.caveat) for name, found in sides])
    if len(one) < 2:
        raise InputError("one row has no standard error: compare models on at least 2 rows, better on 1000.")


def _groups(models: Any) -> dict[str, list[Evidence]]:
    if not isinstance(models, Mapping) or len(models) < 2:
        raise InputError(
            "compare takes evidence of at least two models by their names: pv.compare({'a': pv.evidence(a, x), "
            "'b': pv.evidence(b, x)})."
        )
    groups = {}
    for name, given in models.items():
        group = [given] if isinstance(given, Evidence) else list(given) if isinstance(given, Sequence) else []
        if not group or not all(isinstance(found, Evidence) for found in group):
            raise InputError(
                f"{name!r} is {type(given).__name__}, not evidence or a list of it: write {{{name!r}: "
                "pv.evidence(vae, x)}."
            )
        for one, other in combinations(group, 2):
            if torch.equal(one.pointwise, other.pointwise):
                raise InputError(f"the group {name!r} holds one training twice: give each of its seeds once.")
        groups[str(name)] = group
    return groups


def _check_finite(name: str, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        row = int((~value.isfinite()).any(0).to(torch.uint8).argmax())
        raise InputError(
            f"{name!r} gives row {row} a log p(x) of {float(value[:, row].min())}, so it has no mean: no draw reached "
            "that row, or it has probability 0. Take more draws, proposal='defensive', or leave that row out."
        )


def _compared_model(
    name: str, group: list[Evidence], values: Tensor, best: list[Evidence], reference: Tensor | None
) -> ComparedModel:
    difference = Estimate(0.0, 0.0, 0.0, 0.0) if reference is None else estimate(values, reference)
    doubts = [found for found in group if found.warning]
    warning = max(doubts, key=lambda found: int(found.unreliable.sum())).warning if doubts else ""
    if warning and len(group) > 1:
        warning = f"in {len(doubts)} of {len(group)} seeds, in the worst {warning}"
    biases = [sum(found.bias for found in side) / len(side) for side in (group, best)]
    if reference is not None and abs(biases[0] - biases[1]) > difference.se:
        biased = (
            f"its log p(x) is biased by about {biases[0]:.2g} and that of the best by {biases[1]:.2g}, which differ by "
            f"more than the error {difference.se:.2g} of the difference: take more draws."
        )
        warning = f"{warning} {biased}".strip()
    mcse = math.sqrt(sum(found.mean_mcse**2 for found in group)) / len(group)
    return ComparedModel(name, len(group), estimate(values), difference, mcse, warning)


def _between_seeds(values: Tensor) -> float:
    """Estimated variance of the true means of seeds, from values (S, N); never negative."""
    seeds, rows = values.shape
    means = values.mean(1)
    rest = values - means[:, None] - values.mean(0) + values.mean()
    noise = float(rest.square().sum()) / ((seeds - 1) * (rows - 1))
    return max(float(means.var()) - noise / rows, 0.0)
