"""`suggest`: a likelihood for data by their values, and the reason in a sentence.

The first rule below that applies decides. Each rule uses the marginal distributions of columns and not their
dependence, which is for the model to learn: a suggestion is a first likelihood, and posterior predictive checks show
what to change.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pyro_vae import families as known
from pyro_vae.core.calls import explained
from pyro_vae.core.formatting import abbreviate, in_python
from pyro_vae.data.profile import Array, ColumnProfile, names_of, skewness_of
from pyro_vae.data.rows import Rows
from pyro_vae.families import Family

MOST_NAMES = 6
"""Names of columns that a sentence lists."""


@dataclass(frozen=True, repr=False)
class Suggestion:
    """A likelihood for some data, and the reason.

    Args:
        family: the likelihood.
        reason: a sentence.
        alternatives: other families that the data allow.
        notes: sentences on missing values, constant columns and zeros.
        columns: names of columns by kind, where the columns are of different kinds.
        event_shape: the shape of one row.
    """

    family: Family
    reason: str
    alternatives: tuple[Family, ...] = ()
    notes: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    event_shape: tuple[int, ...] = ()

    @property
    def line(self) -> str:
        """The line to paste."""
        return f"vae = pv.VAE(event_shape={self.event_shape}, latent_dim=2, likelihood={in_python(self.family)})"

    def __repr__(self) -> str:
        """Show the family, the sentence, the line to paste, and what else there is to say."""
        lines = [f"{type(self.family).__name__}: {self.reason}", f"    {self.line}"]
        if self.alternatives:
            lines.append("or  " + ", ".join(f"likelihood={in_python(family)}" for family in self.alternatives))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@explained
def suggest(x: Any) -> Suggestion:
    """Likelihood suggested for data, with the reason in a sentence.

    It uses the values (integer, bounded, positive, shares) and their spread, and cannot know what they mean. Angles are
    not guessed: take `VonMises()` for them. Labels and ordered levels have the same values: both are named.

    Args:
        x: rows (N, *event_shape): a tensor, an array, a DataFrame or whatever `fit` takes. NaN is a missing value.

    Returns:
        The suggestion; print it.

    Raises:
        InputError: x does not hold rows of numbers, has an infinite value, or has no observed value.

    >>> suggest([[0, 1], [1, 1], [0, 0]])
    Bernoulli: every value is 0 or 1.
        vae = pv.VAE(event_shape=(2,), latent_dim=2, likelihood=pv.Bernoulli())
    """
    rows = Rows.of(x)
    if rows.dynamic:
        reason = "every batch draws new binary values (dynamic binarisation)."
        return Suggestion(known.Bernoulli(), reason, event_shape=rows.event_shape)
    data = ColumnProfile.of(rows, names_of(rows))
    found = next(suggestion for rule in RULES if (suggestion := rule(data)) is not None)
    notes = (*found.notes, *_about_missing(data), *_about_constants(data))
    return replace(found, notes=notes, event_shape=data.event_shape)


# ---- the rules -----------------------------------------------------------------------------------------------------


def _shares(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for rows that sum to one."""
    if not data.event_shape or data.event_shape[-1] < 2 or np.isnan(data.x).any() or data.range[0] < 0:
        return None
    sums = data.x.reshape(-1, data.event_shape[-1]).sum(-1)
    if np.abs(sums - 1).max() > 1e-4:
        return None
    if data.is_integer.all():
        return Suggestion(known.OneHot(), "every row has a single 1 among zeros: a label as indicators.")
    if data.is_array:
        return None
    notes = []
    if data.range[0] == 0:
        notes.append(
            "some shares are exactly 0, where these families have no density: give x = (x + c) / (x + c).sum(-1, "
            "keepdims=True), with c about half of the smallest share above 0."
        )
    reason = "every row is positive and sums to one: shares of a whole."
    return Suggestion(known.Dirichlet(), reason, (known.LogisticNormal(),), tuple(notes))


def _mixed(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for columns of different kinds."""
    kinds = data.kinds
    if len(kinds) < 2 or set(kinds) == {"binary", "levels"}:
        return None
    words = {"binary": "0 or 1", "levels": "labels or levels", "counts": "counts", "real": "real numbers"}
    listed = "; ".join(f"{words[kind]}: {abbreviate(names, MOST_NAMES)}" for kind, names in kinds.items())
    return Suggestion(
        known.Normal(scale="per_feature"),
        f"the columns are of different kinds ({listed}), and one family describes them all alike. Normal takes every "
        "column for a real number, which is not a model of integers.",
        notes=("fit the kinds separately where possible, x[:, columns], each with the family suggested for it.",),
        columns=kinds,
    )


def _binary(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for zeros and ones."""
    return Suggestion(known.Bernoulli(), "every value is 0 or 1.") if set(data.kinds) == {"binary"} else None


def _pixels(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for integers from 0 to 255 in arrays."""
    low, high = data.range
    array = data.is_array or data.is_uint8 or (high == 255 and len(data.names) >= 64)
    if not (array and data.is_integer.all() and low >= 0 and 1 < high <= 255):
        return None
    levels = int(high) + 1
    bins = 256 if levels > 64 else levels
    reason = f"integers from {low:g} to {high:g}: levels of pixels"
    families = (known.Categorical(classes=levels), known.DiscretizedLogistic(bins=bins))
    if levels <= 16:
        return Suggestion(families[0], f"{reason}, few enough for a probability of each.", families[1:])
    others = () if bins == 256 else families[:1]
    return Suggestion(families[1], f"{reason}, whose order has a meaning.", others)


def _levels(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for labels, or ordered levels."""
    if "levels" not in data.kinds:
        return None
    low, high = (int(end) for end in data.range)
    notes = (f"the smallest is {low}: x - {low} starts at 0 and needs {low} classes less.",) if low > 0 else ()
    return Suggestion(
        known.Categorical(classes=high + 1),
        f"integers from {low} to {high} that stop there, as counts would not. Are they names, or does their order "
        f"have a meaning? Names are Categorical, ordered levels OrderedLogistic, successes among {high} trials "
        "Binomial: the numbers alone cannot say.",
        (known.OrderedLogistic(levels=high + 1), known.Binomial(high)),
        notes,
    )


def _counts(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for integers without a bound."""
    if set(data.kinds) != {"counts"}:
        return None
    index, mean = data.dispersion, data.mean
    over = index > 1.5 and index - 1 > 5 * math.sqrt(2 / np.isfinite(data.columns).sum())
    fitted = (data.size / (data.size + mean)) ** data.size if over else np.exp(-mean)
    seen = np.isfinite(data.columns)
    zeros = (data.columns == 0).sum(0) / seen.sum(0)
    excess, share = float(np.mean(zeros - fitted)), float(np.mean(zeros))
    notes = _about_sizes(data)
    if excess > max(0.05, 5 * math.sqrt(share * (1 - share) / seen.sum())):
        base: Family = known.NegativeBinomial() if _positive_dispersion(data) > 1.5 else known.Poisson()
        reason = (
            f"counts with {share:.0%} zeros, where a {'NegativeBinomial' if over else 'Poisson'} of their mean and "
            f"variance would have {share - excess:.0%}."
        )
        notes = (*notes, "latents may explain the zeros: compare with the family alone.")
        return Suggestion(known.ZeroInflated(base), reason, (base,), notes)
    if over:
        reason = f"counts whose variance is {index:.3g} times their mean, where a Poisson's is its mean."
        notes = (*notes, "latents explain a part of that variance; a dispersion near 0 gives Poisson back.")
        return Suggestion(known.NegativeBinomial(dispersion="per_feature"), reason, (known.Poisson(),), notes)
    reason = f"counts whose variance is {index:.3g} times their mean, as a Poisson's is about 1 times."
    return Suggestion(known.Poisson(), reason, (known.NegativeBinomial(),), notes)


def _unit(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for numbers between 0 and 1."""
    low, high = data.range
    if not (low >= 0 and 0.5 < high <= 1):
        return None
    if low > 0 and high < 1:
        reason = f"every value lies strictly between 0 and 1 ({low:.2g} to {high:.2g})."
        return Suggestion(known.Beta(), reason, (known.LogitNormal(),))
    ends = " and ".join(f"{end:g}" for end in (low, high) if end in (0, 1))
    steps = next((k for k in (3, 7, 15, 16, 31, 63, 255) if _near_whole(data.x * k)), None)
    notes = ["to model them as binary instead, draw pixels anew: pv.data.load(..., binarize='dynamic'), Bernoulli()."]
    others: tuple[Family, ...] = ()
    if steps is not None:
        others = (known.DiscretizedLogistic(bins=steps + 1),)
        notes.append(
            f"they are {steps + 1} levels over {steps}: the alternative takes x * {steps}, the integers of "
            f"pv.data.load(..., levels={steps + 1})."
        )
    return Suggestion(
        known.ContinuousBernoulli(),
        f"values from 0 to 1 with exact {ends} among them, where Beta and LogitNormal have no density.",
        others,
        tuple(notes),
    )


def _zeros(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for positive numbers, and exact zeros."""
    if data.range[0] != 0:
        return None
    share = float((data.columns == 0).sum() / np.isfinite(data.columns).sum())
    if share < 0.01 and data.skewness < _skewed(data):
        return None
    smallest = float(data.columns[data.columns > 0].min())
    return Suggestion(
        known.Censored(known.Normal(scale=_scale(data)), low=0.0),
        f"positive numbers and {share:.1%} exact zeros, where the families of positive numbers have no density. "
        "Censored takes a zero for what a Normal would have put below it (a tobit model).",
        notes=(
            "where a zero means nothing happened, model its presence, (x > 0), by itself under Bernoulli(), and the "
            "rest with a mask under LogNormal(); where it is a rounded small number, add an offset, "
            f"x + {smallest / 2:.2g}, and take LogNormal().",
        ),
    )


def _positive(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for positive and skewed numbers."""
    if data.range[0] <= 0 or data.skewness < _skewed(data):
        return None
    logs = skewness_of(np.log(data.columns))
    families: tuple[Family, ...] = (known.LogNormal(scale="learned"), known.Gamma(concentration="learned"))
    if logs < -0.25 * data.skewness:
        families = families[::-1]
    return Suggestion(
        families[0],
        f"positive numbers with a long right tail (skewness {data.skewness:.2g}, of their logarithms {logs:.2g}).",
        families[1:],
    )


def _heavy(data: ColumnProfile) -> Suggestion | None:
    """Suggestion for tails heavier than a Gaussian's."""
    rounding = np.random.default_rng(0).uniform(-0.5, 0.5, data.columns.shape) * data.is_integer[data.varies]
    outer, upper, lower, inner = np.nanquantile(data.columns + rounding, [0.975, 0.75, 0.25, 0.025], axis=0)
    usable = upper > lower
    if not usable.any():
        return None
    ratio = float(np.mean((outer - inner)[usable] / (upper - lower)[usable]))
    error = 4.3 / math.sqrt(np.isfinite(data.columns[:, usable]).sum())
    if ratio < 3.35 + 3 * error:
        return None
    return Suggestion(
        known.StudentT(df="learned", scale=_scale(data)),
        f"real numbers with heavy tails: their middle 95% is {ratio:.2g} times as wide as their middle half, and a "
        "Gaussian's 2.9 times.",
        (known.Normal(scale=_scale(data)),),
    )


def _normal(data: ColumnProfile) -> Suggestion:
    """Suggestion for real numbers."""
    scale = _scale(data)
    why = "" if scale == "learned" else ", in columns of different spreads: one noise scale for each"
    rest = data.is_integer.all() and data.kinds.keys() == {"real"}
    kind = "integers that vary otherwise than counts do, taken for real ones" if rest else "real numbers"
    return Suggestion(known.Normal(scale=scale), f"{kind} without heavy tails{why}.")


RULES: tuple[Callable[[ColumnProfile], Suggestion | None], ...] = (
    _shares,
    _pixels,
    _mixed,
    _binary,
    _levels,
    _counts,
    _unit,
    _zeros,
    _positive,
    _heavy,
    _normal,
)
"""The rules, in the order in which they are tried."""


# ---- helpers of the rules --------------------------------------------------------------------------------------------


def _scale(data: ColumnProfile) -> Any:
    """Scale parameter: "learned", or "per_feature" where the spreads of columns differ."""
    spread = np.sqrt(data.variance)
    columns = len(data.event_shape) == 1 and spread.min() > 0
    return "per_feature" if columns and spread.max() > 3 * spread.min() else "learned"


def _skewed(data: ColumnProfile) -> float:
    """Smallest skewness that is significant among so few rows."""
    return 0.5 + 2 * math.sqrt(6 / len(data.x))


def _near_whole(x: Array) -> bool:
    return bool(np.nanmax(np.abs(x - np.round(x))) < 1e-3)


def _positive_dispersion(data: ColumnProfile) -> float:
    """Ratio of the variance of counts above 0 to that of a Poisson without zeros and of the same mean."""
    above = np.where(data.columns > 0, data.columns, np.nan)
    several = np.isfinite(above).sum(0) > 1
    above, rate = above[:, several], data.rate_above_zero[several]
    mean = np.nanmean(above, 0)
    return float(np.nanvar(above, 0).sum() / max((mean * (1 + rate - mean)).sum(), 1e-300))


def _about_sizes(data: ColumnProfile) -> tuple[str, ...]:
    """Note on rows that differ in their totals, as under unequal depths or exposures."""
    totals = np.nansum(data.x, 1)
    if len(data.names) < 10 or data.missing.any() or totals.min() <= 0:
        return ()
    low, high = np.quantile(totals, [0.05, 0.95])
    if high < 3 * low:
        return ()
    return (
        f"the rows' totals differ {high / low:.2g}-fold: where that is exposure and no signal, give "
        "{'x': x, 'size_factor': x.sum(1) / x.sum(1).mean()}.",
    )


def _about_missing(data: ColumnProfile) -> tuple[str, ...]:
    total = int(data.missing.sum())
    if not total:
        return ()
    empty = [name for name, low in zip(data.names, data.low, strict=True) if math.isnan(low)]
    words = (f"{total} values are missing: give {{'x': x, 'mask': torch.isfinite(x)}}, and they are left out.",)
    return (*words, *([f"nothing is observed of {_columns(empty)}: leave out."] if empty else []))


def _about_constants(data: ColumnProfile) -> tuple[str, ...]:
    names = [name for name, same in zip(data.names, data.low == data.high, strict=True) if same]
    if not names:
        return ()
    what = f"{len(names)} of {len(data.names)} elements" if data.is_array else _columns(names)
    advice = "." if data.is_array else ": leave out what is constant."
    return (
        f"the same in every row: {what}. It has no information, and a density there grows to its scale's floor{advice}",
    )


def _columns(names: list[str]) -> str:
    return f"column{'s' * (len(names) > 1)} {abbreviate(names, MOST_NAMES)}"
