"""Every test statistic by name, and the kinds of data that each suits."""

from pyro_vae.criticism.statistics import counts, discrepancies, general, images
from pyro_vae.criticism.statistics.base import DataKind, Statistic


def _graded(kind: DataKind) -> bool:
    """Whether there are more than two values; zeros and ones are described by their mean."""
    return not kind.binary


def _ties(kind: DataKind) -> bool:
    return kind.discrete and not kind.binary


def _counts(kind: DataKind) -> bool:
    return kind.counts


def _joint(kind: DataKind) -> bool:
    return kind.size > 1


def _image(kind: DataKind) -> bool:
    return kind.image


def _graded_image(kind: DataKind) -> bool:
    return kind.image and not kind.binary


def _vector(kind: DataKind) -> bool:
    return kind.size > 1 and not kind.image and not kind.counts


def _graded_vector(kind: DataKind) -> bool:
    return _vector(kind) and not kind.binary


def _count_vector(kind: DataKind) -> bool:
    return kind.size > 1 and not kind.image and kind.counts


STATISTICS: dict[str, Statistic] = {
    "mean": Statistic(general.mean, "mean", "feature"),
    "standard deviation": Statistic(general.standard_deviation, "standard deviation", "feature", suits=_graded),
    "5 % quantile": Statistic(general.quantile(5), "5 % quantile", "feature", 2**17, _graded),
    "median": Statistic(general.quantile(50), "median", "feature", 2**17, _graded),
    "95 % quantile": Statistic(general.quantile(95), "95 % quantile", "feature", 2**17, _graded),
    "skewness": Statistic(general.skewness, "skewness", "feature", 2**19, _graded, ratio=False),
    "excess kurtosis": Statistic(general.excess_kurtosis, "excess kurtosis", "feature", 2**19, _graded, ratio=False),
    "smallest value": Statistic(general.smallest, "smallest value", "feature", suits=_graded),
    "largest value": Statistic(general.largest, "largest value", "feature", suits=_graded),
    "share of zeros": Statistic(general.share_of_zeros, "share of zeros", "feature", suits=_graded),
    "unique values": Statistic(general.unique_values, "number of unique values", "feature", 2**16, _ties),
    "mean correlation": Statistic(general.mean_correlation, "mean absolute correlation", elements=2**18, suits=_joint),
    "largest correlation": Statistic(
        general.largest_correlation, "largest absolute correlation", elements=2**18, suits=_joint
    ),
    "neighbour distance": Statistic(
        general.neighbour_distance, "mean distance to the nearest neighbour", elements=2**18, suits=_joint
    ),
    "row mean": Statistic(general.row_mean, "row average", "row", suits=_vector),
    "row standard deviation": Statistic(
        general.row_standard_deviation, "standard deviation within a row", "row", suits=_graded_vector
    ),
    "dispersion index": Statistic(counts.dispersion_index, "dispersion index", "feature", 2**19, _counts),
    "share of ones": Statistic(counts.share_of_ones, "share of ones", "feature", suits=_counts),
    "row total": Statistic(counts.row_total, "row total", "row", suits=_count_vector),
    "row zeros": Statistic(counts.row_zeros, "share of zeros in a row", "row", suits=_count_vector),
    "ink": Statistic(images.ink, "total ink", "row", None, _image),
    "sparsity": Statistic(images.sparsity, "sparsity", "row", suits=_graded_image),
    "edges": Statistic(images.edges, "contrast of neighbouring pixels", "row", 2**18, _image),
    "centre row": Statistic(images.centre_row, "row of the centre of mass", "row", 2**18, _image, ratio=False),
    "centre column": Statistic(images.centre_column, "column of the centre of mass", "row", 2**18, _image, ratio=False),
    "autocorrelation": Statistic(
        images.autocorrelation, "correlation of neighbouring pixels", "row", 2**18, _image, ratio=False
    ),
    "high frequencies": Statistic(
        images.high_frequencies, "share of power at high frequencies", "row", 2**17, suits=_image
    ),
    "components": Statistic(images.components, "number of connected parts", "row", 2**17, suits=_image),
    "chi-squared": Statistic(discrepancies.chi_squared, "chi-squared discrepancy", "discrepancy", 2**18),
    "minus log-likelihood": Statistic(discrepancies.minus_log_likelihood, "minus log-likelihood", "discrepancy", 2**18),
}


def default_statistics(kind: DataKind) -> dict[str, Statistic]:
    """Test statistics that suit a kind of data, discrepancies among them, by name in the order of the table.

    Args:
        kind: the kind of data.

    >>> list(default_statistics(DataKind((), discrete=True, binary=True)))
    ['mean', 'chi-squared', 'minus log-likelihood']
    """
    return {name: statistic for name, statistic in STATISTICS.items() if statistic.suits(kind)}


__all__ = ["STATISTICS", "DataKind", "Statistic", "default_statistics"]
