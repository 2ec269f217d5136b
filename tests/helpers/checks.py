"""A predictive check's tree made of random numbers: what pictures and reports read, without a model."""

import json
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

LEVELS = np.array([0.5, 0.8, 0.9, 0.95])
U = np.linspace(0.01, 0.99, 99)

Event = tuple[int, ...]


def values(data: str, shape: Event, rng: np.random.Generator, shift: float = 0.0) -> NDArray[Any]:
    """Numbers of a kind of data."""
    if data == "binary":
        return (rng.random(shape) < 0.3 + 0.2 * shift).astype("int32")
    if data == "counts":
        return rng.poisson(3 + shift, shape).astype("int32")
    return rng.standard_normal(shape) + shift


def names_of(event: Event) -> list[str]:
    return [f"x[{', '.join(map(str, at))}]" if at else "x" for at in np.ndindex(*event)]


def _kept(event: Event, x: NDArray[Any], rows: NDArray[Any], drawn: bool) -> xr.Dataset:
    """Rows of data (R, *event) or their replicates (chain, draw, R, *event)."""
    lead = ["chain", "draw"] if drawn else []
    if len(event) <= 1 and np.prod(event) <= 30:
        columns = x.reshape(*x.shape[: len(lead) + 1], -1)
        each = {name: ([*lead, "row"], columns[..., j]) for j, name in enumerate(names_of(event))}
        return xr.Dataset(each, {"row": rows})
    axes = {1: ("feature",), 2: ("height", "width")}.get(len(event), ("channel", "height", "width"))
    at = np.stack(np.meshgrid(rows, *map(np.arange, event), indexing="ij"), -1).reshape(-1, 1 + len(event))
    coords = {name: ("element", at[:, i]) for i, name in enumerate(("row", *axes))}
    return xr.Dataset({"x": ([*lead, "element"], x.reshape(*x.shape[: len(lead)], -1))}, coords)


def _calibration(names: list[str], wrong: float, rng: np.random.Generator) -> xr.Dataset:
    """PITs of z-scores: the first third of the features (all, where there are few) are `wrong` times too spread."""
    count, n = len(names), 200
    scale = np.where(np.arange(count) <= count // 3, wrong, 1.0)[:, None]
    from scipy.stats import kstest, norm

    pit = norm.cdf(scale * rng.standard_normal((count, n)))
    p = np.array([kstest(row, "uniform").pvalue for row in pit])
    inside = np.stack([(abs(2 * pit - 1) < level).mean(1) for level in LEVELS], -1)
    ecdf = np.stack([np.searchsorted(np.sort(row), U, side="right") / n for row in pit])
    reach = 1.63 * np.sqrt(1 / n) * 2 * np.sqrt(U * (1 - U))
    overall = np.searchsorted(np.sort(pit.ravel()), U, side="right") / pit.size
    return xr.Dataset(
        {
            "coverage": (("feature", "level"), inside),
            "coverage_overall": ("level", inside.mean(0)),
            "coverage_error": ("level", np.sqrt(LEVELS * (1 - LEVELS) / pit.size)),
            "ecdf": (("feature", "u"), ecdf),
            "ecdf_overall": ("u", overall),
            "band_low": ("u", np.clip(U - reach, 0, 1)),
            "band_high": ("u", np.clip(U + reach, 0, 1)),
            "pit_p_value": ("feature", p),
            "pit_q_value": ("feature", np.minimum(1, p * count * (1 + np.log(count)))),
            "values": ("feature", np.full(count, n)),
        },
        {"feature": names, "level": LEVELS, "u": U},
    )


def _checks(statistics: list[str], kind: str, draws: int, rng: np.random.Generator) -> tuple[xr.Dataset, xr.Dataset]:
    """One test statistic after the other: constant, integers, real numbers; for posterior the last is a discrepancy."""
    count = len(statistics)
    scales = 10.0 ** rng.integers(-4, 5, count)
    replicated = (50 + rng.standard_normal((draws, count))) * scales
    replicated[:, 0] = 0.0
    replicated[:, 1::3] = rng.poisson(4, replicated[:, 1::3].shape)
    observed = replicated.mean(0) + replicated.std(0) * np.linspace(4, 0, count)
    realized = np.broadcast_to(observed, replicated.shape).copy()
    if kind == "posterior":
        realized[:, -1] = replicated[:, -1] + 0.5 * scales[-1] * rng.standard_normal(draws)
    p = np.minimum(1, 2 * np.minimum((replicated >= realized).mean(0), (replicated <= realized).mean(0)) + 1 / draws)
    checks = {
        "observed": observed,
        "mean": replicated.mean(0),
        "sd": replicated.std(0),
        "p_value": p,
        "p_error": np.sqrt(p * (1 - p) / draws),
        "q_value": np.minimum(1, p * 3),
        "rows": np.full(count, 60),
        "scope": ["data"] * count,
        "label": [f"{name} over all of the rows" for name in statistics],
        "sentence": [f"the {name} is what it is" for name in statistics],
    }
    drawn = {"replicated": replicated[None], "realized": realized[None]}
    return (
        xr.Dataset({name: ("statistic", each) for name, each in checks.items()}, {"statistic": statistics}),
        xr.Dataset({k: (("chain", "draw", "statistic"), v) for k, v in drawn.items()}, {"statistic": statistics}),
    )


def tree(
    event: Event = (4,), data: str = "continuous", *, kind: str = "population", wrong: float = 1.6, rows: int = 36,
    draws: int = 60, statistics: int = 15, names: list[str] | None = None, seed: int = 0,
) -> xr.DataTree:  # fmt: skip
    """A tree as `pv.predictive_check` returns it, of data that lie 0.5 above their replicates."""
    rng = np.random.default_rng(seed)
    names = names or names_of(event)
    numbers = np.sort(rng.permutation(4 * rows)[:rows])
    found, drawn = _checks([f"statistic {i}" for i in range(statistics)], kind, draws, rng)
    tail = rng.uniform(1 / draws, 1, (4 * rows, 5))
    tail[numbers[::2]] /= 20
    of_rows = {"tail": tail, "observed": rng.standard_normal(tail.shape)}
    p = float(rng.random())
    numbers_of = ("classifier_accuracy", "classifier_error", "classifier_p_value", "mmd2", "mmd_p_value", "density")
    scalars = dict.fromkeys((*numbers_of, "coverage", "coverage_expected", "points"), p)
    name = "prior_predictive" if kind == "prior" else "posterior_predictive"
    groups = {
        "observed_data": _kept(event, values(data, (rows, *event), rng, 0.5), numbers, False),
        name: _kept(event, values(data, (1, draws, rows, *event), rng), numbers, True),
        "statistics": drawn,
        "checks": found,
        "calibration": _calibration(names, wrong, rng),
        "rows": xr.Dataset(
            {k: (("row", "row_statistic"), v) for k, v in of_rows.items()},
            {"row": np.arange(4 * rows), "row_statistic": [f"row statistic {i}" for i in range(5)]},
        ),
        "two_sample": xr.Dataset(
            {"importance": ("feature", rng.normal(0.1, 0.05, len(names))), **scalars}, {"feature": names}
        ),
    }
    attrs = {"kind": kind, "draws": str(draws), "rows": str(4 * rows), "seed": "0", "model": "VAE", "data": "{}"}
    attrs |= {"event_shape": json.dumps(event), "discrete": str(data != "continuous").lower(), "notes": "[]"}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **groups})
