"""What predictive checks say, in sentences. Nothing is called passed: what was not found may be there all the same."""

import json
from typing import Any

import numpy as np

from pyro_vae.criticism.sampler import KINDS
from pyro_vae.criticism.test_statistics import Quantity

RATE = 0.05
"""The share of false ones among the quantities that are said to stand out."""

LEVEL = 0.9
"""The content of the central interval that sentences speak of."""

CERTAIN = 3.0
"""Standard errors from which coverage counts as too small or too large."""

LEAST_ROWS = 50
"""Rows at least behind a verdict on coverage: of fewer, chance alone can lie inside of all intervals."""

SHOWN = 8
"""Quantities at most with a sentence of their own."""


def sentence(quantity: Quantity, observed: float, replicated: float, p_value: float, above: float, draws: int) -> str:
    """Say how replicates compare with the data in one number.

    Args:
        quantity: what it is.
        observed: the data's value.
        replicated: the replicates' median.
        p_value: the two-sided tail probability.
        above: the share of replicates above the data.
        draws: how many replicates there are.

    >>> sentence(Quantity("zeros", "share of zeros", "feature", 100, True), 0.47, 0.62, 0.004, 1.0, 499)
    'Replicates have a 32 % larger share of zeros than the data (0.62 against 0.47): p <= 0.004.'
    """
    least, label = 2 / (draws + 1), quantity.label
    told = f"p <= {_up(least):g}" if p_value <= least else f"p = {p_value:.2g}"
    if quantity.scope == "discrepancy":
        side, share = "smaller" if above < 0.5 else "larger", percent(max(above, 1 - above), 1)
        return f"In {share} of draws replicates have a {side} {label} than the data: {told}."
    numbers = f"({replicated:.3g} against {observed:.3g}): {told}."
    if replicated == observed:
        return f"Replicates have the {label} of the data {numbers}"
    by, side = abs(replicated - observed), "larger" if replicated > observed else "smaller"
    if quantity.ratio and observed > 0 and replicated >= 0 and by < 10 * observed:
        return f"Replicates have a {percent(by / observed)} {side} {label} than the data {numbers}"
    return f"Replicates have a {label} that is {by:.3g} {side} than the data's {numbers}"


def percent(share: float, digits: int = 0) -> str:
    """A share in percent.

    >>> percent(0.315, 1)
    '31.5 %'
    """
    return f"{100 * share:.{digits}f} %"


def findings(tree: Any) -> list[str]:
    """Say what a predictive check found, the most striking first.

    Args:
        tree: what `pv.predictive_check` returned, or what was saved of it.

    Returns:
        Sentences: what was compared, what to know of it, test quantities that stand out, calibration, what tells
        replicates from data.

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
    return [*found, *json.loads(attrs["notes"]), *_quantities(tree), *_calibration(tree), *_two_sample(tree)]


def ranked(checks: Any) -> list[int]:
    """The numbers of all test quantities, the most striking first: by q-value, then by distance in spreads.

    Args:
        checks: the tree's group.
    """
    gap, sd = abs(checks["observed"] - checks["mean"]).to_numpy(), checks["sd"].to_numpy()
    far = np.divide(gap, sd, out=np.where(gap > 0, np.inf, 0.0), where=sd > 0)
    by = np.nan_to_num(checks["q_value"].to_numpy(), nan=np.inf)
    return [int(at) for at in np.lexsort((-np.nan_to_num(far, nan=-np.inf), by))]


def significant(tree: Any) -> list[int]:
    """The numbers of those that stand out, the most striking first.

    Args:
        tree: what `pv.predictive_check` returned.
    """
    q_values = tree["checks"]["q_value"].to_numpy()
    return [at for at in ranked(tree["checks"]) if q_values[at] < RATE]


def _quantities(tree: Any) -> list[str]:
    checks, draws = tree["checks"], int(tree.attrs["draws"])
    striking, count = significant(tree), checks.sizes["quantity"]
    found = []
    if not striking:
        found.append(
            f"None of {count} test quantities stands out at a false discovery rate of 5 %: no sign of a misfit in what "
            "they look at, which is no proof that the model is right."
        )
    else:
        found.append(f"{len(striking)} of {count} test quantities stand out at a false discovery rate of 5 %.")
        found += [str(checks["sentence"].values[at]) for at in striking[:SHOWN]]
        if len(striking) > SHOWN:
            names = [str(checks["quantity"].values[at]) for at in striking[SHOWN:]]
            more = f"; and {len(names) - 12} more" if len(names) > 12 else ""
            found.append(f"Further ones: {'; '.join(names[:12])}{more}.")
    least = 2 / (draws + 1)
    if least * count > RATE and bool(((checks["p_value"] <= least) & (checks["q_value"] >= RATE)).any()):
        found.append(
            f"{draws} replicates are too few for some of {count} quantities to stand out: take draws={40 * count}."
        )
    return found


def _calibration(tree: Any) -> list[str]:
    part = tree["calibration"]
    values = int(part["values"].sum())
    if not values:
        return ["No value is observed, so nothing is said of calibration."]
    found = [f"{coverage_at(part, LEVEL)}: {verdict(tree)[1]}."]
    failed = np.flatnonzero((part["pit_q_value"].values < RATE) & (tree.attrs["kind"] != "posterior"))
    count = part.sizes["feature"]
    if len(failed) and count > 1:
        worst = failed[np.argsort(part["pit_p_value"].values[failed])][:5]
        names = ", ".join(str(part["feature"].values[at]) for at in worst)
        of_them = "the worst of them" if len(failed) > len(worst) else "they are"
        found.append(f"The distribution of {len(failed)} of {count} features is off ({of_them} {names}).")
    elif len(failed):
        found.append("The distribution of the values is off.")
    return found


def coverage_at(calibration: Any, level: float) -> str:
    """What central intervals of some content hold, with the error.

    Args:
        calibration: the tree's group.
        level: the content.
    """
    at = calibration.sel(level=level, method="nearest")
    share, error = float(at["coverage_overall"]), float(at["coverage_error"])
    return f"{100 * level:g} % intervals hold {percent(share, 1)} +- {percent(error, 1)} of the values"


def verdict(tree: Any) -> tuple[str, str]:
    """Whether central intervals are too narrow or too wide, by more than chance: a word, and it in a sentence.

    Args:
        tree: what `pv.predictive_check` returned.
    """
    part = tree["calibration"]
    gap = part["coverage_overall"].values - part["level"].values
    sides = np.sign(gap) * (np.abs(gap) > CERTAIN * part["coverage_error"].values)
    rows = int(part["values"].max())
    if rows < LEAST_ROWS:
        return "", f"{rows} rows are too few to tell distributions that are too narrow or too wide"
    if (sides < 0).any() and (sides > 0).any():
        return "of the wrong shape", "intervals are too narrow at some levels and too wide at others"
    if (sides < 0).any():
        return "overconfident", "the model is overconfident, its distributions too narrow"
    if tree.attrs["kind"] == "posterior":
        return "conservative", "replicates have seen the values, so that the right model holds more than it says, too"
    if (sides > 0).any():
        return "underconfident", "the model is underconfident, its distributions too wide"
    return "", "no sign of distributions that are too narrow or too wide"


def _two_sample(tree: Any) -> list[str]:
    if "two_sample" not in tree.children:
        return []
    part = {name: float(value) for name, value in tree["two_sample"].data_vars.items() if not value.ndim}
    seen = " though they have seen these rows" if tree.attrs["kind"] == "posterior" else ""
    accuracy, p_value = part["classifier_accuracy"], part["classifier_p_value"]
    told = percent(accuracy, 1)
    if p_value < RATE:
        found = f"A classifier tells replicates from data {told} of the time (p = {p_value:.2g})"
        importance = tree["two_sample"]["importance"].values
        if np.isfinite(importance).all() and len(importance) > 1:
            names = [str(tree["two_sample"]["feature"].values[at]) for at in np.argsort(-importance)[:3]]
            found += f", most of all by {', '.join(names)}"
    else:
        seen = ", which have seen these rows" if seen else ""
        found = f"A classifier does not tell replicates from data ({told} of the time, p = {p_value:.2g})"
    coverage, expected = part["coverage"], part["coverage_expected"]
    return [
        f"{found}{seen}.",
        f"Replicates lie near {percent(coverage)} of the data ({percent(expected)} if they were data); their density "
        f"among the data is {part['density']:.2f} (1 if they were).",
    ]


def _up(value: float) -> float:
    """Rounded up to two digits, so that "p < ..." is true."""
    power = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{np.ceil(value / power * (1 - 1e-12)) * power:.2g}")
