"""Families of counts: events in a time or a volume, successes among trials.

A count x has a size that is known beforehand: how long was counted, how deep a cell was sequenced, how many trials
there were. `size_factor` gives it for each row, and multiplies what a family calls its size: the rate or mean m of
an open count, the number n of trials of a closed one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.distributions import constraints
from pyro_vae.distributions.counts import (
    ExactNegativeBinomial,
    ExactPoisson,
    UnexpandedBetaBinomial,
    UnexpandedBinomial,
)
from pyro_vae.families.base import Family, Source, parameter
from pyro_vae.families.units import log_spread

RATES = constraints.Bounded(1e-4, 1e8)
"""Counts expected per unit of the size factor, beyond the largest count that float32 holds exactly, 2^24."""

DISPERSIONS = constraints.Bounded(1e-8, 1e3)
"""Dispersions, down to where the variance of the largest counts that float32 holds exactly is a Poisson's."""

PSEUDO_COUNTS = constraints.Bounded(1e-2, 1e3)
"""Pseudo-counts of successes and failures."""

TRIALS = constraints.IntegerInterval(1, 2**24)
"""Numbers of trials, up to where float32 still represents every integer."""


def _rate(x: Tensor, family: Family) -> Tensor:
    counted = x[x > 0]
    smallest = counted.amin() if len(counted) else x.new_ones(())
    # An element that never counted starts as if it had counted half an event; any other has counted more.
    mean = x.mean(0).clamp(min=smallest / (2 * len(x)))
    return mean.clamp(2 * RATES.lower_bound, RATES.upper_bound / 2)


def _dispersion(x: Tensor, family: Family) -> Tensor:
    mean = _rate(x, family)
    least = (1 / mean).clamp(max=0.01)  # where a Poisson's variance and what is beyond it are as large
    return ((x.var(0, correction=0) - mean) / mean**2).clamp(max=10).maximum(least)


@dataclass(frozen=True)
class Poisson(Family):
    r"""Independent counts of events that happen on their own.

    $$ p(x) = \prod_j \frac{m_j^{x_j}}{x_j!}\,e^{-m_j}, \qquad x_j \in \{0, 1, 2, \dots\} $$

    Mean and variance are equal; `NegativeBinomial` allows a larger variance, as most data want. A log-density is
    exact to 1e-3 nats, or 1e-5 of itself, for counts up to 1e7 in float32.

    References:
        McCullagh and Nelder, Generalized Linear Models, 1989 [mccullagh1989].

    Args:
        rate: the mean m, of the event's shape, in counts per unit of the size factor, in [1e-4, 1e8]: take size
            factors of about 1, such as each row's total over its average.

    >>> Poisson(rate="per_feature")
    Poisson(rate='per_feature')
    """

    rate: Source = parameter(
        RATES, init=_rate, raw_spread=lambda x, family: log_spread(x), scales_with_size_factor=True
    )
    distribution = ExactPoisson
    is_count = True
    fix_hint = (
        "counts are integers from 0 on, so undo a scaling or a logarithm, or take a family for real values such "
        "as Normal(scale='learned'); what multiplies a row's counts is its size_factor"
    )
    roles = ("likelihood",)
    data_kind = "Counts"
    support_text = "integers 0, 1, ..."


@dataclass(frozen=True)
class NegativeBinomial(Family):
    r"""Independent counts whose variance is larger than their mean: Poisson counts of a Gamma rate.

    $$ p(x) = \prod_j \frac{\Gamma(x_j + 1/a_j)}{\Gamma(1/a_j)\,x_j!} \Big(\frac{1}{1 + a_j m_j}\Big)^{1/a_j}
       \Big(\frac{a_j m_j}{1 + a_j m_j}\Big)^{x_j}, \qquad \mathrm{Var}\,x_j = m_j + a_j m_j^2 $$

    A dispersion near 0 gives `Poisson` back. `NegativeBinomial(dispersion="per_feature")` is the usual likelihood of
    gene expression, one dispersion for each gene.

    References:
        Hilbe, Negative Binomial Regression, 2011 [hilbe2011]. Lopez et al., Deep generative modeling for single-cell
            transcriptomics, 2018 [lopez2018], https://doi.org/10.1038/s41592-018-0229-2.

    Args:
        mean: the mean m, of the event's shape, in counts per unit of the size factor, in [1e-4, 1e8]: take size
            factors of about 1, such as each row's total over its average.
        dispersion: the dispersion a, of the event's shape, without a unit, in [1e-8, 1e3].

    >>> NegativeBinomial(dispersion="per_feature")
    NegativeBinomial(mean=None, dispersion='per_feature')
    """

    mean: Source = parameter(
        RATES, init=_rate, raw_spread=lambda x, family: log_spread(x), scales_with_size_factor=True
    )
    dispersion: Source = parameter(DISPERSIONS, init=_dispersion)
    is_count = True
    fix_hint = Poisson.fix_hint
    roles = ("likelihood",)
    data_kind = "Counts"
    support_text = "integers 0, 1, ..."

    distribution = ExactNegativeBinomial


def _total(x: Tensor, family: Any) -> Tensor:
    return torch.as_tensor(family.total_count, dtype=x.dtype, device=x.device)


def _log_odds(x: Tensor, family: Family) -> Tensor:
    successes = x.sum(0)
    failures = (len(x) * _total(x, family) - successes).clamp(min=0)  # rounding of x / size_factor
    return torch.log(successes + 0.5) - torch.log(failures + 0.5)


def _logit_spread(x: Tensor, family: Family) -> Tensor:
    odds = _log_odds(x, family)
    slope = _total(x, family) * torch.sigmoid(odds) * torch.sigmoid(-odds)  # of the mean, and the trials' own variance
    return (3 * torch.maximum(x.var(0, correction=0), slope).sqrt() / slope).clamp(max=1)


def _pseudo_counts(sign: int, x: Tensor, family: Family) -> Tensor:
    odds = _log_odds(x, family)
    success, failure = torch.sigmoid(odds), torch.sigmoid(-odds)
    variance = (x / _total(x, family)).var(0, correction=0)
    pseudo = (success * failure / variance - 1).clamp(1, 100)  # the trials' own noise makes it no larger
    return (torch.sigmoid(sign * odds) * pseudo).clamp(min=2 * PSEUDO_COUNTS.lower_bound)


@dataclass(frozen=True)
class Binomial(Family):
    r"""Independent numbers of successes among n trials.

    $$ p(x) = \prod_j \binom{n_j}{x_j}\,\sigma(l_j)^{x_j}\,(1 - \sigma(l_j))^{n_j - x_j},
       \qquad x_j \in \{0, \dots, n_j\} $$

    `Binomial(10)` has ten trials in each row; trials that differ between rows are given as `size_factor`, which
    multiplies n, an integer in each row.

    References:
        McCullagh and Nelder, Generalized Linear Models, 1989 [mccullagh1989].

    Args:
        total_count: the number n of trials per unit of the size factor, of the event's shape: an integer from 1
            on, never trained.
        logits: the log odds l of a success, of the event's shape.

    >>> Binomial(10)
    Binomial(total_count=10.0, logits=None)
    """

    total_count: Source = parameter(TRIALS, 1.0, scales_with_size_factor=True)
    logits: Source = parameter(constraints.real, init=_log_odds, raw_spread=_logit_spread)
    distribution = UnexpandedBinomial
    fix_hint = (
        "successes are integers from 0 to the number of trials, so raise total_count to that number (or give "
        "each row's as size_factor, an integer), or take a family of counts without a bound such as Poisson()"
    )
    roles = ("likelihood",)
    data_kind = "Counts"
    support_text = "integers 0 to total_count"


@dataclass(frozen=True)
class BetaBinomial(Family):
    r"""Independent numbers of successes among n trials, whose probability is itself drawn from a Beta distribution.

    $$ p(x) = \prod_j \binom{n_j}{x_j} \frac{B(x_j + a_j,\; n_j - x_j + b_j)}{B(a_j, b_j)},
       \qquad x_j \in \{0, \dots, n_j\} $$

    It varies more than `Binomial` for n above 1, and for n = 1 it is a Bernoulli of odds a/b: one trial tells
    nothing of a + b.

    References:
        Griffiths, Maximum Likelihood Estimation for the Beta-Binomial Distribution, 1973 [griffiths1973].

    Args:
        total_count: the number n of trials per unit of the size factor, of the event's shape: an integer from 1
            on, never trained. See `Binomial` for trials that differ between rows.
        concentration1: the pseudo-count a of successes, of the event's shape, in [1e-2, 1e3].
        concentration0: the pseudo-count b of failures, of the event's shape, in [1e-2, 1e3].

    >>> BetaBinomial(10, concentration0="per_feature")
    BetaBinomial(total_count=10.0, concentration1=None, concentration0='per_feature')
    """

    total_count: Source = parameter(TRIALS, 1.0, scales_with_size_factor=True)
    concentration1: Source = parameter(PSEUDO_COUNTS, init=lambda x, family: _pseudo_counts(1, x, family))
    concentration0: Source = parameter(PSEUDO_COUNTS, init=lambda x, family: _pseudo_counts(-1, x, family))
    distribution = UnexpandedBetaBinomial
    fix_hint = Binomial.fix_hint
    roles = ("likelihood",)
    data_kind = "Counts"
    support_text = "integers 0 to total_count"
