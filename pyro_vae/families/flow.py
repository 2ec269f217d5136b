"""Normalizing flows, from Zuko."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyro_vae.core.config import field
from pyro_vae.core.errors import InputError
from pyro_vae.distributions import constraints
from pyro_vae.distributions.flow import FlowKernel, import_zuko
from pyro_vae.families.base import Family, Source, init_mean, init_std, parameter
from pyro_vae.families.site import BoundFamily, ParameterSlot, SiteSpec

Maker = Callable[["Flow", int, int], Any]


def _stacked(name: str, **options: Any) -> Maker:
    """A flow of several transforms, each with a network of its own."""
    return lambda flow, features, context: getattr(import_zuko().flows, name)(
        features, context, transforms=flow.transforms, hidden_features=flow.hidden, **options
    )


def _additive(flow: "Flow", features: int, context: int) -> Any:
    """Couplings that shift and do not scale; Zuko's NICE scales by default."""
    shift = import_zuko().transforms.AdditiveTransform
    return _stacked("NICE", univariate=shift, shapes=[()])(flow, features, context)


KINDS: Mapping[str, Maker] = {
    "nsf": _stacked("NSF"),
    "maf": _stacked("MAF"),
    "realnvp": _stacked("RealNVP"),
    "nice": _additive,
    "unaf": _stacked("UNAF", network={"hidden_features": (16, 16)}),
    "sospf": _stacked("SOSPF"),
    "bpf": _stacked("BPF"),
    "cnf": lambda flow, features, context: import_zuko().flows.CNF(features, context, hidden_features=flow.hidden),
}
"""Zuko's flows by their usual names; its NAF and GF are not densities (they map the line to less than the line)."""


@dataclass(frozen=True)
class Flow(Family):
    r"""A normalizing flow over vectors: a learned invertible map $f$ of a standard Gaussian.

    $$ p(x) = N\big(f(y)\,;\,0, I\big)\,\Big|\det \frac{\partial f}{\partial y}\Big| \prod_j \frac1{s_j},
       \qquad y_j = \frac{x_j - m_j}{s_j} $$

    As a prior it is a learned density; as a guide or a likelihood, the network computes a context vector that every
    transform of the flow is conditioned on. Kinds: nsf (neural spline), maf (masked autoregressive), realnvp, nice,
    unaf (unconstrained neural autoregressive), sospf (sum of squares), bpf (Bernstein), cnf (continuous).
    realnvp and nice draw as fast as they score; autoregressive kinds draw in D passes, and unaf, sospf and bpf by
    bisection too: take those three as a prior.

    References:
        Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference, 2021 [papamakarios2021],
            https://arxiv.org/abs/1912.02762. Durkan et al., Neural Spline Flows, 2019 [durkan2019],
            https://arxiv.org/abs/1906.04032.
        Chen et al., Variational Lossy Autoencoder, 2017 [chen2017] (flow priors), https://arxiv.org/abs/1611.02731.

    Args:
        kind: the kind of flow, by name.
        transforms: how many transforms follow one another (a cnf has one).
        hidden: units of the hidden layers of each transform's network.
        context: length of the context vector that the network computes, where there is a context.
        loc: the location m, (D,), in the data's unit.
        scale: the scale s, (D,), in [1e-4, 1e6] times the data's unit.

    Raises:
        InputError: an unknown kind; a flow of one element.

    >>> Flow("maf", transforms=2).kind
    'maf'
    """

    kind: str = field("nsf", known=KINDS)
    transforms: int = field(3, low=1)
    hidden: tuple[int, ...] = field((64, 64), low=1)
    context: int = field(32, low=1)
    loc: Source = parameter(constraints.real, "per_feature", init=init_mean, unit="location")
    scale: Source = parameter(constraints.positive, "per_feature", init=init_std, unit="scale")
    event_ranks = (1,)
    data_kind = "Vectors"
    support_text = "vectors of real numbers"

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, with a context vector where the site has a context."""
        (features,) = site.event_shape
        if features == 1:
            raise InputError(
                f"{site.role}: a flow of one element has nothing to couple: take pv.Mixture(pv.Normal(), "
                "components=10)."
            )
        slots = self.own_slots(site)
        width = 0
        if site.context_shape is not None:
            width = self.context
            slots["context"] = ParameterSlot(constraints.real, (width,), None)
        return BoundFamily(slots, FlowKernel(KINDS[self.kind](self, features, width), features), "location_scale")
