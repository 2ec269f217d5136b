"""Comparing models: who gives the same held-out rows the larger log p(x), and by how much for certain.

Rows are hard or easy for all models alike, so it is their differences, row by row, that tell models apart; and two
seeds of one specification differ too, so a specification is judged by several of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.criticism.evidence import Evidence

if TYPE_CHECKING:
    from pandas import DataFrame

LEVEL = 0.95
"""The share of intervals that hold the truth."""

FEW_SEEDS = 5
"""Seeds below which the interval of a group says why it is wide."""

ROWS = "measure them on the same rows, in the same order and binarised by the same seed"


@dataclass(frozen=True)
class Estimate:
    """A number in nats per row, with its error and a 95 % interval.

    Args:
        value: the estimate.
        over_rows: its standard error as one for all data such rows are drawn from.
        over_seeds: its standard error as one for all trainings; 0 with one seed, where it cannot be known.
        half: half of the interval's width.
    """

    value: float
    over_rows: float
    over_seeds: float
    half: float

    @property
    def error(self) -> float:
        """The standard error."""
        return math.hypot(self.over_rows, self.over_seeds)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.value - self.half, self.value + self.half


@dataclass(frozen=True)
class Standing:
    """One model in a comparison.

    Args:
        name: of the model, or of a group of seeds.
        seeds: the number S of seeds.
        log_p: the mean of log p(x) over rows and seeds.
        difference: its difference to the best, row by row; 0 for the best. Negative: this model is worse.
        over_draws: the part of the error of `log_p` that draws make; the rows' spread holds it already.
        warning: why its numbers cannot be trusted; empty where nothing speaks against them.
    """

    name: str
    seeds: int
    log_p: Estimate
    difference: Estimate
    over_draws: float
    warning: str = ""

    @property
    def apart(self) -> bool:
        """Whether the interval of the difference to the best leaves 0 out."""
        return abs(self.difference.value) > self.difference.half


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    r"""Models by their mean log p(x) of the same N rows, best first, and their differences to the best.

    For $y_{sn}$, log p(x) of row n under seed s of a specification, take rows and seeds as drawn at random:
    $y_{sn} = \mu + a_s + b_n + c_{sn}$. All seeds see the same rows, so that

    $$ \mathrm{Var}(\bar y) = \frac{\sigma_a^2}{S} + \frac{\sigma_b^2}{N} + \frac{\sigma_c^2}{SN}
       = \frac{\sigma_a^2}{S} + \frac{\mathrm{Var}_n(\bar y_{\cdot n})}{N}, \qquad
       \hat\sigma_a^2 = \Big(\mathrm{Var}_s(\bar y_{s\cdot}) - \frac{\hat\sigma_c^2}{N}\Big)_+ $$

    with $\hat\sigma_c^2$ the mean square of what is left after means of rows and of seeds. The difference of two
    groups has the rows' variance of its own row means, and the sum of both groups' $\sigma_a^2 / S$, for seeds of
    different specifications have nothing in common. An interval takes each variance v with the quantile of
    Student's t of its own degrees of freedom, $\sqrt{\sum_i t_i^2 v_i}$ (Howe): N - 1 for rows and S - 1 for seeds,
    12.7 for two seeds and 4.3 for three. The error over draws is part of every row's number and so of the rows'
    spread; it is told beside the error and not added again. One seed stands for itself, not for its specification.

    References:
        Searle, Casella and McCulloch, Variance Components, 1992 (chapter 4).
        Howe, Approximate Confidence Limits on the Mean of X + Y, 1974, Journal of the American Statistical
        Association 69.
        Vehtari, Gelman and Gabry, Practical Bayesian Model Evaluation, 2017, https://arxiv.org/abs/1507.04544.

    Args:
        standings: the models, best first.
        rows: the number N of rows.
    """

    standings: tuple[Standing, ...]
    rows: int

    @property
    def best(self) -> Standing:
        """The model with the largest mean log p(x)."""
        return self.standings[0]

    @property
    def names(self) -> list[str]:
        """The models' names, best first."""
        return [standing.name for standing in self.standings]

    @property
    def warning(self) -> str:
        """Why the comparison cannot be trusted; empty where nothing speaks against it."""
        return " ".join(f"{standing.name}: {standing.warning}" for standing in self.standings if standing.warning)

    def to_pandas(self) -> "DataFrame":
        """The table as a DataFrame by name, best first, in nats per row, its columns named after those of ArviZ."""
        import pandas  # here, for importing it takes a second

        records = [
            {
                "rank": rank,
                "log_p": at.log_p.value,
                "se": at.log_p.error,
                "difference": at.difference.value,
                "dse": at.difference.error,
                "low": at.difference.interval[0],
                "high": at.difference.interval[1],
                "se_rows": at.log_p.over_rows,
                "se_seeds": at.log_p.over_seeds if at.seeds > 1 else math.nan,
                "se_draws": at.over_draws,
                "seeds": at.seeds,
                "warning": bool(at.warning),
            }
            for rank, at in enumerate(self.standings)
        ]
        return pandas.DataFrame.from_records(records, index=pandas.Index(self.names, name="model"))

    def to_csv(self) -> str:
        """The table as text, with every digit."""
        return str(self.to_pandas().to_csv(lineterminator="\n"))

    def __repr__(self) -> str:
        """Print the table, and what it says."""
        width = max(len("model"), *map(len, self.names))
        head = (
            f"{'model':<{width}}  {'log p(x)':>11} {'error':>7}  {'difference':>10} {'error':>7}  {'95 % interval':<20}"
        )
        lines = [f"{head} seeds"]
        for at in self.standings:
            apart = f"{at.difference.value:>+10.3f} {at.difference.error:>7.2g}  {_told(at.difference):<20}"
            shown = f"{'':>10} {'':>7}  {'':<20}" if at is self.best else apart
            mark = " !" if at.warning else ""
            lines.append(
                f"{at.name:<{width}}  {at.log_p.value:>11.3f} {at.log_p.error:>7.2g}  {shown} {at.seeds:>5}{mark}"
            )
        lines.append(f"Nats per row, mean of {self.rows} rows; differences are to the best, row by row.")
        lines += [self._verdict(at) for at in self.standings[1:]]
        lines.append(self._errors())
        return "\n".join(lines + [f"Warning: {at.name}: {at.warning}" for at in self.standings if at.warning])

    def _verdict(self, at: Standing) -> str:
        doubt = ", by numbers that cannot be trusted" if at.warning or self.best.warning else ""
        if at.apart:
            return f"{self.best.name} is ahead of {at.name} by {-at.difference.value:.3g} nats per row{doubt}."
        return f"{at.name} and {self.best.name} cannot be told apart: the interval of their difference holds 0{doubt}."

    def _errors(self) -> str:
        counts = {at.seeds for at in self.standings}
        alone = [at.name for at in self.standings if at.seeds == 1]
        draws = f"draws make up to {max(at.over_draws for at in self.standings):.2g} of them"
        if counts == {1}:
            return f"Errors are over rows ({draws}); how much another seed would differ is not in them."
        few = min(counts - {1})
        told = f"Errors are over rows and seeds ({draws})."
        if few < FEW_SEEDS:
            told += f" {few} seeds say little of others, so the intervals are wide: Student's t of {few - 1} for them."
        return told + (f" One seed of {', '.join(alone)} stands for itself alone." if alone else "")


def compare(models: Mapping[str, Evidence | Sequence[Evidence]]) -> Comparison:
    """Compare models by their log p(x) of the same held-out rows.

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
    require_same_rows([(name, found) for name, group in groups.items() for found in group])
    values = {name: torch.stack([found.pointwise.double() for found in group]) for name, group in groups.items()}
    for name, value in values.items():
        _require_finite(name, value)
    ordered = sorted(groups, key=lambda name: -float(values[name].mean()))
    best = ordered[0]
    standings = tuple(
        _standing(name, groups[name], values[name], groups[best], None if name == best else values[best])
        for name in ordered
    )
    return Comparison(standings, values[best].shape[1])


def estimate(values: Tensor, reference: Tensor | None = None) -> Estimate:
    """The mean of a group over rows and seeds, less that of another on the same rows; see `Comparison`.

    Args:
        values: log p(x) by seed and row, (S, N).
        reference: that of the other group, (S', N).

    >>> estimate(torch.tensor([[1.0, 2.0, 3.0]])).value
    2.0
    """
    from scipy.stats import t

    sides = [values] if reference is None else [values, reference]
    rows = values.mean(0) if reference is None else values.mean(0) - reference.mean(0)
    over_rows = float(rows.var()) / len(rows)
    parts = [(over_rows, len(rows) - 1)]
    parts += [(_between_seeds(side) / len(side), len(side) - 1) for side in sides if len(side) > 1]
    half = math.sqrt(sum(v * float(t.ppf((1 + LEVEL) / 2, freedom)) ** 2 for v, freedom in parts))
    over_seeds = math.sqrt(sum(v for v, _ in parts[1:]))
    return Estimate(float(rows.mean()), math.sqrt(over_rows), over_seeds, half)


def require_same_measure(sides: Sequence[tuple[str, str, str]]) -> None:
    """Refuse numbers that are no log p(x), or the logarithms of different things.

    Args:
        sides: name, measure and caveat of each.

    Raises:
        InputError: two of them cannot be compared.
    """
    (first, measure, _), *others = sides
    for name, _, caveat in sides:
        if caveat:
            other = next(other for other, _, _ in sides if other != name)
            raise InputError(
                f"{name!r} cannot be compared with {other!r}, for its numbers are no log p(x): {caveat}. Fit it with a "
                "likelihood of its data, such as pv.ContinuousBernoulli() for values in [0, 1]."
            )
    for name, found, _ in others:
        if found != measure:
            raise InputError(
                f"{first!r} and {name!r} cannot be compared: the one gives {measure or 'numbers of unknown kind'}, the "
                f"other {found or 'numbers of unknown kind'}, whose logarithms have no common unit. Fit both with "
                "likelihoods of one kind."
            )


def require_same_rows(sides: Sequence[tuple[str, Evidence]]) -> None:
    """Refuse evidence that was not measured on the same rows, or not as the same kind of number.

    Args:
        sides: evidence with the names of its models.

    Raises:
        InputError: two of them cannot be compared, or there is a single row.
    """
    (first, one), *others = sides
    for name, found in others:
        settings = sorted(set(one.source) | set(found.source))
        told = [key for key in settings if key != "root" and one.source.get(key) != found.source.get(key)]
        if (len(one), one.fingerprint) == (len(found), found.fingerprint):
            continue
        if told:
            here, there = (f"{told[0]}={side.source.get(told[0])!r}" for side in (one, found))
            why = f"the one was measured on data loaded with {here}, the other with {there}"
        elif len(one) != len(found):
            why = f"the one was measured on {len(one)} rows, the other on {len(found)}"
        else:
            why = "they were measured on different rows"
        raise InputError(f"{first!r} and {name!r} cannot be compared: {why}. To compare them, {ROWS}.")
    require_same_measure([(name, found.measure, found.caveat) for name, found in sides])
    if len(one) < 2:
        raise InputError("one row tells nothing of others: compare models on at least 2 rows, better on 1000.")


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
                f"{name!r} is {type(given).__name__} and no evidence, nor a list of it: write {{{name!r}: "
                "pv.evidence(vae, x)}."
            )
        for one, other in combinations(group, 2):
            if torch.equal(one.pointwise, other.pointwise):
                raise InputError(f"the group {name!r} holds one training twice: give each of its seeds once.")
        groups[str(name)] = group
    return groups


def _require_finite(name: str, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        row = int((~value.isfinite()).any(0).to(torch.uint8).argmax())
        raise InputError(
            f"{name!r} gives row {row} a log p(x) of {float(value[:, row].min())}, so it has no mean: no draw reached "
            "that row, or the model rules it out. Take more draws, proposal='defensive', or leave that row out."
        )


def _standing(
    name: str, group: list[Evidence], values: Tensor, best: list[Evidence], reference: Tensor | None
) -> Standing:
    difference = Estimate(0.0, 0.0, 0.0, 0.0) if reference is None else estimate(values, reference)
    doubts = [found for found in group if found.warning]
    warning = max(doubts, key=lambda found: int(found.unreliable.sum())).warning if doubts else ""
    if warning and len(group) > 1:
        warning = f"in {len(doubts)} of {len(group)} seeds, in the worst {warning}"
    biases = [sum(found.bias for found in side) / len(side) for side in (group, best)]
    if reference is not None and abs(biases[0] - biases[1]) > difference.error:
        told = (
            f"its log p(x) is biased by about {biases[0]:.2g} and that of the best by {biases[1]:.2g}, which differ by "
            f"more than the error {difference.error:.2g} of the difference: take more draws."
        )
        warning = f"{warning} {told}".strip()
    over_draws = math.sqrt(sum(found.mean_mcse**2 for found in group)) / len(group)
    return Standing(name, len(group), estimate(values), difference, over_draws, warning)


def _between_seeds(values: Tensor) -> float:
    """The variance of seeds' true means, from values (S, N); never negative."""
    seeds, rows = values.shape
    means = values.mean(1)
    rest = values - means[:, None] - values.mean(0) + values.mean()
    noise = float(rest.square().sum()) / ((seeds - 1) * (rows - 1))
    return max(float(means.var()) - noise / rows, 0.0)


def _told(at: Estimate) -> str:
    low, high = at.interval
    return f"[{low:+.3f}, {high:+.3f}]"
