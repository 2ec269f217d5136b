"""Priors that depend on the model."""

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.distributions import constraints
from pyro_vae.families.base import Family, Source, parameter
from pyro_vae.families.site import BoundFamily, Shape, SiteSpec


class PseudoInputs(nn.Module):
    """Trained inputs of a guide, and the mixture of its posteriors there."""

    def __init__(self, components: int, data_shape: Shape, guide: nn.Module) -> None:
        super().__init__()
        self.inputs = nn.Parameter(torch.randn(components, *data_shape))
        self._guide = (guide,)  # in a tuple, for its weights are the guide's and not this prior's

    def forward(self, weights: Tensor) -> dist.MixtureSameFamily:
        """Mixture of q(z|u_k) with these log weights (K,)."""
        (guide,) = self._guide
        mixture = dist.Categorical(logits=weights, validate_args=False)
        return dist.MixtureSameFamily(mixture, guide(self.inputs), validate_args=False)

    def adapt(self, x: Tensor) -> None:
        """Start at rows (N, *data_shape), drawn without replacement as long as there are any."""
        count = len(self.inputs)
        order = torch.cat([torch.randperm(len(x)) for _ in range(-(-count // len(x)))])[:count]
        self.inputs.copy_(x[order.to(x.device)])


@dataclass(frozen=True)
class VampPrior(Family):
    r"""The variational mixture of posteriors: the guide, averaged over K trained pseudo-inputs.

    $$ p(z) = \sum_k w_k\, q(z \mid u_k) $$

    The best prior for the ELBO is the aggregate posterior $\frac1N \sum_n q(z \mid x_n)$, of which this is the
    version with few inputs, learned with everything else. The pseudo-inputs start at rows of the data.

    References:
        Tomczak and Welling, VAE with a VampPrior, 2018, https://arxiv.org/abs/1705.07120.

    Args:
        components: the number K of pseudo-inputs u, each of the shape of one datum and in the data's unit.
        weights: the log weights, (K,): equal and fixed by default, trained with "per_feature".

    Raises:
        InputError: in another role than the prior's.

    >>> VampPrior(components=50)
    VampPrior(components=50, weights=0.0)
    """

    components: int = field(500, low=1)
    weights: Source = parameter(
        constraints.real, 0.0, shape=lambda _, family: (family.components,), allows_scalar=False
    )
    event_ranks = (1,)
    roles = ("prior",)
    data_kind = "Priors that depend on the model"

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, with pseudo-inputs of the data's shape."""
        if site.guide is None or site.data_shape is None:
            raise InputError(
                f"{site.role}: VampPrior is a mixture of the guide's posteriors, so it can only be a prior: write "
                "prior=pv.VampPrior(), guide=pv.Normal()."
            )
        return BoundFamily(self.own_slots(site), PseudoInputs(self.components, site.data_shape, site.guide))
