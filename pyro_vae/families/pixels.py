"""Families of pixels: integers on a scale of grey."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.distributions import constraints
from pyro_vae.distributions.ordered import DiscretizedLogisticMixture
from pyro_vae.families.base import Family, Source, init_std, parameter
from pyro_vae.families.site import BoundFamily, Shape, SiteSpec

STARTING_ROWS = 2000
"""Rows at most whose quantiles the components start at."""


def _per_component(event: Shape, family: "DiscretizedLogistic") -> Shape:
    return (*event, family.components)


def _spread(x: Tensor, family: "DiscretizedLogistic") -> Tensor:
    """Starting scales: half that of the element, and at least half a level."""
    levels = init_std(x, family) * (3**0.5 / torch.pi / 2)
    scale = levels.clamp(min=0.5) * 2 / (family.bins - 1)
    return scale.unsqueeze(-1).expand(*scale.shape, family.components)


def _quantiles(x: Tensor, family: "DiscretizedLogistic") -> Tensor:
    """Starting locations: quantiles, spread by a scale in all, so that no two are equal on a constant element."""
    ascending = x[:: -(-len(x) // STARTING_ROWS)].sort(0).values
    middles = [(2 * k + 1) * len(ascending) // (2 * family.components) for k in range(family.components)]
    spread = torch.linspace(-0.5, 0.5, family.components + 2, dtype=x.dtype, device=x.device)[1:-1]
    return ascending[middles].movedim(0, -1) * 2 / (family.bins - 1) - 1 + _spread(x, family) * spread


@dataclass(frozen=True)
class DiscretizedLogistic(Family):
    r"""Pixels of B levels 0, ..., B-1, each a mixture of rounded logistic distributions; elements are independent.

    $$ p(x_j) = \sum_k \pi_{jk} \Big[\sigma\Big(\frac{\tilde x_j + h - m_{jk}}{s_{jk}}\Big)
       - \sigma\Big(\frac{\tilde x_j - h - m_{jk}}{s_{jk}}\Big)\Big],
       \qquad \tilde x = \frac{2x}{B - 1} - 1, \quad h = \frac{1}{B - 1} $$

    where levels 0 and B-1 take the tails. It is the density of PixelCNN++ without that model's condition of green
    on red and of blue on both: given z, the three channels of a pixel are independent here, as all elements are. It
    knows that neighbouring levels are alike, which `Categorical(classes=B)` has to learn, and it is a probability, so
    that the bound is in bits per dimension that compare with those of lossless compression.

    References:
        Salimans, Karpathy, Chen and Kingma, PixelCNN++, 2017 [salimans2017], https://arxiv.org/abs/1701.05517.

    Args:
        bins: the number of levels B; 256 for 8 bits.
        components: the number of components, at least 1; of one, the logits have no effect: write logits=0.
        logits: log weights, before they are normalised to pi, of the event's shape and components.
        loc: the locations m, of the same shape, where level 0 is -1 and level B-1 is 1.
        scale: the scales s, of the same shape and unit, in [1e-4, 1000].

    >>> DiscretizedLogistic(bins=17, components=3)
    DiscretizedLogistic(bins=17, components=3, logits=None, loc=None, scale=None)
    """

    bins: int = field(256, low=2, high=2**16)
    components: int = field(5, low=1)
    logits: Source = parameter(constraints.real, shape=_per_component, allows_scalar=False)
    loc: Source = parameter(constraints.real, shape=_per_component, init=_quantiles, init_noise=0.5)
    scale: Source = parameter(constraints.Bounded(1e-4, 1e3, unit=0.1), shape=_per_component, init=_spread)
    is_pixel = True
    fix_hint = (
        "give integers 0, ..., bins-1 (pv.data.load(..., levels=256) makes them of x in [0, 1], on the command "
        "line --data.levels 256), set bins to their number, or take a family for real values"
    )
    roles = ("likelihood",)
    data_kind = "Pixel levels"
    support_text = "integers 0 to bins - 1"

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, with its number of levels."""
        made = partial(DiscretizedLogisticMixture, bins=self.bins, validate_args=False)
        return BoundFamily(self.own_slots(site), made)
