"""Summaries of predictive checks in sentences. No check is said to be passed: a misfit may have been missed."""

import json
import math
from typing import Any

import numpy as np
from xarray import DataTree

from pyro_vae.core.calls import explained
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.sampler import KINDS
from pyro_vae.criticism.test_statistics import ScalarStatistic

FDR_LEVEL = 0.05
"""Expected share of false discoveries among the test statistics that are reported as significant."""

LEVEL = 0.9
"""Content of the central interval whose coverage is reported."""

CERTAIN = 3.0
"""Standard errors by which coverage must differ from its level to be reported."""

MIN_ROWS = 50
"""Minimum number of rows behind a statement on coverage: with fewer, all values can lie inside by chance."""

SHOWN = 8
"""Maximum number of test statistics with a sentence of their own."""


def comparison_sentence(
    statistic: ScalarStatistic, observed: float, replicated: float, p_value: float, above: float, draws: int
) -> str:
    """Sentence that compares one test statistic of the data with that of replicates.

    Args:
        statistic: the test statistic.
        observed: its value for the data.
        replicated: its median over replicates.
        p_value: the two-sided tail probability.
        above: the share of replicates above the data.
        draws: the number of replicates.

    >>> zeros = ScalarStatistic("zeros", "share of zeros", "feature", 100, True)
    >>> comparison_sentence(zeros, 0.47, 0.62, 0.004, 1.0, 499)
    'Replicates have a 32 % larger share of zeros than the data (0.62 against 0.47): p <= 0.004.'
    """
    label, p = statistic.label, format_p_value(p_value, least=2 / (draws + 1))
    if statistic.scope == "discrepancy":
        side, share = "smaller" if above < 0.5 else "larger", format_percent(max(above, 1 - above), 1)
        return f"In {share} of draws replicates have a {side} {label} than the data: {p}."
    numbers = f"({replicated:.3g} against {observed:.3g}): {p}."
    if replicated == observed:
        return f"Replicates have the {label} of the data {numbers}"
    by, side = abs(replicated - observed), "larger" if replicated > observed else "smaller"
    if statistic.ratio and observed > 0 and replicated >= 0 and by < 10 * observed:
        return f"Replicates have a {format_percent(by / observed)} {side} {label} than the data {numbers}"
    return f"Replicates have a {label} that is {by:.3g} {side} than the data's {numbers}"


def format_percent(share: float, digits: int = 0) -> str:
    """Share in percent.

    >>> format_percent(0.315, 1)
    '31.5 %'
    """
    return f"{100 * share:.{digits}f} %"


@explained
def findings(tree: DataTree) -> list[str]:
    """Sentences that summarise a predictive check, the most significant findings first.

    Args:
        tree: the tree that `pv.predictive_check` returned, or one read from a file.

    Returns:
        What was compared, notes, significant test statistics, calibration, and two-sample tests.

    >>> import pyro_vae as pv, torch
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(0.0, None), encoder=pv.MLP(hidden=(8,)))
    >>> findings(pv.predictive_check(vae, torch.randn(60, 3), draws=30))[0]
    '30 population replicates (new data: z ~ p(z), x ~ p(x|z)) of 60 rows.'
    """
    attrs = tree.attrs
    data = json.loads(attrs["data"])
    split = f" ({data['split']} split of {data['data']})" if {"split", "data"} <= set(data) else ""
    kind = attrs["kind"]
    found = [f"{attrs['draws']} {kind} replicates ({KINDS[kind]}) of {attrs['rows']} rows{split}."]
    return [
        *found,
        *json.loads(attrs["notes"]),
        *_describe_statistics(tree),
        *_describe_calibration(tree),
        *_describe_two_sample(tree),
    ]


def order_by_significance(checks: Any) -> list[int]:
    """Indices of the statistics in a group `checks`, by q-value, then by distance in standard deviations."""
    gap, sd = abs(checks["observed"] - checks["mean"]).to_numpy(), checks["sd"].to_numpy()
    far = np.divide(gap, sd, out=np.where(gap > 0, np.inf, 0.0), where=sd > 0)
    by = np.nan_to_num(checks["q_value"].to_numpy(), nan=np.inf)
    return [int(at) for at in np.lexsort((-np.nan_to_num(far, nan=-np.inf), by))]


def significant(tree: Any) -> list[int]:
    """Indices of a tree's test statistics significant at a false discovery rate of 5 %, the most significant first."""
    q_values = tree["checks"]["q_value"].to_numpy()
    return [at for at in order_by_significance(tree["checks"]) if q_values[at] < FDR_LEVEL]


def _describe_statistics(tree: Any) -> list[str]:
    checks, draws = tree["checks"], int(tree.attrs["draws"])
    ordered, count = significant(tree), checks.sizes["statistic"]
    found = []
    if not ordered:
        found.append(
            f"None of {count} test statistics stands out at a false discovery rate of 5 %: no sign of a misfit in what "
            "they measure, which does not prove that the model is right."
        )
    else:
        found.append(f"{len(ordered)} of {count} test statistics stand out at a false discovery rate of 5 %.")
        found += [str(checks["sentence"].values[at]) for at in ordered[:SHOWN]]
        if len(ordered) > SHOWN:
            names = [str(checks["statistic"].values[at]) for at in ordered[SHOWN:]]
            more = f"; and {len(names) - 12} more" if len(names) > 12 else ""
            found.append(f"Further ones: {'; '.join(names[:12])}{more}.")
    least = 2 / (draws + 1)
    if least * count > FDR_LEVEL and bool(((checks["p_value"] <= least) & (checks["q_value"] >= FDR_LEVEL)).any()):
        found.append(
            f"{draws} replicates are too few for some of {count} test statistics to stand out: take draws={40 * count}."
        )
    return found


def _describe_calibration(tree: Any) -> list[str]:
    part = tree["calibration"]
    values = int(part["values"].sum())
    if not values:
        return ["No value is observed, so calibration is unknown."]
    found = [f"{format_coverage(part, LEVEL)}: {describe_coverage(tree)[1]}."]
    failed = np.flatnonzero((part["pit_q_value"].values < FDR_LEVEL) & (tree.attrs["kind"] != "posterior"))
    count = part.sizes["feature"]
    if len(failed) and count > 1:
        worst = failed[np.argsort(part["pit_p_value"].values[failed])][:5]
        names = ", ".join(str(part["feature"].values[at]) for at in worst)
        of_them = "the worst of them" if len(failed) > len(worst) else "they are"
        found.append(f"The distribution of {len(failed)} of {count} features is off ({of_them} {names}).")
    elif len(failed):
        found.append("The distribution of the values is off.")
    return found


def format_coverage(calibration: Any, level: float) -> str:
    """Sentence on the coverage of central intervals of a level, by a group `calibration`, with its standard error."""
    at = calibration.sel(level=level, method="nearest")
    share, error = float(at["coverage_overall"]), float(at["coverage_error"])
    sized = "" if math.isnan(error) else f" +- {format_percent(error, 1)}"
    return f"{100 * level:g} % intervals hold {format_percent(share, 1)}{sized} of the values"


def describe_coverage(tree: Any) -> tuple[str, str]:
    """Word, empty if there is none, and sentence on whether a tree's intervals are too narrow or too wide."""
    part = tree["calibration"]
    gap = part["coverage_overall"].values - part["level"].values
    sides = np.sign(gap) * (np.abs(gap) > CERTAIN * part["coverage_error"].values)
    rows = int(part["values"].max())
    if np.isnan(part["coverage_error"].values).all():
        return "", "rows share a latent, so that their coverage is known without its error"
    if rows < MIN_ROWS:
        return "", f"{rows} rows are too few to decide whether distributions are too narrow or too wide"
    if (sides < 0).any() and (sides > 0).any():
        return "of the wrong shape", "intervals are too narrow at some levels and too wide at others"
    if (sides < 0).any():
        return "overconfident", "the model is overconfident, its distributions too narrow"
    if tree.attrs["kind"] == "posterior":
        return "conservative", "replicates have seen the values, so the right model covers more than its level, too"
    if (sides > 0).any():
        return "underconfident", "the model is underconfident, its distributions too wide"
    return "", "no sign of distributions that are too narrow or too wide"


def _describe_two_sample(tree: Any) -> list[str]:
    if "two_sample" not in tree.children:
        return []
    part = {name: float(value) for name, value in tree["two_sample"].data_vars.items() if not value.ndim}
    seen = " though they have seen these rows" if tree.attrs["kind"] == "posterior" else ""
    accuracy, p_value = part["classifier_accuracy"], part["classifier_p_value"]
    times, p = f"{format_percent(accuracy, 1)} of the time", format_p_value(p_value)
    if p_value < FDR_LEVEL:
        found = f"A classifier distinguishes replicates from data {times} ({p})"
        importance = tree["two_sample"]["importance"].values
        if np.isfinite(importance).all() and len(importance) > 1:
            names = [str(tree["two_sample"]["feature"].values[at]) for at in np.argsort(-importance)[:3]]
            found += f", most of all by {', '.join(names)}"
    else:
        seen = ", which have seen these rows" if seen else ""
        found = f"A classifier does not distinguish replicates from data ({times}, {p})"
    coverage, expected = part["coverage"], part["coverage_expected"]
    return [
        f"{found}{seen}.",
        f"Replicates lie near {format_percent(coverage)} of the data ({format_percent(expected)} if they were data); "
        f"their density among the data is {part['density']:.2f} (1 if they were).",
    ]
