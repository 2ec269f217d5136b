"""Test statistics: each is what numpy, scipy or a sum by hand say, of every kind of data that it suits."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.ndimage
import scipy.spatial
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism import STATISTICS, Statistic
from pyro_vae.criticism.statistics import DataKind, default_statistics

ROWS = 60

KINDS = {
    "number": DataKind(()),
    "real": DataKind((5,)),
    "wide": DataKind((40,)),
    "levels": DataKind((4,), discrete=True),
    "counts": DataKind((6,), discrete=True, counts=True),
    "binary": DataKind((9,), discrete=True, binary=True),
    "grey": DataKind((8, 7)),
    "colour": DataKind((3, 6, 9)),
    "binary image": DataKind((1, 9, 8), discrete=True, binary=True),
    "counts image": DataKind((1, 5, 6), discrete=True, counts=True),
}


def rows(name: str, n: int = ROWS) -> Tensor:
    """Data of a kind, in float64: features differ in location and spread, and go together."""
    kind, generator = KINDS[name], torch.Generator().manual_seed(7)
    shape = (n, *kind.event_shape)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind.event_shape:
        x = x + 0.5 * x.roll(1, -1) + torch.linspace(-1, 1, kind.size, dtype=torch.float64).reshape(kind.event_shape)
        x = x * torch.linspace(0.5, 2, kind.size, dtype=torch.float64).reshape(kind.event_shape)
    if kind.binary:
        return (x > 0.3).double()
    if kind.discrete:
        return (2 * x).round().clamp(0, None if kind.counts else 3)
    return x.clamp_min(0) if kind.image else x


# What each is, computed independently: of columns (N, P) for features, of rows (N, *event) for the others.


def off_diagonal(x: np.ndarray) -> np.ndarray:
    columns = x.reshape(len(x), -1)
    size = np.round(columns.std(0) / columns.std(0).max(), 4)
    columns = columns[:, np.argsort(-size, kind="stable")[:30]]
    return np.array([abs(scipy.stats.pearsonr(a, b).statistic) for a, b in itertools.combinations(columns.T, 2)])


def neighbour_distance(x: np.ndarray) -> float:
    points = x.reshape(len(x), -1)[:256]
    return scipy.spatial.cKDTree(points).query(points, 2)[0][:, 1].mean()


def hoyer(image: np.ndarray) -> float:
    n = image.size
    return (math.sqrt(n) - abs(image).sum() / math.sqrt((image**2).sum())) / (math.sqrt(n) - 1)


def differences(image: np.ndarray) -> float:
    return np.mean([abs(a - b) for plane in planes(image) for a, b in pairs(plane)])


def planes(image: np.ndarray) -> np.ndarray:
    return image.reshape(-1, *image.shape[-2:])


def pairs(plane: np.ndarray) -> list[tuple[float, float]]:
    """Each pixel with its neighbours below and on the right."""
    height, width = plane.shape
    below = [(plane[i, j], plane[i + 1, j]) for i in range(height - 1) for j in range(width)]
    return below + [(plane[i, j], plane[i, j + 1]) for i in range(height) for j in range(width - 1)]


def centre(axis: int) -> Callable[[np.ndarray], float]:
    return lambda image: scipy.ndimage.center_of_mass(abs(planes(image)).sum(0))[axis]


def moran(image: np.ndarray) -> float:
    centred = [plane - plane.mean() for plane in planes(image)]
    joint = np.mean([a * b for plane in centred for a, b in pairs(plane)])
    return joint / np.mean(np.square(centred))


def high_frequencies(image: np.ndarray) -> float:
    """All frequencies, both halves of the plane, by their cycles per pixel."""
    low = total = 0.0
    for plane in planes(image):
        power = abs(np.fft.fft2(plane - plane.mean())) ** 2
        for (i, j), value in np.ndenumerate(power):
            cycles = [min(k, n - k) / n for k, n in zip((i, j), plane.shape, strict=True)]
            total += value
            low += value * (math.hypot(*cycles) <= 0.25)
    return 1 - low / total


def parts(image: np.ndarray) -> int:
    """Connected parts by flooding."""
    plane = planes(image).mean(0)
    left = {tuple(at) for at in np.argwhere(plane > (plane.min() + plane.max()) / 2)}
    count = 0
    while left:
        count, reached = count + 1, [left.pop()]
        while reached:
            i, j = reached.pop()
            near = left & {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)}
            left -= near
            reached += near
    return count


def each_row(function: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.array([function(row) for row in x])


def by_column(function: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda columns: np.array([function(column) for column in columns.T])


ORACLES: dict[str, Callable[..., Any]] = {
    "mean": by_column(lambda column: math.fsum(column) / len(column)),
    "standard deviation": lambda columns: columns.std(0),
    "5 % quantile": lambda columns: np.sort(columns, 0)[math.ceil(0.05 * len(columns)) - 1],
    "median": lambda columns: np.quantile(columns, 0.5, axis=0, method="inverted_cdf"),
    "95 % quantile": lambda columns: np.quantile(columns, 0.95, axis=0, method="inverted_cdf"),
    "skewness": scipy.stats.skew,
    "excess kurtosis": scipy.stats.kurtosis,
    "smallest value": lambda columns: np.sort(columns, 0)[0],
    "largest value": lambda columns: np.sort(columns, 0)[-1],
    "share of zeros": by_column(lambda column: np.mean(column == 0)),
    "unique values": by_column(lambda column: len(set(column))),
    "mean correlation": lambda x: off_diagonal(x).mean(),
    "largest correlation": lambda x: off_diagonal(x).max(),
    "neighbour distance": neighbour_distance,
    "row mean": each_row(np.mean),
    "row standard deviation": each_row(np.std),
    "dispersion index": lambda columns: columns.var(0) / columns.mean(0),
    "share of ones": by_column(lambda column: np.mean(column == 1)),
    "row total": each_row(np.sum),
    "row zeros": each_row(lambda row: np.mean(row == 0)),
    "ink": each_row(np.sum),
    "sparsity": each_row(hoyer),
    "edges": each_row(differences),
    "centre row": each_row(centre(0)),
    "centre column": each_row(centre(1)),
    "autocorrelation": each_row(moran),
    "high frequencies": each_row(high_frequencies),
    "components": each_row(parts),
    "chi-squared": lambda x, loc, scale: each_row(np.sum)(((x - loc) / scale) ** 2),
    "minus log-likelihood": lambda x, loc, scale: -each_row(np.sum)(scipy.stats.norm.logpdf(x, loc, scale)),
}

CASES = [(kind, name) for kind, of in KINDS.items() for name in default_statistics(of)]
PLAIN = [name for name, statistic in STATISTICS.items() if statistic.of != "discrepancy"]


def suiting(name: str) -> list[str]:
    """The kinds of data that a test statistic suits."""
    return [kind for kind, at in CASES if at == name]


def argument(x: Tensor, statistic: Statistic) -> Tensor:
    return x.reshape(len(x), -1) if statistic.of == "feature" else x


def value(name: str, x: Tensor) -> Tensor:
    return STATISTICS[name].function(argument(x, STATISTICS[name]))


def test_test_statistics_have_an_oracle_and_suit_a_kind() -> None:
    assert list(ORACLES) == list(STATISTICS)
    assert {name for _, name in CASES} == set(STATISTICS)
    assert len({statistic.label for statistic in STATISTICS.values()}) == len(STATISTICS)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_test_statistic_equals_its_oracle(kind: str, name: str) -> None:
    x, statistic = rows(kind), STATISTICS[name]
    if statistic.of == "discrepancy":
        loc, scale = torch.randn_like(x), torch.rand_like(x) + 0.5
        found = statistic.function(dist.Normal(loc, scale).to_event(x.ndim - 1), x)
        expected = ORACLES[name](x.numpy(), loc.numpy(), scale.numpy())
    else:
        found, expected = value(name, x), ORACLES[name](argument(x, statistic).numpy())
    features = KINDS[kind].size
    assert found.shape == {"data": (), "feature": (features,)}.get(statistic.of, (ROWS,))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", PLAIN)
def test_float32_says_the_same_and_leaves_the_data_alone(name: str) -> None:
    for kind in suiting(name):
        x = rows(kind).float()
        found = value(name, x)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), value(name, x.double()), rtol=2e-5, atol=2e-5)
        assert torch.equal(x, rows(kind).float())


@pytest.mark.parametrize("name", PLAIN)
def test_order_of_rows_does_not_matter(name: str) -> None:
    for kind in suiting(name):
        x, order = rows(kind), torch.randperm(ROWS)
        found, again = value(name, x), value(name, x[order])
        torch.testing.assert_close(again, found[order] if STATISTICS[name].of == "row" else found)


@pytest.mark.parametrize("name", [name for name in PLAIN if STATISTICS[name].of != "data"])
def test_row_or_column_counts_alone(name: str) -> None:
    """Not even the scale of another has a part in it, and pooled features are one column."""
    for kind in suiting(name):
        x, function = rows(kind), STATISTICS[name].function
        if STATISTICS[name].of == "row":
            x = torch.cat([x[:5], 1e6 * x[:1]])
            torch.testing.assert_close(torch.cat([function(row[None]) for row in x]), function(x))
        else:
            columns = x.reshape(ROWS, -1)
            torch.testing.assert_close(torch.cat([function(each[:, None]) for each in columns.T]), function(columns))
            pooled = columns.reshape(-1, 1)
            np.testing.assert_allclose(function(pooled), ORACLES[name](pooled.numpy()), rtol=1e-9, atol=1e-11)


CONSTANT = {
    "standard deviation": 0,
    "skewness": 0,
    "excess kurtosis": 0,
    "unique values": 1,
    "mean correlation": 0,
    "largest correlation": 0,
    "neighbour distance": 0,
    "row standard deviation": 0,
    "sparsity": 0,
    "edges": 0,
    "autocorrelation": 0,
    "high frequencies": 0,
    "components": 0,
}


@pytest.mark.parametrize("name", PLAIN)
def test_constants_and_single_rows_have_numbers(name: str) -> None:
    for kind, n in itertools.product(suiting(name), (1, 7)):
        for constant in (0.0, 0.1, 1.0, 12345.678):
            found = value(name, torch.full((n, *KINDS[kind].event_shape), constant))
            assert bool(found.isfinite().all()), (kind, constant)
            if name in CONSTANT:
                assert float((found - CONSTANT[name]).abs().max()) < 1e-6, (kind, constant)
        assert bool(value(name, rows(kind)[:1]).isfinite().all())
        mixed = rows(kind).float()
        mixed.reshape(ROWS, -1)[:, 0] = 0.1  # one constant feature among others
        assert bool(value(name, mixed).isfinite().all())


def test_blank_images_and_absent_counts() -> None:
    blank = torch.zeros(2, 1, 5, 9)
    assert value("centre row", blank).tolist() == [2, 2]
    assert value("centre column", blank).tolist() == [4, 4]
    assert value("dispersion index", torch.zeros(8, 2)).tolist() == [1, 1]
    rare = torch.zeros(10_000, 1)
    rare[0] = 1
    assert float(value("dispersion index", rare)) == pytest.approx(1, abs=1e-3)  # the limit that zeros have


@pytest.mark.parametrize("name", PLAIN)
def test_large_and_small_units_do_not_overflow(name: str) -> None:
    for kind, scale in itertools.product(suiting(name), (1e25, 1e-12)):
        assert bool(value(name, (scale * rows(kind)).float()).isfinite().all()), (kind, scale)


@pytest.mark.parametrize("name", ["standard deviation", "skewness", "excess kurtosis"])
def test_far_from_zero_float32_keeps_its_digits(name: str) -> None:
    x = (1000 + torch.rand(5000, 3).square()).float()
    torch.testing.assert_close(value(name, x), value(name, x.double()).float(), rtol=1e-4, atol=1e-4)
    spiked = torch.cat([torch.full((1, 3), 1e6), x])  # the first row, which is taken off, is far from the others
    torch.testing.assert_close(value(name, spiked), value(name, spiked.double()).float(), rtol=1e-4, atol=1e-4)


# What they say of pictures one can think through


def image(*lines: str) -> Tensor:
    return torch.tensor([[float(character == "#") for character in line] for line in lines])[None]


def test_pictures_have_the_numbers_one_reads_off() -> None:
    three = image("##...", ".#..#", "...#.", "#....")
    assert value("components", three).tolist() == [3]  # two pixels that touch at a corner are connected
    assert value("ink", three).tolist() == [6]
    assert value("components", torch.cat([three, three, image(*["....."] * 4)])).tolist() == [3, 3, 0]
    dot = image(".....", "...#.", ".....", ".....")
    assert [float(value(f"centre {name}", dot)) for name in ("row", "column")] == [1, 3]
    assert float(value("sparsity", dot)) == pytest.approx(1, abs=1e-6)
    assert float(value("edges", dot)) == pytest.approx(4 / (3 * 5 + 4 * 4))
    board, stripes = image(".#.#", "#.#.", ".#.#", "#.#."), image("####", "....", "####", "....")
    assert float(value("autocorrelation", board)) == pytest.approx(-1)
    assert float(value("autocorrelation", stripes)) == pytest.approx(0)  # -1 downwards, 1 across
    assert float(value("high frequencies", board)) == float(value("high frequencies", stripes)) == 1
    wave = torch.cos(2 * math.pi * torch.arange(16) / 8).expand(1, 16, 16)
    assert float(value("high frequencies", wave)) == pytest.approx(0, abs=1e-6)
    grid = torch.arange(20) / 20
    at_the_limit = torch.cos(2 * math.pi * (3 * grid[:, None] + 4 * grid))[None]  # 3/20 and 4/20 make 1/4
    assert float(value("high frequencies", at_the_limit)) == pytest.approx(0, abs=1e-6)
    assert float(value("high frequencies", at_the_limit.double())) == pytest.approx(0, abs=1e-6)


def test_neighbour_distance_uses_only_the_first_rows() -> None:
    x = torch.randn(300, 3)
    assert torch.equal(value("neighbour distance", x), value("neighbour distance", x[:256]))
    assert float(value("neighbour distance", x[:20].repeat(2, 1) + 1e5)) == 0  # each row has its like


# Discrepancies


def test_chi_squared_is_pearsons_for_counts_and_events_of_any_rank() -> None:
    rate, x = 3 * torch.rand(50, 2, 3) + 0.1, torch.randint(0, 5, (50, 2, 3)).float()
    found = STATISTICS["chi-squared"].function(dist.Poisson(rate).to_event(2), x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), ((x - rate).square() / rate).sum((1, 2)))
    assert STATISTICS["chi-squared"].function(dist.Poisson(rate[:, 0, 0]), x[:, 0, 0]).shape == (50,)


def test_chi_squared_has_its_mean_under_the_model() -> None:
    """Of D elements it is D on average, whatever the family; by draws too, where no closed form exists."""
    loc = torch.randn(4000, 3)
    for fn in (dist.Laplace(loc, 0.3), dist.Gamma(loc.exp() + 0.2, 2.0), dist.FoldedDistribution(dist.Normal(loc, 1))):
        found = STATISTICS["chi-squared"].function(fn.to_event(1), fn.sample())
        error = float(found.std()) / math.sqrt(4000)
        by_draws = 6 / 100 if isinstance(fn, dist.FoldedDistribution) else 0  # of 100 draws' mean and variance
        assert abs(float(found.mean()) - 3) < 4 * error + 3 * by_draws


def test_chi_squared_of_what_has_no_spread() -> None:
    sure = dist.Bernoulli(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), validate_args=False).to_event(1)
    met, missed = STATISTICS["chi-squared"].function(sure, torch.tensor([[0.0, 1.0], [1.0, 1.0]])).tolist()
    assert met == 0
    assert 1e30 < missed < math.inf


def test_chi_squared_of_labels_is_refused() -> None:
    with pytest.raises(pv.InputError, match="labels"):
        STATISTICS["chi-squared"].function(dist.Categorical(torch.ones(4, 3)), torch.zeros(4))


# Which suit


def test_image_is_one() -> None:
    shapes = [(28, 28), (1, 28, 28), (3, 2, 2), (5,), (), (1, 1, 9), (9, 1), (2, 1, 8, 8)]
    assert [DataKind(shape).image for shape in shapes] == [True, True, True, False, False, False, False, False]
    assert [DataKind(shape).size for shape in shapes] == [784, 784, 12, 5, 1, 9, 9, 128]


def test_default_statistics_suit_each_kind_of_data() -> None:
    asked = {name: set(default_statistics(kind)) for name, kind in KINDS.items()}
    pictures = {"ink", "edges", "centre row", "autocorrelation", "high frequencies", "components"}
    moments = {"standard deviation", "skewness", "median", "largest value", "share of zeros"}
    for name, kind in KINDS.items():
        assert {"mean", "chi-squared", "minus log-likelihood"} <= asked[name]
        assert kind.image == bool(pictures & asked[name]) == (pictures <= asked[name])
        assert kind.counts == ("dispersion index" in asked[name])
        assert kind.binary != (moments <= asked[name])
        assert kind.binary == (not moments & asked[name])
        assert ("unique values" in asked[name]) == (kind.discrete and not kind.binary)
        assert ("largest correlation" in asked[name]) == ("neighbour distance" in asked[name]) == (kind.size > 1)
        assert list(default_statistics(kind)) == [each for each in STATISTICS if each in asked[name]]
    assert "sparsity" not in asked["binary image"]
    assert "row total" in asked["counts"]
    assert not {"row total", "row mean"} & asked["counts image"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"function": 3}, "callable"),
        ({"suits": True}, "callable"),
        ({"label": " "}, "label"),
        ({"of": "column"}, "none of 'data', 'row'"),
        ({"elements": 0}, "elements"),
        ({"elements": 1e6}, "elements"),
    ],
)
def test_object_that_is_not_a_test_statistic_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(pv.InputError, match=words):
        Statistic(**({"function": torch.mean, "label": "mean"} | given))
