"""What the laws need to know of a family, and pieces that cases of families are made of."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.families import Family

Array: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = tuple[int, ...]
Named: TypeAlias = dict[str, Tensor]

ROLES = ("prior", "likelihood", "guide")


@dataclass(frozen=True)
class FamilyCase:
    """What the laws need to know of a family.

    Args:
        family: a declaration whose parameters all come from the network.
        roles: where it may be used; a guide has to be reparameterised.
        data: rows (N, *event) in its support, float64, from (N, event, generator).
        parameters: random legal values of all its parameters, float64, from (event, generator), for which its
            second moments exist, if ever they do.
        start: the values that its parameters have after `initialize(x)` where the network says 0, from rows x.
        variants: other ways to write it.
        log_prob: scipy's log density, of one event x and named parameters: a number, or one per element.
        write: the family with given values of all parameters, by name; `dataclasses.replace` for what is no composite.
        closed: whether its parameters are all that it is: no networks of its own, no guide to look at.
        values: every value one element can take, for a discrete family (a long range where there are infinitely many).
        start_mean: the mean it has after `initialize(x)` where the network says 0, if that is not the mean of rows x
            (of labels: their shares).
        canonical: the same from rows in the canonical unit, where that is another function of them (`Scaled`).
        closed_mean: whether its mean has a closed form; without one it is refused.
        masses: values that have a probability of their own, beside a density.
        moments: whether it ever has a mean and a variance.
        small: event shapes small enough to sum over, where these are not a number, or vectors of one and two.
    """

    family: Family
    roles: tuple[str, ...]
    data: Callable[[int, Shape, torch.Generator], Tensor]
    parameters: Callable[[Shape, torch.Generator], Named]
    start: Callable[[Tensor], Named]
    variants: tuple[Family, ...] = ()
    log_prob: Callable[..., Any] | None = None
    write: Callable[[dict[str, Array]], Family] | None = None
    closed: bool = True
    values: tuple[float, ...] | None = None
    start_mean: Callable[[Tensor], Tensor] | None = None
    canonical: Callable[[Tensor], Named] | None = None
    closed_mean: bool = True
    masses: tuple[float, ...] = ()
    moments: bool = True
    small: tuple[Shape, ...] = ()

    @property
    def declarations(self) -> tuple[Family, ...]:
        """The family in every way of writing it."""
        return (self.family, *self.variants)

    def start_in_unit(self, u: Tensor) -> Named:
        """Where the parameters start in the canonical unit, from rows in it."""
        return (self.canonical or self.start)(u)

    def fixed(self, event: Shape, generator: torch.Generator) -> tuple[Family, dict[str, Array]]:
        """The family with random fixed parameters, and these."""
        values = {name: value.numpy() for name, value in self.parameters(event, generator).items()}
        written = self.write(values) if self.write else dataclasses.replace(self.family, **values)
        return written, values


def normals(rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    """Real data."""
    return 3 + 2 * torch.randn(rows, *event, generator=generator, dtype=torch.float64)


def labels(classes: int, rows: int, event: Shape, generator: torch.Generator) -> Tensor:
    """Labels 0 to classes - 1, as numbers."""
    return torch.randint(classes, (rows, *event), generator=generator).double()


def between(low: float, high: float, shape: Shape, generator: torch.Generator) -> Tensor:
    """Uniform numbers."""
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def location_scale(event: Shape, generator: torch.Generator) -> Named:
    """A location and a scale."""
    return {"loc": between(-2, 2, event, generator), "scale": between(0.3, 3, event, generator)}


def spread(x: Tensor) -> Tensor:
    """Where a scale starts: the standard deviation, and at least a tenth of its mean over elements."""
    spread = np.where(np.ptp(x.numpy(), axis=0) > 0, np.std(x.numpy(), axis=0), 0)
    floor = 0.1 * spread.mean()
    return torch.as_tensor(np.maximum(spread, floor) if floor > 0 else np.ones_like(spread))


def mean_and_spread(x: Tensor) -> Named:
    """Where a location and a scale start."""
    return {"loc": x.mean(0), "scale": spread(x)}
