"""Mixtures of a family with itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.core.config import field
from pyro_vae.distributions import constraints
from pyro_vae.distributions.mixture import ReparameterizedNormalMixture
from pyro_vae.families.base import Composite, Family, Source, parameter
from pyro_vae.families.normal import Normal
from pyro_vae.families.site import BoundFamily, Shape, SiteSpec

CLUSTERED_ROWS = 2000
"""Largest number of rows in which cluster centres are searched."""


@dataclass(frozen=True)
class Mixture(Composite):
    r"""A mixture of K components of one family.

    $$ p(x) = \sum_k w_k\, p(x \mid \theta_k), \qquad w = \mathrm{softmax}(l) $$

    Of events, a component is drawn for the whole event: `Mixture(MultivariateNormal(), 10)` as a prior is the
    Gaussian mixture prior. Of elements, one is drawn for each element, as for the pixels of an image. As a guide it
    can be reparameterised for `Mixture(Normal())`.

    Every parameter of the components follows the one rule, with K values where the family has one; "learned" is one
    number for all. Components start on clusters of the data, or at distinct random values without data.

    References:
        McLachlan and Peel, Finite Mixture Models, 2000 [mclachlan2000]. Dilokthanakul et al., Deep Unsupervised
            Clustering with Gaussian Mixture Variational Autoencoders, 2017 [dilokthanakul2017],
            https://arxiv.org/abs/1611.02648. Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018
            [figurnov2018], https://arxiv.org/abs/1805.08498.

    Args:
        family: the family of the components.
        components: their number K, at least 2.
        of: "events" or "elements".
        weights: the log weights l, (K,), or K for each element.

    Raises:
        InputError: components with networks of their own (a flow), or a mixture of mixtures.

    >>> Mixture(Normal(), components=3)
    Mixture(family=Normal(loc=None, scale=None), components=3, of='events', weights=None)
    """

    family: Family = Normal()
    components: int = field(10, low=2)
    of: Literal["events", "elements"] = "events"
    weights: Source = parameter(
        constraints.real,
        shape=lambda event, family: (*event[: family.rank(event)], family.components),
        allows_scalar=False,
    )

    def rank(self, event: Shape) -> int:
        """Number of dimensions of an event before that of the components."""
        return len(event) if self.of == "elements" else 0

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, with one value of each parameter per component."""
        inner, at = self.family.bind(site), self.rank(site.event_shape)
        slots = {
            name: replace(
                slot,
                shape=(*slot.shape[:at], self.components, *slot.shape[at:]),
                init=slot.init and partial(self._start, slot.init, at),
                init_noise=1.0 if slot.constraint is constraints.real else 0.0,
            )
            for name, slot in self.slots_of(inner, _before_components if at else None).items()
        }
        weights = replace(self.own_slots(site)["weights"], init=partial(self._log_shares, at), broadcasts=False)
        mix = partial(self._mix, inner.distribution, len(site.event_shape) - at)
        return BoundFamily({"weights": weights, **slots}, mix, inner.group)

    def _mix(
        self, distribution: Callable[..., Any], rank: int, weights: Tensor, **values: Tensor
    ) -> dist.MixtureSameFamily:
        parts = distribution(**values)
        parts = parts.to_event(max(rank - len(parts.event_shape), 0))
        batch = torch.broadcast_shapes(weights.shape, parts.batch_shape)
        mixture = dist.Categorical(logits=weights.expand(batch), validate_args=False)
        kind = ReparameterizedNormalMixture if rank == 1 and isinstance(self.family, Normal) else dist.MixtureSameFamily
        return kind(mixture, parts.expand(batch), validate_args=False)

    def _groups(self, x: Tensor, at: int) -> list[Tensor]:
        """K groups of rows: clusters of events; or of each element's values, from the lowest to the highest."""
        if at == x.ndim - 1 and self.of == "elements":
            sizes = [len(part) for part in torch.arange(len(x)).tensor_split(self.components)]
            groups = list(x.sort(0).values.split(sizes))
        else:
            label = _clusters(x.reshape(len(x), -1), self.components)
            groups = [x[label == k] for k in range(self.components)]
        return [group if len(group) else x for group in groups]

    def _start(self, start: Callable[[Tensor], Tensor], at: int, x: Tensor) -> Tensor:
        return torch.stack([start(group) for group in self._groups(x, at)], dim=at)

    def _log_shares(self, at: int, x: Tensor) -> Tensor:
        groups = self._groups(x, at)
        shares = torch.tensor([math.log(len(group) / len(x)) for group in groups]).to(x)
        return (shares - shares.logsumexp(0)).expand(*x.shape[1 : 1 + at], self.components).clone()


def _before_components(shift: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and unit with a last dimension for components, where they are one number per element."""
    return shift.unsqueeze(-1), unit.unsqueeze(-1) if unit.ndim else unit


def _clusters(x: Tensor, count: int) -> Tensor:
    """The cluster of each row (N, P), by k-means on the first rows; the same for the same rows."""
    from sklearn.cluster import KMeans

    head = x[:CLUSTERED_ROWS].double().cpu().numpy()
    distinct = len(np.unique(head, axis=0))  # of fewer than K, k-means would warn
    fitted = KMeans(min(count, distinct), n_init=1, random_state=0).fit(head)
    centres = torch.as_tensor(fitted.cluster_centers_).to(x)
    return torch.cdist(x, centres).argmin(1)
