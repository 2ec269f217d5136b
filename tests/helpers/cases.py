"""One minimal case per table entry: what the laws have to know of it and cannot ask it.

A new family or network is one more entry here, and every law then runs over it. An entry of a table that has
no case raises `LookupError` as soon as a law asks for it, which fails the suite.
"""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import transform_to

import pyro_vae as pv
from helpers.family_case import FamilyCase, Named, Shape
from helpers.family_cases import CASES as FAMILY_CASES
from pyro_vae.families import FAMILIES as FAMILY_TABLE, Family
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.site import SiteSpec
from pyro_vae.networks import NETWORKS as NETWORK_TABLE, Network

EVENTS: tuple[Shape, ...] = ((), (3,), (1, 5, 7))
LEADING: tuple[Shape, ...] = ((), (4,), (2, 4))


class Cases(dict[str, Any]):
    """Cases by the names of a table."""

    def __missing__(self, name: str) -> Any:
        raise LookupError(f"{name} is in a table of pyro_vae and has no case in tests/helpers/cases.py: add one.")


# ---- families --------------------------------------------------------------------------------------------

FAMILIES = Cases(FAMILY_CASES)


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
            with torch.random.fork_rng():
                torch.manual_seed(0)
                guide = Conditional(pv.Normal(), SiteSpec("guide", self.event, (4,), pv.MLP(hidden=())))
            return Conditional(family, SiteSpec(self.role, self.event, guide=guide, data_shape=(4,)))
        network = NETWORKS[self.network].network if network is None else network
        return Conditional(family, SiteSpec(self.role, self.event, self.context, network))

    @staticmethod
    def converted(conditional: Conditional, dtype: torch.dtype) -> Conditional:
        """That conditional in another floating type, with the guide that it looks at."""
        if conditional.site.guide is not None:
            conditional.site.guide.to(dtype)
        return conditional.to(dtype)

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
    """Every role and event shape that a family allows, with an MLP; and, on the largest event, convolutions."""
    for role in case.roles:
        for event in events(case.family):
            yield Place(role, event, {"prior": None, "likelihood": (2,), "guide": (3,)}[role])
        if role != "prior":
            context = (1, 5, 7) if role == "guide" else (2,)
            event = events(case.family)[0 if role == "guide" else -1]
            for name in NETWORK_TABLE:
                if name != "MLP" and NETWORKS[name].fits(context, event):
                    yield Place(role, event, context, name)


def fits(family: Family, place: Place) -> bool:
    """Whether something in that declaration depends on the context, where there is one."""
    return place.context is None or bool(raw_shapes(family, place.event))


def over_families(role: str = "") -> pytest.MarkDecorator:
    """Run a law over every family, or over those that take a role, as `name`."""
    return pytest.mark.parametrize("name", [name for name in FAMILY_TABLE if not role or role in FAMILIES[name].roles])


def over_declarations() -> pytest.MarkDecorator:
    """Run a law over every way in which the cases write a family, as `family`."""
    listed = [family for name in FAMILY_TABLE for family in FAMILIES[name].declarations]
    return pytest.mark.parametrize("family", listed, ids=repr)


def over_places(*, variants: bool = False, networks: Collection[str] = NETWORK_TABLE) -> pytest.MarkDecorator:
    """Run a law over every family in every place that it allows, as `name`, `family`, `place`.

    Args:
        variants: also over the other ways in which the case writes it, on its largest event.
        networks: only with these.
    """
    listed = [
        pytest.param(name, family, place, id=f"{family if variants else name}-{place}")
        for name in FAMILY_TABLE
        for place in places(FAMILIES[name])
        for i, family in enumerate(FAMILIES[name].declarations[: None if variants else 1])
        if fits(family, place) and place.network in networks
        if i == 0 or (place.event, place.network) == (events(family)[-1], "MLP")
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
    slots = family.bind(SiteSpec("likelihood", event, (2,))).slots
    return {
        name: tuple(transform_to(slot.constraint).inverse_shape(slot.shape))
        for name, slot in slots.items()
        if slot.source is None
    }


class HeadedNetwork(nn.Module):
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
    def of(cls, family: Family, event: Shape, value: float, dtype: torch.dtype = torch.float64) -> "HeadedNetwork":
        """One that emits one number for everything."""
        return cls({name: torch.full(shape, value, dtype=dtype) for name, shape in raw_shapes(family, event).items()})


def starting_values(
    conditional: Conditional, case: FamilyCase, x: Tensor
) -> tuple[Named, Callable[[str, Tensor], Tensor]]:
    """Where parameters start in the canonical unit of a conditional, and the map of a value to the user's."""
    if conditional.group is None:
        return case.start(x), lambda name, value: value

    def moved(name: str, value: Tensor) -> Tensor:
        motion = conditional.slots[name].motion
        return value if motion is None else motion(value, conditional.shift, conditional.unit)

    return case.start_in_unit((x - conditional.shift) / conditional.unit), moved


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts hold equal tensors."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
