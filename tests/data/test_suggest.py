"""A suggestion is made where data ask for it, and is not made where they do not."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from pyro_vae.core.errors import InputError
from pyro_vae.data.profile import ColumnProfile, names_of
from pyro_vae.data.suggest import RULES, Suggestion, suggest
from pyro_vae.families import Family

Generator = np.random.Generator
SEEDS = range(4)
N = 1000


def inflated(x: Any, r: Generator, share: float = 0.35) -> Any:
    return x * (r.random(x.shape) > share)


def dirichlet(r: Generator, columns: int = 4) -> Any:
    return r.dirichlet(np.arange(1.0, columns + 1), size=N)


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def negative_binomial(r: Generator, mean: float, dispersion: float, shape: Any = (N, 5)) -> Any:
    return r.poisson(r.gamma(1 / dispersion, mean * dispersion, size=shape))


Case = tuple[Callable[[Generator], Any], Family, str]
SIMULATED: dict[str, Case] = {
    # 0 and 1
    "binary": (lambda r: r.integers(2, size=(N, 5)), pv.Bernoulli(), "0 or 1"),
    "rare binary": (lambda r: (r.random((N, 5)) < 0.03) * 1.0, pv.Bernoulli(), "0 or 1"),
    "binary numbers": (lambda r: r.random(N) < 0.4, pv.Bernoulli(), "0 or 1"),
    "binary images": (lambda r: torch.as_tensor(r.random((N, 1, 4, 4)) < 0.4), pv.Bernoulli(), "0 or 1"),
    "binary, two of three": (lambda r: 1.0 - r.multinomial(1, [0.2, 0.3, 0.5], size=N), pv.Bernoulli(), "0 or 1"),
    # shares and indicators
    "one-hot": (lambda r: r.multinomial(1, [0.2, 0.3, 0.5], size=N), pv.OneHot(), "a single 1"),
    "one-hot sequences": (lambda r: r.multinomial(1, [0.2, 0.8], size=(N, 6)).astype("f4"), pv.OneHot(), "single 1"),
    "shares": (dirichlet, pv.Dirichlet(), "sums to one"),
    "shares in float32": (lambda r: torch.tensor(dirichlet(r, 30)).float(), pv.Dirichlet(), "sums to one"),
    "shares of two": (lambda r: r.beta(2, 3, (N, 1)) * [1, -1] + [0, 1], pv.Dirichlet(), "sums to one"),
    "nearly shares": (lambda r: dirichlet(r) * (1 + 1e-3 * r.random((N, 1))), pv.Beta(), "strictly between"),
    # pixels
    "bytes": (lambda r: r.binomial(255, 0.6, (N, 1, 4, 4)).astype("u1"), pv.DiscretizedLogistic(), "pixels"),
    "flat bytes": (
        lambda r: np.append(r.integers(256, size=(N, 63)), np.full((N, 1), 255), 1) * 1.0,
        pv.DiscretizedLogistic(),
        "0 to 255",
    ),
    "17 levels": (lambda r: r.integers(17, size=(N, 1, 4, 4)), pv.DiscretizedLogistic(bins=17), "0 to 16"),
    "4 levels": (lambda r: r.integers(4, size=(N, 1, 4, 4)), pv.Categorical(classes=4), "0 to 3: .* probability of"),
    # labels and levels
    "labels": (lambda r: r.integers(5, size=(N, 3)), pv.Categorical(classes=5), "names, or .* Ordered.* Binomial"),
    "rare labels": (
        lambda r: r.choice(4, p=[0.02, 0.08, 0.3, 0.6], size=N),
        pv.Categorical(classes=4),
        "names, or does their order",
    ),
    "ratings": (lambda r: r.binomial(4, 0.7, (N, 6)) + 1, pv.Categorical(classes=6), "from 1 to 5"),
    "labels and binary": (
        lambda r: np.stack([r.integers(2, size=N), r.integers(6, size=N)], 1),
        pv.Categorical(classes=6),
        "from 0 to 5",
    ),
    # counts
    "Poisson": (lambda r: r.poisson([0.3, 1, 2, 5, 20], (N, 5)), pv.Poisson(), "as a Poisson's is"),
    "rare events": (lambda r: r.poisson(0.2, (N, 30)), pv.Poisson(), "as a Poisson's is"),
    "large counts": (lambda r: r.poisson(120, (N, 3)), pv.Poisson(), "as a Poisson's is"),
    "overdispersed": (
        lambda r: negative_binomial(r, 5, 0.5),
        pv.NegativeBinomial(dispersion="per_feature"),
        "variance is .* times their mean",
    ),
    "strongly overdispersed": (
        lambda r: negative_binomial(r, 2, 2),
        pv.NegativeBinomial(dispersion="per_feature"),
        "variance is",
    ),
    "Poisson and a gate": (lambda r: inflated(r.poisson(5, (N, 4)), r), pv.ZeroInflated(pv.Poisson()), "3.% zeros"),
    "overdispersed and a gate": (
        lambda r: inflated(negative_binomial(r, 8, 0.3), r),
        pv.ZeroInflated(pv.NegativeBinomial()),
        r"3.% zeros, where a NegativeBinomial",
    ),
    # between 0 and 1
    "grey": (
        lambda r: np.clip(r.normal(0.5, 0.4, (N, 1, 4, 4)), 0, 1),
        pv.ContinuousBernoulli(),
        "exact 0 and 1 .* Beta",
    ),
    "grey without white": (
        lambda r: np.clip(r.normal(0.3, 0.2, (N, 5)), 0, 0.98),
        pv.ContinuousBernoulli(),
        "exact 0 among",
    ),
    "proportions": (lambda r: r.beta(2, 5, (N, 4)), pv.Beta(), "strictly between 0 and 1"),
    # positive
    "log-normal": (lambda r: r.lognormal(1, 0.6, (N, 3)), pv.LogNormal(scale="learned"), "long right tail"),
    "Gamma": (lambda r: r.gamma(2, 3, (N, 3)), pv.Gamma(concentration="learned"), "long right tail"),
    "rain": (
        lambda r: inflated(r.gamma(2, 3, (N, 3)), r),
        pv.Censored(pv.Normal(scale="learned"), low=0.0),
        "exact zeros",
    ),
    "tobit": (
        lambda r: np.maximum(r.normal(1, 1, N), 0),
        pv.Censored(pv.Normal(scale="learned"), low=0.0),
        "1.* exact zeros",
    ),
    # real
    "real": (lambda r: r.normal(size=(N, 4)), pv.Normal(scale="learned"), "without heavy tails"),
    "real and large": (lambda r: r.normal(170, 8, (N, 2)), pv.Normal(scale="learned"), "without heavy tails"),
    "one column": (lambda r: r.normal(size=(N, 1)), pv.Normal(scale="learned"), "without heavy tails"),
    "two clusters": (
        lambda r: r.normal(size=(N, 3)) + 8 * r.integers(2, size=(N, 1)),
        pv.Normal(scale="learned"),
        "without",
    ),
    "uniform": (lambda r: r.uniform(-3, 3, (N, 4)), pv.Normal(scale="learned"), "without heavy tails"),
    "angles": (lambda r: r.vonmises(0, 1, (N, 2)), pv.Normal(scale="learned"), "without heavy tails"),
    "images": (lambda r: r.normal(size=(N, 1, 4, 4)) * [1, 2, 4, 8], pv.Normal(scale="learned"), "without heavy"),
    "unequal": (lambda r: r.normal(size=(N, 3)) * [1, 2, 9], pv.Normal(scale="per_feature"), "different spreads"),
    "nearly equal": (lambda r: r.normal(size=(N, 3)) * [1, 2, 2.5], pv.Normal(scale="learned"), "real numbers"),
    "heavy tails": (lambda r: r.standard_t(3, (N, 4)), pv.StudentT(df="learned", scale="learned"), "heavy tails"),
    "heavy and unequal": (
        lambda r: r.standard_t(3, (N, 2)) * [1, 9],
        pv.StudentT(df="learned", scale="per_feature"),
        "heavy tails",
    ),
    "years": (lambda r: r.integers(1950, 2020, N), pv.Normal(scale="learned"), "integers that vary otherwise"),
    "differences": (lambda r: r.poisson(4, (N, 2)) - 4, pv.Normal(scale="learned"), "integers that vary other"),
    # columns of different kinds
    "mixed": (
        lambda r: table(sex=r.integers(2, size=N), visits=r.poisson(6, N), height=r.normal(170, 8, N)),
        pv.Normal(scale="per_feature"),
        "0 or 1: 'sex'; counts: 'visits'; real numbers: 'height'",
    ),
    "a label among numbers": (
        lambda r: table(kind=r.integers(4, size=N), a=r.normal(size=N), b=r.normal(size=N)),
        pv.Normal(scale="per_feature"),
        "labels or levels: 'kind'; real numbers: 'a', 'b'",
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SIMULATED)
def test_data_are_given_their_family(name: str, seed: int) -> None:
    simulate, family, words = SIMULATED[name]
    x = simulate(np.random.default_rng(seed))
    found = suggest(x)
    assert found.family == family, found
    assert re.search(words, found.reason), found
    assert all(type(other) is not type(family) for other in found.alternatives)
    if seed == 0:
        pasted(found).check({"x": pv.data.Rows.of(x).x.float()})  # the line to paste takes the data


def pasted(found: Suggestion) -> pv.VAE:
    """The model that the line to paste makes."""
    namespace: dict[str, Any] = {"pv": pv}
    assert found.line in str(found)
    exec(found.line, namespace)
    vae: pv.VAE = namespace["vae"]
    assert vae.declaration.likelihood == found.family
    return vae


def test_suggest_has_a_case_for_every_rule() -> None:
    answered = set()
    for simulate, _, _ in SIMULATED.values():
        data = _data(simulate(np.random.default_rng(0)))
        answered.add(next(rule for rule in RULES if rule(data) is not None))
    assert answered == set(RULES)


def _data(x: Any) -> Any:
    rows = pv.data.Rows.of(x)
    return ColumnProfile.of(rows, names_of(rows))


@pytest.mark.parametrize("seed", SEEDS)
def test_alternatives_take_the_data_too(seed: int) -> None:
    r = np.random.default_rng(seed)
    for x in (r.integers(5, size=(N, 3)), r.beta(2, 5, (N, 4)), r.gamma(2, 3, (N, 3)), dirichlet(r)):
        found = suggest(x)
        assert found.alternatives
        for family in found.alternatives:
            vae = pasted(Suggestion(family, "", event_shape=found.event_shape))
            vae.check({"x": torch.as_tensor(x).float()})


def test_missing_values_are_said_and_passed_over() -> None:
    r = np.random.default_rng(0)
    whole = table(a=r.poisson(4, N), b=r.poisson(9, N), c=r.poisson(2, N))
    x = whole.where(r.random(whole.shape) < 0.8)
    found = suggest(x)
    assert found.family == pv.Poisson()
    (note,) = found.notes
    assert note.startswith(f"{int(x.isna().sum().sum())} values are missing: give {{'x': x, 'mask': ")
    tensor = torch.as_tensor(x.to_numpy())
    mask = torch.isfinite(tensor)
    pasted(found).check({"x": tensor.float(), "mask": mask})
    assert suggest({"x": tensor.nan_to_num(-7.5), "mask": mask}).family == pv.Poisson()
    assert not suggest(whole).notes
    assert "nothing is observed of column 'c': leave" in str(suggest(x.assign(c=math.nan)))


def test_constant_columns_are_named() -> None:
    r = np.random.default_rng(0)
    x = table(a=r.normal(size=N), unit=1.0, b=r.normal(size=N), zero=0.0)
    found = suggest(x)
    assert found.family == pv.Normal(scale="learned")
    assert found.notes[0].startswith("the same in every row: columns 'unit', 'zero'.")
    assert found.notes[0].endswith("leave out what is constant.")
    assert suggest(x[["a", "b"]]).notes == ()
    assert "in every row: column 'unit'." in suggest(x.drop(columns="zero")).notes[0]
    images = r.normal(size=(N, 1, 3, 3))
    images[:, :, 0] = 0
    assert suggest(images).notes[0].startswith("the same in every row: 3 of 9 elements.")
    assert suggest(np.full((N, 2), 4.5)).family == pv.Normal(scale="learned")
    assert suggest(np.zeros((N, 2))).family == pv.Bernoulli()


def test_constant_column_does_not_make_a_table_mixed() -> None:
    x = table(a=np.random.default_rng(0).normal(size=N), b=1.0)
    assert suggest(x).columns == {}
    assert "different kinds" not in suggest(x).reason


def test_mixed_columns_are_named_by_kind() -> None:
    simulate, _, _ = SIMULATED["mixed"]
    found = suggest(simulate(np.random.default_rng(0)))
    assert found.columns == {"binary": ("'sex'",), "counts": ("'visits'",), "real": ("'height'",)}


def test_totals_of_rows_are_profiled() -> None:
    r = np.random.default_rng(0)
    rates = r.gamma(5, 1, 20)
    depth = r.lognormal(0, 0.8, (N, 1))
    assert any("size_factor" in note for note in suggest(r.poisson(depth * rates)).notes)
    assert not any("size_factor" in note for note in suggest(r.poisson(rates, (N, 20))).notes)


def test_grey_levels_are_recognised() -> None:
    r = np.random.default_rng(0)
    x = r.integers(256, size=(N, 1, 4, 4)) / 255
    found = suggest(torch.tensor(x).float())
    assert found.alternatives == (pv.DiscretizedLogistic(bins=256),)
    pasted(Suggestion(found.alternatives[0], "", event_shape=(1, 4, 4))).check({"x": torch.tensor(x * 255).round()})
    assert suggest(np.clip(r.normal(0.5, 0.4, (N, 5)), 0, 1)).alternatives == ()
    digits = suggest(pv.data.load("digits").train)
    assert digits.family == pv.ContinuousBernoulli()
    assert digits.alternatives == (pv.DiscretizedLogistic(bins=17),)
    assert "binarize='dynamic'" in str(digits)


def test_dynamic_rows_are_binary() -> None:
    assert suggest(pv.data.load("digits", binarize="dynamic").train).family == pv.Bernoulli()


def test_few_rows_do_not_fail() -> None:
    for rows in (1, 2, 3, 10):
        r = np.random.default_rng(rows)
        for simulate, _, _ in SIMULATED.values():
            assert suggest(simulate(r)[:rows]).reason
    assert suggest(np.array([[0.0], [2.0], [3.0]])).family == pv.Poisson()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[1.0, math.inf]]), r"infinite value, in row 0, column 1: write NaN"),
        (np.full((3, 2), math.nan), "no observed value"),
        ("iris.csv", "read it first"),
        (np.zeros((0, 3)), "no rows"),
        (pd.DataFrame({"a": ["x", "y"]}), "column 'a' of 'x' is of type .*, not a number"),
    ],
)
def test_suggest_refuses_other_than_data(x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        suggest(x)


def test_suggest_reads_every_row_of_large_data() -> None:
    x = torch.rand(20_000, 50, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    assert suggest(x).family == pv.Beta()
    x[3] = 0
    assert suggest(x).family == pv.ContinuousBernoulli()


def test_suggestion_prints_family_reason_and_code() -> None:
    shown = str(suggest(np.random.default_rng(0).poisson(3, (N, 2))))
    first, second, *rest = shown.splitlines()
    assert first.startswith("Poisson: counts whose variance is ")
    assert second == "    vae = pv.VAE(event_shape=(2,), latent_dim=2, likelihood=pv.Poisson())"
    assert rest == ["or  likelihood=pv.NegativeBinomial()"]
