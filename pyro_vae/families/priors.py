"""Priors that depend on the model: one of the guide's own posteriors, and one that is fitted after training."""

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.distributions import constraints
from pyro_vae.distributions.constraints import describe, supports_equal
from pyro_vae.families.base import Composite, Family, Source, parameter
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.mixture import Mixture
from pyro_vae.families.normal import MultivariateNormal, Normal
from pyro_vae.families.site import BoundFamily, Shape, SiteSpec
from pyro_vae.networks.base import OfRows


class PseudoInputs(OfRows):
    """Trained inputs of a guide, in the canonical unit of its data, and the mixture of its posteriors there."""

    loc: Tensor
    scale: Tensor

    def __init__(self, components: int, data_shape: Shape, guide: Any) -> None:
        super().__init__()
        self.inputs = nn.Parameter(torch.randn(components, *data_shape))
        self.register_buffer("loc", torch.zeros(data_shape))
        self.register_buffer("scale", torch.ones(data_shape))
        self._guide = (guide,)  # in a tuple, for its weights are the guide's and not this prior's

    def forward(self, weights: Tensor) -> dist.MixtureSameFamily:
        """Mixture of q(z|u_k) with these log weights (K,)."""
        (guide,) = self._guide
        mixture = dist.Categorical(logits=weights, validate_args=False)
        return dist.MixtureSameFamily(mixture, guide(self.in_data_unit()), validate_args=False)

    def in_data_unit(self) -> Tensor:
        """The inputs in the user's unit, (K, *data_shape)."""
        return self.loc + self.scale * self.inputs

    def adapt(self, x: Tensor) -> None:
        """Start at rows (N, *data_shape), drawn without replacement as long as there are any."""
        count, inputs = len(self.inputs), self._guide[0].inputs
        if inputs is not None and inputs.measure is not None:
            self.set_row_type(inputs.loc.dtype)
            self.loc.copy_(inputs.loc)
            self.scale.copy_(inputs.scale)
        order = torch.cat([torch.randperm(len(x)) for _ in range(-(-count // len(x)))])[:count]
        self.inputs.copy_((x[order.to(x.device)] - self.loc) / self.scale)


@dataclass(frozen=True)
class VampPrior(Family):
    r"""The variational mixture of posteriors: the guide, averaged over K trained pseudo-inputs.

    $$ p(z) = \sum_k w_k\, q(z \mid u_k) $$

    The best prior for the ELBO is the aggregate posterior $\frac1N \sum_n q(z \mid x_n)$, of which this is the
    version with few inputs, learned with everything else. The pseudo-inputs start at rows of the data.

    References:
        Tomczak and Welling, VAE with a VampPrior, 2018 [tomczak2018], https://arxiv.org/abs/1705.07120.

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


class TwoStages(nn.Module):
    """The prior of training until the density is fitted, and the density from then on."""

    fitted: Tensor

    def __init__(self, base: Conditional, density: Conditional) -> None:
        super().__init__()
        self.base, self.density = base, density
        self.register_buffer("fitted", torch.tensor(False))
        self._second = False  # the value of the buffer, without a host sync

    def forward(self) -> Any:
        """Distribution p(z) of the present stage."""
        return self.density() if self._second else self.base()

    @torch.no_grad()
    def replace(self, density: Conditional) -> None:
        """Replace the prior by a fitted density."""
        self.density.load_state_dict(density.state_dict())
        self.fitted.fill_(True)
        self._second = True

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        self._second = bool(self.fitted)


@dataclass(frozen=True)
class Aggregate(Composite):
    r"""A density fitted, after training, to the aggregate posterior: two-stage, or ex-post, density estimation.

    $$ p(z) \approx q(z) = \frac1N \sum_n q(z \mid x_n) $$

    `fit` trains under `base`, then fits the density to draws from the guide by maximum likelihood, encoder and decoder
    resting; it is p(z) from then on. `pv.aggregate` does the second step on a model that is trained already. Sampling
    improves where the aggregate is far from the prior; the bound of training was that under `base`.

    References:
        Ghosh et al., From Variational to Deterministic Autoencoders, 2020 [ghosh2020],
            https://arxiv.org/abs/1903.12436.
        Dai and Wipf, Diagnosing and Enhancing VAE Models, 2019 [dai2019], https://arxiv.org/abs/1903.05789.

    Args:
        family: the density, such as a Gaussian mixture or a flow.
        base: the prior during training.

    Raises:
        InputError: in another role than the prior's; a density over another set than the base's.

    >>> Aggregate(Mixture(Normal(), components=20)).base
    Normal(loc=0.0, scale=1.0)
    """

    family: Family = Mixture(MultivariateNormal(), components=10)
    base: Family = Normal(0, 1)
    event_ranks = (1,)
    roles = ("prior",)
    data_kind = "Priors that depend on the model"

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place: the prior of training and the density."""
        if site.role != "prior":
            raise InputError(
                f"{site.role}: Aggregate is fitted to where the guide puts the data, so it can only be a prior: write "
                "prior=pv.Aggregate()."
            )
        base, density = Conditional(self.base, site), Conditional(self.family, site)
        if not supports_equal(base.support, density.support):
            raise InputError(
                f"prior: {self.family!r} has support {describe(density.support)} and base={self.base!r} has "
                f"{describe(base.support)}, and one follows the other: take a pair over the same set, such as "
                "pv.Aggregate(pv.Mixture(pv.Normal()), base=pv.Normal(0, 1))."
            )
        return BoundFamily({}, TwoStages(base, density))
