"""Constraints of parameters: how an unbounded number becomes a scale.

A network emits any real number `r`. Likelihoods are unbounded on constant data (a pixel that is always
black rewards a scale of zero without limit) and float32 overflows at `exp(50)`, so every positive
parameter lives between a floor and a ceiling, by a map that is smooth, invertible and an exponential in
between. Each constraint maps `r = 0` to its `unit`, which is therefore where training starts when there is
no data to start from.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.transforms import Transform
from torch.nn.functional import logsigmoid

real = constraints.real


class Bounded(constraints.interval):
    r"""A positive number between a floor and a ceiling.

    $$ s(r) = f + (c - f)\,\sigma(r + r_0), \qquad s(0) = u, $$

    which is $u e^r$ up to relative errors of $f/s$ and $s/c$: a log scale with soft ends.

    Args:
        floor: the infimum f > 0.
        ceiling: the supremum c.
        unit: the value u at r = 0.

    >>> scale = transform_to(Bounded(1e-4, 1e6))
    >>> [round(v, 4) for v in scale(torch.tensor([-50.0, 0.0, 1.0, 50.0])).tolist()]
    [0.0001, 1.0, 2.7181, 1000000.0]
    """

    def __init__(self, floor: float, ceiling: float, unit: float = 1.0) -> None:
        super().__init__(floor, ceiling)
        self.unit = unit

    def __repr__(self) -> str:
        """Show the interval."""
        return f"[{self.lower_bound:g}, {self.upper_bound:g}]"


class ScaleTril(constraints.Constraint):
    r"""The Cholesky factor of a covariance whose standard deviations are `Bounded`.

    A raw matrix $R$ gives $L = \mathrm{diag}(s)\,C$ with $s_i = s(R_{ii})$ the marginal standard deviations
    and $C$ the rows of $I + \mathrm{tril}(R, -1)$ scaled to length one, so that $C C^\top$ is the correlation
    matrix. Every positive definite covariance within the bounds has exactly one $R$.

    >>> tril = transform_to(ScaleTril(Bounded(1e-4, 1e6)))
    >>> tril(torch.zeros(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """

    event_dim = 2

    def __init__(self, scale: Bounded) -> None:
        self.scale = scale

    def __repr__(self) -> str:
        """Name it in the words of a message."""
        return f"lower-triangular matrices whose rows have norms in {self.scale!r}"

    def check(self, value: Tensor) -> Tensor:
        """Whether each matrix is lower triangular, with a positive diagonal and rows within the bounds."""
        norms = torch.linalg.vector_norm(value, dim=-1)
        return constraints.lower_cholesky.check(value) & self.scale.check(norms).all(-1)


class _BoundedTransform(Transform):
    domain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, constraint: Bounded) -> None:
        super().__init__()
        self.floor, self.range = constraint.lower_bound, constraint.upper_bound - constraint.lower_bound
        share = (constraint.unit - self.floor) / self.range
        self.shift = math.log(share) - math.log1p(-share)
        self.codomain = constraint

    def __eq__(self, other: object) -> bool:
        mine = (self.floor, self.range, self.shift)
        return isinstance(other, _BoundedTransform) and mine == (other.floor, other.range, other.shift)

    def _call(self, x: Tensor) -> Tensor:
        return self.floor + self.range * torch.sigmoid(x + self.shift)

    def _inverse(self, y: Tensor) -> Tensor:
        share = (y - self.floor) / self.range
        smallest = torch.finfo(y.dtype).tiny
        share = share.clamp(smallest, 1 - torch.finfo(y.dtype).eps)
        return torch.log(share) - torch.log1p(-share) - self.shift

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        shifted = x + self.shift
        return math.log(self.range) + logsigmoid(shifted) + logsigmoid(-shifted)


class _ScaleTrilTransform(Transform):
    domain = constraints.independent(constraints.real, 2)
    bijective = False

    def __init__(self, constraint: ScaleTril) -> None:
        super().__init__()
        self.scale = _BoundedTransform(constraint.scale)
        self.codomain = constraint

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ScaleTrilTransform) and self.scale == other.scale

    def _call(self, x: Tensor) -> Tensor:
        below = torch.tril(x, -1)
        length = torch.sqrt(1 + below.square().sum(-1))
        row = (self.scale(x.diagonal(dim1=-2, dim2=-1)) / length).unsqueeze(-1)
        return row * (below + torch.eye(x.shape[-1], dtype=x.dtype, device=x.device))

    def _inverse(self, y: Tensor) -> Tensor:
        below = torch.tril(y / y.diagonal(dim1=-2, dim2=-1).unsqueeze(-1), -1)
        raw = self.scale.inv(torch.linalg.vector_norm(y, dim=-1))
        return below + torch.diag_embed(raw)


for registry in (biject_to, transform_to):
    registry.register(Bounded, _BoundedTransform)
transform_to.register(ScaleTril, _ScaleTrilTransform)


positive = Bounded(1e-4, 1e6)
"""Scales: 1e-4 to 1e6 in the data's own unit, 1 where nothing else is known."""

scale_tril = ScaleTril(positive)
"""Cholesky factors of covariances with standard deviations from 1e-4 to 1e6."""


def same_support(first: Any, second: Any) -> bool:
    """Whether two supports are the same set, up to points of measure zero.

    torch has several names for one set (`real_vector` and `independent(real, 1)`; `positive` and
    `greater_than(0)`), so supports are compared by what they contain.

    >>> same_support(constraints.real_vector, constraints.independent(constraints.real, 1))
    True
    >>> same_support(constraints.real, constraints.positive)
    False
    """
    return first.event_dim == second.event_dim and _as_set(first) == _as_set(second)


def an_element(constraint: Any) -> float:
    """A number inside the support of one element, to stand where there is none.

    >>> an_element(constraints.positive), an_element(constraints.boolean), an_element(constraints.unit_interval)
    (1.0, 0.0, 0.5)
    """
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if constraint.is_discrete:
        return float(getattr(constraint, "lower_bound", 0))
    return float(transform_to(constraint)(torch.zeros(())))


def in_words(constraint: Any) -> str:
    """Name a support for a message.

    >>> in_words(constraints.independent(constraints.boolean, 1))
    '{0, 1}'
    """
    kind, *bounds = _as_set(constraint)
    if kind == "discrete":
        return "{0, 1}" if bounds == [0.0, 1.0] else f"the whole numbers in {bounds}"
    if kind == "interval":
        return "the real numbers" if bounds == [-math.inf, math.inf] else f"the numbers in {bounds}"
    return str(constraint)


def _as_set(constraint: Any) -> tuple[Any, ...]:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    bounded = hasattr(constraint, "lower_bound") or hasattr(constraint, "upper_bound")
    if bounded or constraint in (constraints.real, constraints.boolean):
        return ("discrete" if constraint.is_discrete else "interval", *_bounds(constraint))
    return (type(constraint),)


def _bounds(constraint: Any) -> tuple[float, float]:
    if constraint is constraints.boolean:
        return (0.0, 1.0)
    lower, upper = getattr(constraint, "lower_bound", -math.inf), getattr(constraint, "upper_bound", math.inf)
    return float(lower), float(upper)
