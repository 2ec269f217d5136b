"""Families of labels."""

from dataclasses import dataclass
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.distributions import constraints
from pyro_vae.distributions.bernoulli import FusedBernoulli, GreyBernoulli
from pyro_vae.distributions.ordered import StableOrderedLogistic
from pyro_vae.families.base import Family, Source, parameter
from pyro_vae.families.site import BoundFamily, SiteSpec

GREY_LEVELS = 16
"""Number of classes (4 bits) from which elements count as pixels, with reports in bits per dimension too."""


@dataclass(frozen=True)
class Bernoulli(Family):
    r"""Independent binary elements.

    $$ p(x) = \prod_j \sigma(l_j)^{x_j}\,(1 - \sigma(l_j))^{1 - x_j}, \qquad x_j \in \{0, 1\} $$

    Grey values between 0 and 1 are refused, for under them the formula does not integrate to one and its
    "likelihood" compares with nothing; `ContinuousBernoulli` is their density. `grey=True` computes it all the same, as
    much published code does, and every report then states it.

    References:
        Loaiza-Ganem and Cunningham, The continuous Bernoulli: fixing a pervasive error in variational autoencoders,
            2019 [loaizaganem2019], https://arxiv.org/abs/1907.06845.

    Args:
        logits: the log odds l of a one, of the event's shape.
        grey: whether values between 0 and 1 are let in, as a cross-entropy that is not a density.

    >>> Bernoulli(logits=0)
    Bernoulli(logits=0.0, grey=False)
    """

    logits: Source = parameter(constraints.real, init=lambda x, _: torch.logit((x.sum(0) + 0.5) / (len(x) + 1)))
    grey: bool = False
    fix_hint = (
        "take their density, ContinuousBernoulli(), binarise the data (pv.data.load(..., binarize='dynamic'), on the "
        "command line --data.binarize dynamic), take a family for real values such as Normal(scale='learned'), or "
        "accept a cross-entropy that is not a density: Bernoulli(grey=True)"
    )
    roles = ("likelihood",)
    data_kind = "Categories"
    support_text = "0 and 1"

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, with the support that `grey` selects."""
        kind = GreyBernoulli if self.grey else FusedBernoulli
        return BoundFamily(self.own_slots(site), partial(kind, validate_args=False))

    @property
    def caveat(self) -> str:
        """Caveat that grey values make the log-likelihood a cross-entropy."""
        return "Bernoulli(grey=True) on values in [0, 1] is a cross-entropy, not a density" if self.grey else ""


def _log_shares(x: Tensor, family: "Categorical") -> Tensor:
    counts = torch.stack([(x == label).sum(0) for label in range(family.classes)], dim=-1)
    return torch.log((counts.to(x) + 0.5) / (x.shape[0] + 0.5 * family.classes))


@dataclass(frozen=True)
class Categorical(Family):
    r"""Independent elements, each one of K unordered labels 0, ..., K-1.

    $$ p(x) = \prod_j \frac{\exp l_{j x_j}}{\sum_k \exp l_{jk}} $$

    It has no mean: its values are names. Look at draws, or at `vae.decode(z).base_dist.probs`.

    References:
        Agresti, Categorical Data Analysis, 2013 [agresti2013].

    Args:
        classes: the number of labels K, at least 2.
        logits: the log weights l, of the event's shape and K.

    >>> Categorical(classes=3)
    Categorical(classes=3, logits=None)
    """

    classes: int = field(2, low=2)
    logits: Source = parameter(
        constraints.real,
        shape=lambda event, family: (*event, family.classes),
        init=_log_shares,
        allows_scalar=False,
    )
    fix_hint = "code the labels as 0, 1, ..., K-1 and set classes=K, or take a family for real values"
    roles = ("likelihood",)
    data_kind = "Categories"
    support_text = "integers 0 to classes - 1"

    distribution = dist.Categorical

    @property
    def is_pixel(self) -> bool:
        """Whether there are as many classes as a pixel has levels."""
        return self.classes >= GREY_LEVELS


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
        McCullagh, Regression Models for Ordinal Data, 1980 [mccullagh1980].

    Args:
        levels: the number of levels K, at least 2.
        predictor: the location m on the scale of log odds, of the event's shape; 0 before training.
        cutpoints: the log odds c of each level or one below it at m = 0, of the event's shape and K-1: ascending, in
            [-20, 20], at least 1e-4 apart.

    >>> OrderedLogistic(levels=5, cutpoints="per_feature")
    OrderedLogistic(levels=5, predictor=None, cutpoints='per_feature')
    """

    levels: int = field(2, low=2, high=2**16)
    predictor: Source = parameter(constraints.real)
    cutpoints: Source = parameter(
        constraints.cutpoints,
        shape=lambda event, family: (*event, family.levels - 1),
        init=_log_odds_below,
        allows_scalar=False,
    )
    distribution = StableOrderedLogistic
    fix_hint = "code the levels as 0, 1, ..., K-1 and set levels=K, or take a family for real values"
    roles = ("likelihood",)
    data_kind = "Categories"
    support_text = "integers 0 to levels - 1"

    @property
    def is_pixel(self) -> bool:
        """Whether there are as many levels as a pixel has."""
        return self.levels >= GREY_LEVELS


@dataclass(frozen=True)
class OneHot(Family):
    r"""Vectors along the last dimension, each with a single one among zeros: labels as indicators.

    $$ p(x) = \prod_j \frac{\exp \sum_k l_{jk} x_{jk}}{\sum_k \exp l_{jk}}, \qquad
       x_{jk} \in \{0, 1\}, \quad \sum_k x_{jk} = 1 $$

    It is `Categorical` in another coding: an encoder sees labels without an order, as it should. A sequence of N
    letters is an event (N, K).

    References:
        Agresti, Categorical Data Analysis, 2013 [agresti2013].

    Args:
        logits: the log weights l, of the event's shape.

    >>> OneHot()
    OneHot(logits=None)
    """

    logits: Source = parameter(
        constraints.real,
        init=lambda x, _: torch.log((x.sum(0) + 0.5) / (len(x) + 0.5 * x.shape[-1])),
        allows_scalar=False,
    )
    event_ranks = (1, 2, 3, 4)
    fix_hint = (
        "code labels as torch.nn.functional.one_hot(labels, K), along the last dimension, or give the labels "
        "themselves to Categorical(classes=K)"
    )
    roles = ("likelihood",)
    data_kind = "Categories"
    support_text = "one-hot vectors"

    distribution = dist.OneHotCategorical
