"""Families of labels."""

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.distributions import constraints
from pyro_vae.distributions.ordered import StableOrderedLogistic
from pyro_vae.families.base import Family, Parameter, Source

GREY_LEVELS = 16
"""Number of classes (4 bits) from which elements count as pixels, with reports in bits per dimension too."""


def _one_per_class(event: tuple[int, ...], family: "Categorical") -> tuple[int, ...]:
    return (*event, family.classes)


def _log_shares(x: Tensor, family: "Categorical") -> Tensor:
    counts = torch.stack([(x == label).sum(0) for label in range(family.classes)], dim=-1)
    return torch.log((counts.to(x) + 0.5) / (x.shape[0] + 0.5 * family.classes))


@dataclass(frozen=True)
class Categorical(Family):
    r"""Independent elements, each one of K unordered labels 0, ..., K-1.

    $$ p(x) = \prod_j \frac{\exp l_{j x_j}}{\sum_k \exp l_{jk}} $$

    It has no mean: its values are names. Look at draws, or at `vae.decode(z).base_dist.probs`.

    References:
        Agresti, Categorical Data Analysis, 2013.

    Args:
        classes: the number of labels K, at least 2.
        logits: the log weights l, of the event's shape and K.

    >>> Categorical(classes=3)
    Categorical(classes=3, logits=None)
    """

    classes: int = field(2, low=2)
    logits: Source = None
    parameters = {"logits": Parameter(constraints.real, shape=_one_per_class, init=_log_shares, allows_scalar=False)}
    fix_hint = "code the labels as 0, 1, ..., K-1 and set classes=K, or take a family for real values"
    roles = ("likelihood",)
    data_kind = "Categories"
    support_text = "whole numbers 0 to classes - 1"

    distribution = dist.Categorical

    @property
    def is_pixel(self) -> bool:
        """Whether there are as many classes as a pixel has levels."""
        return self.classes >= GREY_LEVELS


def _cutpoints(event: tuple[int, ...], family: "OrderedLogistic") -> tuple[int, ...]:
    return (*event, family.levels - 1)


def _log_odds_below(x: Tensor, family: "OrderedLogistic") -> Tensor:
    counts = torch.stack([(x <= level).sum(0) for level in range(family.levels - 1)], dim=-1)
    half = 0.5 * torch.arange(1, family.levels, dtype=x.dtype, device=x.device)
    return torch.logit((counts + half) / (x.shape[0] + 0.5 * family.levels))


@dataclass(frozen=True)
class OrderedLogistic(Family):
    r"""Independent elements, each one of K ordered levels 0, ..., K-1: grades, Likert scales, grey values.

    $$ p(x_j \le k) = \sigma(c_{j,k+1} - m_j), \qquad k = 0, \dots, K-2 $$

    One number per element says where on the scale it lies, and the cutpoints, what answers that means. These are
    mostly properties of the element and not of the row: `OrderedLogistic(K, cutpoints="per_feature")` is the model of
    item response theory, and costs one network output per element instead of K.

    References:
        McCullagh, Regression Models for Ordinal Data, 1980.

    Args:
        levels: the number of levels K, at least 2.
        predictor: the location m on the scale of log odds, of the event's shape; 0 before training.
        cutpoints: the log odds c of each level or one below it at m = 0, of the event's shape and K-1: ascending, in
            [-20, 20], at least 1e-4 apart.

    >>> OrderedLogistic(levels=5, cutpoints="per_feature")
    OrderedLogistic(levels=5, predictor=None, cutpoints='per_feature')
    """

    levels: int = field(2, low=2, high=2**16)
    predictor: Source = None
    cutpoints: Source = None
    parameters = {
        "predictor": Parameter(constraints.real),
        "cutpoints": Parameter(constraints.cutpoints, shape=_cutpoints, init=_log_odds_below, allows_scalar=False),
    }
    distribution = StableOrderedLogistic
    fix_hint = "code the levels as 0, 1, ..., K-1 and set levels=K, or take a family for real values"
    roles = ("likelihood",)
    data_kind = "Categories"
    support_text = "whole numbers 0 to levels - 1"

    @property
    def is_pixel(self) -> bool:
        """Whether there are as many levels as a pixel has."""
        return self.levels >= GREY_LEVELS


def _log_shares_of_one(x: Tensor, family: "OneHot") -> Tensor:
    return torch.log((x.sum(0) + 0.5) / (x.shape[0] + 0.5 * x.shape[-1]))


@dataclass(frozen=True)
class OneHot(Family):
    r"""Vectors along the last dimension, each with a single one among zeros: labels as indicators.

    $$ p(x) = \prod_j \frac{\exp \sum_k l_{jk} x_{jk}}{\sum_k \exp l_{jk}}, \qquad
       x_{jk} \in \{0, 1\}, \quad \sum_k x_{jk} = 1 $$

    It is `Categorical` in another coding: an encoder sees labels without an order, as it should. A sequence of N
    letters is an event (N, K).

    References:
        Agresti, Categorical Data Analysis, 2013.

    Args:
        logits: the log weights l, of the event's shape.

    >>> OneHot()
    OneHot(logits=None)
    """

    logits: Source = None
    parameters = {"logits": Parameter(constraints.real, init=_log_shares_of_one, allows_scalar=False)}
    event_ranks = (1, 2, 3, 4)
    fix_hint = (
        "code labels as torch.nn.functional.one_hot(labels, K), along the last dimension, or give the labels "
        "themselves to Categorical(classes=K)"
    )
    roles = ("likelihood",)
    data_kind = "Categories"
    support_text = "one-hot vectors"

    distribution = dist.OneHotCategorical
