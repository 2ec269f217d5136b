"""One minimal case per table entry: what the laws have to know of it and cannot ask it.

A new family or network is one more entry here, and every law then runs over it. An entry of a table that has
no case raises `LookupError` as soon as a law asks for it, which fails the suite.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import transform_to

import pyro_vae as pv
from pyro_vae.conditional import Conditional, Site
from pyro_vae.families import FAMILIES as FAMILY_TABLE
from pyro_vae.families import Family
from pyro_vae.networks import NETWORKS as NETWORK_TABLE
from pyro_vae.networks import Network

Array: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = tuple[int, ...]
Named: TypeAlias = dict[str, Tensor]

ROLES = ("prior", "likelihood", "guide")
EVENTS: tuple[Shape, ...] = ((), (3,), (1, 5, 7))
LEADING: tuple[Shape, ...] = ((), (4,), (2, 4))


class Cases(dict[str, Any]):
    """Cases by the names of a table."""

    def __missing__(self, name: str) -> Any:
        raise LookupError(f"{name} is in a table of pyro_vae and has no case in tests/cases.py: add one.")


# ---- families --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FamilyCase:
    """What the laws need to know of a family.

    Args:
        family: a declaration whose parameters all come from the network.
        roles: where it may be used; a guide has to be reparameterised.
        data: rows (N, *event) in its support, float64, from (N, event, generator).
        parameters: random legal values of all its parameters, float64, from (event, generator), for which its
            second moments exist.
        start: the values that its parameters have after `initialize(x)` where the network says 0, from rows x.
        variants: other ways to write it.
        log_prob: scipy's log density, of one event x and named parameters: a number, or one per element.
        values: every value one element can take, for a discrete family (a long range where there are infinitely many).
    """

    family: Family
    roles: tuple[str, ...]
    data: Callable[[int, Shape, torch.Generator], Tensor]
    parameters: Callable[[Shape, torch.Generator], Named]
    start: Callable[[Tensor], Named]
    variants: tuple[Family, ...] = ()
    log_prob: Callable[..., Any] | None = None
    values: tuple[float, ...] | None = None

    @property
    def declarations(self) -> tuple[Family, ...]:
        """The family in every way of writing it."""
        return (self.family, *self.variants)

    def fixed(self, event: Shape, generator: torch.Generator) -> tuple[Family, dict[str, Array]]:
        """The family with random fixed parameters, and these."""
        values = {name: value.numpy() for name, value in self.parameters(event, generator).items()}
        return dataclasses.replace(self.family, **values), values


def _normals(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    return 3 + 2 * torch.randn(rows, *event, generator=generator, dtype=torch.float64)


def _labels(classes: int, rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    return torch.randint(classes, (rows, *event), generator=generator).double()


def _between(low: float, high: float, shape: Shape, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def _location_scale(event: Shape, generator: torch.Generator) -> Named:
    return {"loc": _between(-2, 2, event, generator), "scale": _between(0.3, 3, event, generator)}


def _spread(x: Tensor) -> Tensor:
    spread = np.where(np.ptp(x.numpy(), axis=0) > 0, np.std(x.numpy(), axis=0), 0)
    floor = 0.1 * spread.mean()
    return torch.as_tensor(np.maximum(spread, floor) if floor > 0 else np.ones_like(spread))


def _mean_and_spread(x: Tensor) -> Named:
    return {"loc": x.mean(0), "scale": _spread(x)}


def _student(event: Shape, generator: torch.Generator) -> Named:
    return {"df": _between(6, 30, event, generator), **_location_scale(event, generator)}


def _correlated(event: Shape, generator: torch.Generator) -> Named:
    root = torch.randn(*event, 2 * event[-1], generator=generator, dtype=torch.float64)
    return {"loc": _between(-2, 2, event, generator), "scale_tril": torch.linalg.cholesky(root @ root.mT)}


def _categorical_log_prob(x: Array, logits: Array) -> Any:
    return scipy.stats.multinomial.logpmf(np.eye(3)[x.astype(int)], 1, scipy.special.softmax(logits, -1))


FAMILIES = Cases(
    Normal=FamilyCase(
        family=pv.Normal(),
        roles=ROLES,
        data=_normals,
        parameters=_location_scale,
        start=_mean_and_spread,
        variants=(pv.Normal(0, 1), pv.Normal(scale="learned"), pv.Normal("learned", 2), pv.Normal(loc="per_feature")),
        log_prob=scipy.stats.norm.logpdf,
    ),
    Laplace=FamilyCase(
        family=pv.Laplace(),
        roles=ROLES,
        data=_normals,
        parameters=_location_scale,
        start=_mean_and_spread,
        variants=(pv.Laplace(0, 1), pv.Laplace(scale="learned"), pv.Laplace(loc="per_feature")),
        log_prob=scipy.stats.laplace.logpdf,
    ),
    StudentT=FamilyCase(
        family=pv.StudentT(),
        roles=ROLES,
        data=_normals,
        parameters=_student,
        start=lambda x: {"df": torch.full_like(x[0], 10), **_mean_and_spread(x)},
        variants=(pv.StudentT(5, 0, 1), pv.StudentT("learned", scale="per_feature"), pv.StudentT(loc="learned")),
        log_prob=scipy.stats.t.logpdf,
    ),
    MultivariateNormal=FamilyCase(
        family=pv.MultivariateNormal(),
        roles=ROLES,
        data=_normals,
        parameters=_correlated,
        start=lambda x: {"loc": x.mean(0), "scale_tril": torch.diag_embed(_spread(x))},
        variants=(
            pv.MultivariateNormal(0, [[1, 0, 0], [0.5, 1, 0], [0.5, 0.2, 2]]),
            pv.MultivariateNormal(scale_tril="per_feature"),
            pv.MultivariateNormal(loc="learned"),
        ),
        log_prob=lambda x, loc, scale_tril: scipy.stats.multivariate_normal.logpdf(x, loc, scale_tril @ scale_tril.T),
    ),
    Bernoulli=FamilyCase(
        family=pv.Bernoulli(),
        roles=("prior", "likelihood"),
        data=functools.partial(_labels, 2),
        parameters=lambda event, generator: {"logits": _between(-3, 3, event, generator)},
        start=lambda x: {"logits": torch.logit((x.sum(0) + 0.5) / (len(x) + 1))},
        variants=(pv.Bernoulli(0.5), pv.Bernoulli("learned"), pv.Bernoulli("per_feature"), pv.Bernoulli(grey=True)),
        log_prob=lambda x, logits: scipy.stats.bernoulli.logpmf(x, scipy.special.expit(logits)),
        values=(0, 1),
    ),
    Categorical=FamilyCase(
        family=pv.Categorical(classes=3),
        roles=("prior", "likelihood"),
        data=functools.partial(_labels, 3),
        parameters=lambda event, generator: {"logits": _between(-2, 2, (*event, 3), generator)},
        start=lambda x: {
            "logits": torch.stack([(x == k).double().mean(0) for k in range(3)], -1)
            .mul(len(x))
            .add(0.5)
            .div(len(x) + 1.5)
            .log()
        },
        variants=(pv.Categorical(3, (0, 1, -1)), pv.Categorical(3, "per_feature")),
        log_prob=_categorical_log_prob,
        values=(0, 1, 2),
    ),
)


# ---- networks --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkCase:
    """What the laws need to know of a network.

    Args:
        network: a small declaration with a smooth activation, so that no gradient is 0 by chance.
        maps: pairs of a context's shape and named output shapes that it can be built for.
        fits: whether it can map a context of that shape to an event of that shape.
        variants: other ways to declare it.
    """

    network: Network
    maps: tuple[tuple[Shape, Mapping[str, Shape]], ...]
    fits: Callable[[Shape, Shape], bool]
    variants: tuple[Network, ...] = ()


SIZES = ((1, 1), (5, 7), (5, 8), (8, 8), (28, 28), (29, 31))

NETWORKS = Cases(
    MLP=NetworkCase(
        network=pv.MLP(hidden=(6, 5), activation="tanh"),
        maps=(
            ((3,), {"loc": (3,), "scale": ()}),
            ((), {"loc": ()}),
            ((1, 5, 7), {"loc": (2,), "scale_tril": (2, 2)}),
            ((2,), {"loc": (1, 5, 7), "logits": (1, 5, 7, 3)}),
        ),
        fits=lambda context, event: True,
        variants=(pv.MLP(hidden=()), pv.MLP(hidden=(4,), activation="softplus")),
    ),
    Conv=NetworkCase(
        network=pv.Conv(channels=(2, 3), hidden=6, activation="tanh"),
        maps=(
            *(((1, *size), {"loc": (2,), "scale": (), "scale_tril": (2, 2)}) for size in SIZES),
            *(((2,), {"loc": (1, *size)}) for size in SIZES),
            ((3, 5, 7), {"loc": (2,)}),
            ((2,), {"loc": (3, 5, 7), "logits": (3, 5, 7, 2), "weights": (4,), "scale": ()}),
            ((), {"loc": (1, 5, 7)}),
        ),
        fits=lambda context, event: (len(context) == 3) != (len(event) == 3),
        variants=(pv.Conv(channels=(2,), hidden=4), pv.Conv(channels=(2, 2, 2), hidden=4, activation="silu")),
    ),
)


# ---- what the laws run over, and with ----------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A place to use a family in: its role, the event's shape, the context's shape (None in a prior), its network."""

    role: str
    event: Shape
    context: Shape | None = None
    network: str = "MLP"

    def __str__(self) -> str:
        words = (self.role, _size(self.event), *(() if self.context is None else (self.network, _size(self.context))))
        return "-".join(words)

    def build(self, family: Family, network: Network | nn.Module | None = None) -> Conditional:
        """Build a family there, with the network of the case or another one."""
        if self.context is None:
            return family.build(Site(self.role, self.event))
        network = NETWORKS[self.network].network if network is None else network
        return family.build(Site(self.role, self.event, self.context, network))

    def contexts(self, leading: Shape, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Any:
        """Random contexts with those leading dimensions; None in a prior."""
        if self.context is None:
            return None
        return torch.randn(*leading, *self.context, generator=generator, dtype=torch.float64).to(dtype)


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def events(family: Family) -> list[Shape]:
    """The event shapes, of those that the laws run over, that a family allows."""
    return [event for event in EVENTS if family.event_ranks is None or len(event) in family.event_ranks]


def places(case: FamilyCase) -> Iterator[Place]:
    """Every place that a family allows: its roles, by event shapes, by contexts, by networks."""
    for role in case.roles:
        for event in events(case.family):
            if role == "prior":
                yield Place(role, event)
            for context in {"prior": [], "likelihood": [(2,)], "guide": [(3,), (1, 5, 7)]}[role]:
                for name in NETWORK_TABLE:
                    if NETWORKS[name].fits(context, event):
                        yield Place(role, event, context, name)


def fits(family: Family, place: Place) -> bool:
    """Whether something in that declaration depends on the context, where there is one."""
    return place.context is None or any(getattr(family, name) is None for name in family.parameters)


def over_families() -> pytest.MarkDecorator:
    """Run a law over every family, as `name`."""
    return pytest.mark.parametrize("name", FAMILY_TABLE)


def over_declarations() -> pytest.MarkDecorator:
    """Run a law over every way in which the cases write a family, as `family`."""
    listed = [family for name in FAMILY_TABLE for family in FAMILIES[name].declarations]
    return pytest.mark.parametrize("family", listed, ids=repr)


def over_places(*, variants: bool = False, networks: Collection[str] = NETWORK_TABLE) -> pytest.MarkDecorator:
    """Run a law over every family in every place that it allows, as `name`, `family`, `place`."""
    listed = [
        pytest.param(name, family, place, id=f"{family if variants else name}-{place}")
        for name in FAMILY_TABLE
        for place in places(FAMILIES[name])
        for family in FAMILIES[name].declarations[: None if variants else 1]
        if fits(family, place) and place.network in networks
    ]
    return pytest.mark.parametrize(("name", "family", "place"), listed)


def over_maps() -> pytest.MarkDecorator:
    """Run a law over every network and shape that it maps, as `network`, `in_shape`, `out_shapes`."""
    listed = [
        pytest.param(network, in_shape, out_shapes, id=f"{name}{i or ''}-{_size(in_shape)}-to-{_sizes(out_shapes)}")
        for name in NETWORK_TABLE
        for i, network in enumerate((NETWORKS[name].network, *NETWORKS[name].variants))
        for in_shape, out_shapes in NETWORKS[name].maps
    ]
    return pytest.mark.parametrize(("network", "in_shape", "out_shapes"), listed)


def _sizes(out_shapes: Mapping[str, Shape]) -> str:
    return "-".join(f"{name}:{_size(shape)}" for name, shape in out_shapes.items())


def seeded(seed: int = 0) -> torch.Generator:
    """A generator, so that a law's inputs do not depend on what ran before."""
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make modules in that floating type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


in_float64 = functools.partial(default_dtype, torch.float64)


def raw_shapes(family: Family, event: Shape) -> dict[str, Shape]:
    """The shapes of what a network has to emit for a family, by parameter."""
    return {
        name: tuple(transform_to(parameter.constraint).inverse_shape(parameter.shape(event, family)))
        for name, parameter in family.parameters.items()
        if getattr(family, name) is None
    }


class Emitter(nn.Module):
    """A user's own network that emits the same raw values for every row, or a given value for each."""

    def __init__(self, outputs: Mapping[str, Tensor], *, by_row: bool = False) -> None:
        super().__init__()
        self.outputs = nn.ParameterDict({name: nn.Parameter(value.clone()) for name, value in outputs.items()})
        self.by_row = by_row

    def forward(self, rows: Tensor) -> Named:
        if self.by_row:
            return {name: value[: len(rows)] for name, value in self.outputs.items()}
        return {name: value.expand(len(rows), *value.shape) for name, value in self.outputs.items()}

    @classmethod
    def of(cls, family: Family, event: Shape, value: float, dtype: torch.dtype = torch.float64) -> "Emitter":
        """One that emits one number for everything."""
        return cls({name: torch.full(shape, value, dtype=dtype) for name, shape in raw_shapes(family, event).items()})


def parameter(distribution: Any, name: str) -> Tensor:
    """A parameter's value, read off a distribution of any shape."""
    while not hasattr(distribution, name):
        distribution = distribution.base_dist
    value: Tensor = getattr(distribution, name)
    return value


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts hold equal tensors."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
