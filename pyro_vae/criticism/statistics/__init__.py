"""Every test statistic by name, and the kinds of data that each suits."""

from collections.abc import Callable

from pyro_vae.criticism.statistics import counts, discrepancies, general, images
from pyro_vae.criticism.statistics.base import DataKind, Statistic


def _suits(**properties: bool) -> Callable[[DataKind], bool]:
    """Whether the properties of a kind of data have the given values."""
    return lambda kind: all(getattr(kind, name) is value for name, value in properties.items())


# Zeros and ones are described by their mean; images and counts have statistics of rows of their own.
_GRADED = _suits(binary=False)
_TIES = _suits(discrete=True, binary=False)
_COUNTS = _suits(counts=True)
_JOINT = _suits(joint=True)
_IMAGE = _suits(image=True)
_GRADED_IMAGE = _suits(image=True, binary=False)
_VECTOR = _suits(joint=True, image=False, counts=False)
_GRADED_VECTOR = _suits(joint=True, image=False, counts=False, binary=False)
_COUNT_VECTOR = _suits(joint=True, image=False, counts=True)

STATISTICS: dict[str, Statistic] = {
    "mean": Statistic(general.mean, "mean", "feature"),
    "standard deviation": Statistic(general.standard_deviation, "standard deviation", "feature", suits=_GRADED),
    "5 % quantile": Statistic(general.quantile(5), "5 % quantile", "feature", 2**17, _GRADED),
    "median": Statistic(general.quantile(50), "median", "feature", 2**17, _GRADED),
    "95 % quantile": Statistic(general.quantile(95), "95 % quantile", "feature", 2**17, _GRADED),
    "skewness": Statistic(general.skewness, "skewness", "feature", 2**19, _GRADED, ratio=False),
    "excess kurtosis": Statistic(general.excess_kurtosis, "excess kurtosis", "feature", 2**19, _GRADED, ratio=False),
    "smallest value": Statistic(general.smallest, "smallest value", "feature", suits=_GRADED),
    "largest value": Statistic(general.largest, "largest value", "feature", suits=_GRADED),
    "share of zeros": Statistic(general.share_of_zeros, "share of zeros", "feature", suits=_GRADED),
    "unique values": Statistic(general.unique_values, "number of unique values", "feature", 2**16, _TIES),
    "mean correlation": Statistic(general.mean_correlation, "mean absolute correlation", elements=2**18, suits=_JOINT),
    "largest correlation": Statistic(
        general.largest_correlation, "largest absolute correlation", elements=2**18, suits=_JOINT
    ),
    "neighbour distance": Statistic(
        general.neighbour_distance, "mean distance to the nearest neighbour", elements=2**18, suits=_JOINT
    ),
    "row mean": Statistic(general.row_mean, "row average", "row", suits=_VECTOR),
    "row standard deviation": Statistic(
        general.row_standard_deviation, "standard deviation within a row", "row", suits=_GRADED_VECTOR
    ),
    "dispersion index": Statistic(counts.dispersion_index, "dispersion index", "feature", 2**19, _COUNTS),
    "share of ones": Statistic(counts.share_of_ones, "share of ones", "feature", suits=_COUNTS),
    "row total": Statistic(general.row_total, "row total", "row", suits=_COUNT_VECTOR),
    "row zeros": Statistic(counts.row_zeros, "share of zeros in a row", "row", suits=_COUNT_VECTOR),
    "ink": Statistic(general.row_total, "total ink", "row", None, _IMAGE),
    "sparsity": Statistic(images.sparsity, "sparsity", "row", suits=_GRADED_IMAGE),
    "edges": Statistic(images.edges, "contrast of neighbouring pixels", "row", 2**18, _IMAGE),
    "centre row": Statistic(images.centre_row, "row of the centre of mass", "row", 2**18, _IMAGE, ratio=False),
    "centre column": Statistic(images.centre_column, "column of the centre of mass", "row", 2**18, _IMAGE, ratio=False),
    "autocorrelation": Statistic(
        images.autocorrelation, "correlation of neighbouring pixels", "row", 2**18, _IMAGE, ratio=False
    ),
    "high frequencies": Statistic(
        images.high_frequencies, "share of power at high frequencies", "row", 2**17, suits=_IMAGE
    ),
    "components": Statistic(images.components, "number of connected parts", "row", 2**17, suits=_IMAGE),
    "chi-squared": Statistic(discrepancies.chi_squared, "chi-squared discrepancy", "discrepancy", 2**18),
    "minus log-likelihood": Statistic(discrepancies.minus_log_likelihood, "minus log-likelihood", "discrepancy", 2**18),
}


def default_statistics(kind: DataKind) -> dict[str, Statistic]:
    """Test statistics that suit a kind of data, discrepancies among them, by name in the order of the table.

    >>> list(default_statistics(DataKind((), discrete=True, binary=True)))
    ['mean', 'chi-squared', 'minus log-likelihood']
    """
    return {name: statistic for name, statistic in STATISTICS.items() if statistic.suits(kind)}


__all__ = ["STATISTICS", "DataKind", "Statistic", "default_statistics"]
