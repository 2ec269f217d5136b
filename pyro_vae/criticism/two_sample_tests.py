"""Two-sample tests of equal distributions: of latents and their prior, of replicates and data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.density_coverage import density_coverage, finite_samples
from pyro_vae.distributions.mmd import kernel, squared_distances

ROWS = 1000
"""Maximum number of points of each sample in an MMD test, whose cost grows with its square, and of a replicate."""

MIN_ROWS = 50
"""Minimum number of rows for tests of a replicate, or of an aggregate."""


@dataclass(frozen=True, eq=False, repr=False)
class MMDTest:
    """Permutation test of the squared maximum mean discrepancy of two samples.

    Args:
        mmd2: its unbiased estimate, with no unit; around 0 where the distributions are equal.
        p_value: the share of random divisions of all points into two samples with an MMD at least as large.
        points: the number N of points of each sample.
    """

    mmd2: float
    p_value: float
    points: int

    def __repr__(self) -> str:
        """Summarise in a line."""
        return f"MMD^2 {self.mmd2:.3g}, {format_p_value(self.p_value)}, {self.points} points of each"


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierTest:
    """Classifier two-sample test: the accuracy of a classifier that distinguishes two samples.

    Args:
        accuracy: the share of held-out points classified correctly; around 1/2 where the distributions are equal.
        se: its standard error.
        p_value: the probability of an accuracy at least as high if they are equal.
        points: the number of held-out points of both samples together.
        importance: importance of each feature, (D,), with sum 1, for the last classifier fitted: its
            `feature_importances_`, or the sizes of its `coef_`, which depend on the features' units. It means little
            where the accuracy is around 1/2. None where the classifier has neither, or uses no feature.
    """

    accuracy: float
    se: float
    p_value: float
    points: int
    importance: Tensor | None = None

    def __repr__(self) -> str:
        """Summarise in a line."""
        return f"accuracy {self.accuracy:.1%} +- {self.se:.1%}, {format_p_value(self.p_value)}"


@explained
def mmd_test(x: Tensor, y: Tensor, *, permutations: int = 999, seed: int = 0) -> MMDTest:
    r"""Permutation test of equal distributions of two samples, by their maximum mean discrepancy.

    The kernel is that of `pyro_vae.distributions.mmd.mmd2`, on elements in units of their spread in both samples.
    Under equality all divisions of the pooled points are equally probable, so the p-value is exact.

    References:
        Gretton et al., A Kernel Two-Sample Test, 2012 [gretton2012], https://jmlr.org/papers/v13/gretton12a.html.

    Args:
        x: a sample (N, D); the first 1,000 points of it are used.
        y: another (N, D), of the same size.
        permutations: the number of random divisions with which the samples' own is compared.
        seed: of the divisions.

    Raises:
        InputError: the samples have different shapes, fewer than 2 points, or values that are not finite.

    >>> z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> mmd_test(z[:100], 2 * z[100:])
    MMD^2 0.484, p = 0.001, 100 points of each
    """
    x, y = _checked(x[:ROWS], y[:ROWS], least=2)
    count, pooled = len(x), _scaled(torch.cat([x, y]))
    values = kernel(squared_distances(pooled, pooled), pooled.shape[1]).fill_diagonal_(0)
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(permutations, 2 * count, generator=generator).argsort(1)
    first = torch.cat([torch.arange(2 * count)[None] < count, order < count]).to(values)
    within = ((first @ values) * first).sum(1)
    across = (first @ values).sum(1) - within
    others = values.sum() - within - 2 * across
    found = (within + others) / (count * (count - 1)) - 2 * across / count**2
    least = found[0] - 1e-9 * values.sum() / count**2  # values that differ by rounding alone count as equal
    p_value = (1 + int((found[1:] >= least).sum())) / (1 + permutations)
    return MMDTest(float(found[0]), p_value, count)


@explained
def classifier_test(x: Tensor, y: Tensor, *, classifier: Any = None, folds: int = 5, seed: int = 0) -> ClassifierTest:
    r"""Test of equal distributions of two samples, by the accuracy of a classifier that distinguishes them.

    All points, in random order, make folds with as many of each sample; each fold but the first is predicted by a
    classifier trained on those before it. If the distributions are equal, a fold's labels are a fair draw whatever
    came before: the number A of hits among n points has mean n/2 and, where a points were given to the first
    sample, variance a (n - a) / (n - 1), and $z = \sum (A - n/2) / \sqrt{\sum \mathrm{Var}}$ is that of a martingale,
    so nearly normal. In ordinary cross-validation folds depend on each other, and no such p-value is right.

    References:
        Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017 [lopezpaz2017],
            https://arxiv.org/abs/1610.06545.
        Dawid, Present Position and Potential Developments: the Prequential Approach, 1984 [dawid1984].

    Args:
        x: a sample (N, D).
        y: another (N, D), of the same size.
        classifier: any classifier of scikit-learn's kind; randomised trees by default.
        folds: how many folds.
        seed: of the order of the points, and of the default classifier.

    Raises:
        InputError: the samples have different shapes, fewer than 10 points a fold, or values that are not finite.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> z = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    >>> classifier_test(z[:200], z[200:] + 2, classifier=GaussianNB())
    accuracy 92.8% +- 1.4%, p < 0.0001
    """
    from scipy.stats import norm  # here, for importing these takes time
    from sklearn.base import clone
    from sklearn.ensemble import ExtraTreesClassifier

    check_integers(folds=(folds, 2))
    x, y = _checked(x, y, least=10 * folds)
    rng, size = np.random.default_rng(seed), len(x) // folds
    mixed = [sample.cpu().numpy()[rng.permutation(len(sample))].reshape(len(sample), -1) for sample in (x, y)]
    points = [np.concatenate([sample[at * size : (at + 1) * size] for sample in mixed]) for at in range(folds)]
    labels = np.repeat([0, 1], size)
    # Randomised trees are sensitive to any shape and scale of difference. Each split considers 64 elements at most,
    # which takes an eighth of the time for images and decorrelates the trees.
    trees = ExtraTreesClassifier(50, min_samples_leaf=10, max_features=min(64, x.shape[1]), random_state=seed)
    unfitted = trees if classifier is None else classifier  # not `or`: an unfitted forest has no length
    hits, variance = 0.0, 0.0
    for at in range(1, folds):
        fitted = clone(unfitted).fit(np.concatenate(points[:at]), np.tile(labels, at))
        predicted = np.asarray(fitted.predict(points[at])) == 1
        hits += float((predicted == (labels == 1)).sum())
        variance += float(predicted.sum()) * float((~predicted).sum()) / (2 * size - 1)
    count = 2 * size * (folds - 1)
    accuracy = hits / count
    # Hits change by two at a time, hence the continuity correction of one; constant predictions have no variance.
    p_value = float(norm.sf((hits - count / 2 - 1) / math.sqrt(variance))) if variance else 1.0
    se = math.sqrt(accuracy * (1 - accuracy) / count)
    return ClassifierTest(accuracy, se, p_value, count, _importance(fitted, x.shape[1]))


def two_sample_dataset(x: Tensor, replicate: Tensor, features: Sequence[str], seed: int) -> xr.Dataset | None:
    """Dataset of two-sample tests that compare a replicate with the data.

    Of data and replicate (N, *event_shape) the first 1,000 rows are used; with fewer than 50 there is no dataset. It
    has statistics and p-values of the tests, and the classifier's feature importance.
    """
    if len(x) < MIN_ROWS:
        return None
    data, drawn = (sample[:ROWS].reshape(min(len(sample), ROWS), -1).double().cpu() for sample in (x, replicate))
    classified, mmd = classifier_test(data, drawn, seed=seed), mmd_test(data, drawn, seed=seed)
    covered = density_coverage(data, drawn)
    numbers = {
        "classifier_accuracy": classified.accuracy,
        "classifier_error": classified.se,
        "classifier_p_value": classified.p_value,
        "mmd2": mmd.mmd2,
        "mmd_p_value": mmd.p_value,
        "density": covered.density,
        "coverage": covered.coverage,
        "coverage_expected": covered.expected,
        "points": len(data),
    }
    importance = np.full(len(features), np.nan) if classified.importance is None else classified.importance.numpy()
    return xr.Dataset(
        {**numbers, "importance": ("feature", importance)}, coords={"feature": np.array(features, dtype=str)}
    )


def _importance(fitted: Any, features: int) -> Tensor | None:
    """Importance of each feature for a fitted classifier, (D,), with sum 1; of a pipeline, for its last step."""
    *before, last = [step for _, step in getattr(fitted, "steps", [("", fitted)])]
    weights = getattr(last, "feature_importances_", getattr(last, "coef_", None))
    sizes = None if weights is None else torch.as_tensor(np.asarray(weights)).double().abs().flatten()
    if sizes is None or len(sizes) != features or not bool(sizes.isfinite().all() and sizes.any()):
        return None
    if before:  # the outputs of a step such as PCA are no longer the features
        try:
            names = list(fitted[:-1].get_feature_names_out())
        except (AttributeError, ValueError):
            return None
        if names != [f"x{at}" for at in range(features)]:
            return None
    return sizes / sizes.sum()


def _scaled(points: Tensor) -> Tensor:
    """Points (N, D) with elements in units of their spread: the interquartile range, robust to heavy tails."""
    low, high = torch.quantile(points, torch.tensor([0.25, 0.75]).to(points), dim=0)
    spread = torch.where(high > low, (high - low) / 1.349, points.std(0))
    return points / torch.where(spread > 0, spread, 1)


def _checked(x: Tensor, y: Tensor, *, least: int) -> tuple[Tensor, Tensor]:
    """Both samples in float64, checked."""
    if x.ndim != 2 or x.shape != y.shape or len(x) < least:
        raise InputError(
            f"two samples of shapes {tuple(x.shape)} and {tuple(y.shape)} cannot be compared: give two of one shape "
            f"(N, D), with N of at least {least}."
        )
    return finite_samples(x, y)
