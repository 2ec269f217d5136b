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
from torch.distributions.transforms import Transform, identity_transform
from torch.nn.functional import logsigmoid, pad

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
        return f"[{self.lower_bound:g}, {self.upper_bound:g}]"


class IntegerInterval(constraints.integer_interval):
    """An integer between two bounds: a parameter of this kind is never trained, so its raw form is itself.

    >>> IntegerInterval(1, 8).check(torch.tensor([0.0, 1.0, 1.5, 9.0]))
    tensor([False,  True, False, False])
    """

    def __repr__(self) -> str:
        return f"the integers in [{self.lower_bound}, {self.upper_bound}]"


class ScaleTril(constraints.Constraint):
    r"""The Cholesky factor of a covariance with bounded standard deviations, no direction of which is nearly flat.

    A raw matrix $R$ gives $\Sigma = L L^\top = \mathrm{diag}(s)\,\big((1 - \epsilon)\,C C^\top + \epsilon I\big)\,
    \mathrm{diag}(s)$ with $s_i = s(R_{ii})$ the standard deviations, which are `Bounded`, and $C$ the rows of
    $I + \mathrm{tril}(R, -1)$ scaled to length one. Every covariance with such standard deviations, whose correlation
    matrix has its eigenvalues over $\epsilon$, has exactly one lower-triangular $R$.

    Without that floor collinear data make a likelihood infinite, and a triangular system of 16 elements overflows.
    With it a standard deviation given all other elements, and so each $L_{ii}$, is at least
    $\sqrt\epsilon\,s_i$, correlations are below $1 - \epsilon$, and distances grow by no more than $1/\epsilon$.

    Args:
        scale: the bounds of the standard deviations.
        floor: the smallest eigenvalue $\epsilon$ of the correlation matrix; float32 carries 1e-4 for any size.

    References:
        Ledoit and Wolf, Honey, I Shrunk the Sample Covariance Matrix, 2004 [ledoit2004] (shrinkage to the diagonal).

    >>> tril = transform_to(ScaleTril(Bounded(1e-4, 1e6)))
    >>> tril(torch.zeros(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """

    event_dim = 2

    def __init__(self, scale: Bounded, floor: float = 1e-4) -> None:
        self.scale, self.floor = scale, floor

    def __repr__(self) -> str:
        return (
            f"lower-triangular matrices whose rows have norms in {self.scale!r}, of correlation matrices with "
            f"eigenvalues over {self.floor:g}"
        )

    def check(self, value: Tensor) -> Tensor:
        """Whether each matrix is such a factor: lower triangular, with a positive diagonal, within the bounds."""
        norms = torch.linalg.vector_norm(value, dim=-1)
        rows = value / norms.clamp(min=torch.finfo(value.dtype).tiny).unsqueeze(-1)
        smallest = torch.linalg.svdvals(rows)[..., -1].square()
        return constraints.lower_cholesky.check(value) & self.scale.check(norms).all(-1) & (smallest > self.floor)


class Ordered(constraints.Constraint):
    r"""Ascending cutpoints of a logistic scale, all of them in [-ceiling, ceiling].

    $$ c_k = -B + \sum_{i \le k} \big(g + (2B - Kg)\,\mathrm{softmax}(r + r_0)_i\big), \qquad k = 1, \dots, K - 1, $$

    with K gaps, of which the last, up to the ceiling, has the raw value 0. At r = 0 they cut the standard logistic
    distribution into K equal shares, $c_k = \mathrm{logit}(k / K)$.

    Args:
        ceiling: the bound B; beyond 20 lies a share of 2e-9.
        gap: the smallest distance g of two cutpoints, which float32 resolves.

    >>> cutpoints = transform_to(Ordered(20.0, 1e-4))
    >>> [round(c, 4) for c in cutpoints(torch.zeros(3)).tolist()]
    [-1.0986, 0.0, 1.0986]
    """

    event_dim = 1

    def __init__(self, ceiling: float, gap: float) -> None:
        self.ceiling, self.gap = ceiling, gap

    def __repr__(self) -> str:
        return f"ascending numbers in [{-self.ceiling:g}, {self.ceiling:g}], at least {self.gap:g} apart"

    def check(self, value: Tensor) -> Tensor:
        """Whether each vector ascends, within the bounds."""
        return (value.abs() <= self.ceiling).all(-1) & (value.diff() >= self.gap).all(-1)


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
    bijective = False  # entries above the diagonal are ignored

    def __init__(self, constraint: ScaleTril) -> None:
        super().__init__()
        self.scale, self.floor = _BoundedTransform(constraint.scale), constraint.floor
        self.codomain = constraint

    def _call(self, x: Tensor) -> Tensor:
        one = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        rows = torch.tril(x, -1) + one
        rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        shrunk = (1 - self.floor) * torch.tril(rows @ rows.mT, -1) + one
        factor = torch.linalg.cholesky_ex(shrunk).L  # unchecked: it never fails, and a check would be a host sync
        return self.scale(x.diagonal(dim1=-2, dim2=-1)).unsqueeze(-1) * factor

    def _inverse(self, y: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        rows = y / norms
        one = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        rows = torch.linalg.cholesky(torch.tril(rows @ rows.mT, -1) / (1 - self.floor) + one)
        below = torch.tril(rows / rows.diagonal(dim1=-2, dim2=-1).unsqueeze(-1), -1)
        return below + torch.diag_embed(self.scale.inv(norms.squeeze(-1)))


class _OrderedTransform(Transform):
    domain = constraints.independent(constraints.real, 1)
    bijective = True

    def __init__(self, constraint: Ordered) -> None:
        super().__init__()
        self.ceiling, self.gap = constraint.ceiling, constraint.gap
        self.codomain = constraint

    def _call(self, x: Tensor) -> Tensor:
        share = pad(x + self._start(x), (0, 1)).softmax(-1)
        gaps = self.gap + (2 * self.ceiling - share.shape[-1] * self.gap) * share
        return gaps.cumsum(-1)[..., :-1] - self.ceiling

    def _inverse(self, y: Tensor) -> Tensor:
        return self._raw(y) - self._start(y)

    def _start(self, like: Tensor) -> Tensor:
        levels = like.shape[-1] + 1
        below = torch.arange(1, levels, dtype=like.dtype, device=like.device) / levels
        return self._raw(torch.log(below) - torch.log1p(-below))

    def _raw(self, cutpoints: Tensor) -> Tensor:
        gaps = pad(pad(cutpoints, (1, 0), value=-self.ceiling), (0, 1), value=self.ceiling).diff()
        share = (gaps - self.gap) / (2 * self.ceiling - gaps.shape[-1] * self.gap)
        logits = share.clamp(min=1e-6).log()  # no lower, or a start at the smallest gap could not be trained away
        return logits[..., :-1] - logits[..., -1:]


for registry in (biject_to, transform_to):
    registry.register(Bounded, _BoundedTransform)
transform_to.register(ScaleTril, _ScaleTrilTransform)
transform_to.register(Ordered, _OrderedTransform)
transform_to.register(IntegerInterval, lambda constraint: identity_transform)


class OpenInterval(constraints.interval):
    """An interval without its ends; a number that the default type rounds to an end counts as one.

    >>> OpenInterval(0, 1).check(torch.tensor([0.0, 0.5, 1 - 1e-12], dtype=torch.float64))
    tensor([False,  True, False])
    """

    def check(self, value: Tensor) -> Tensor:
        """Whether each value lies between the ends."""
        value = value.to(torch.get_default_dtype())
        return (self.lower_bound < value) & (value < self.upper_bound)


class OpenSimplex(constraints.Constraint):
    """Vectors of positive numbers that sum to 1, up to what float32 rounds in long vectors.

    >>> OpenSimplex().check(torch.tensor([[0.3, 0.7], [0.3, 0.3], [0.0, 1.0]]))
    tensor([ True, False, False])
    """

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Whether each vector is positive and sums to 1."""
        value = value.to(torch.get_default_dtype())
        return (value > 0).all(-1) & ((value.sum(-1) - 1).abs() < 1e-4)


open_unit, open_simplex = OpenInterval(0.0, 1.0), OpenSimplex()

positive = Bounded(1e-4, 1e6)
"""Trained scales: 1e-4 to 1e6 times the unit of the data, which is 1 for latents."""

scale_tril = ScaleTril(positive)
"""Cholesky factors of covariances: standard deviations from 1e-4 to 1e6, eigenvalues of the correlation over 1e-4."""

cutpoints = Ordered(20.0, 1e-4)
"""Cumulative log odds of ordered levels, from -20 to 20."""


def unbounded(constraint: Any) -> Any:
    """A constraint with bounds so wide that float32 has no others.

    >>> unbounded(positive)
    [1.17549e-38, 3.40282e+38]
    """
    if isinstance(constraint, ScaleTril):
        return ScaleTril(unbounded(constraint.scale), constraint.floor)
    if isinstance(constraint, Bounded):
        return Bounded(torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max, constraint.unit)
    return constraint


def supports_equal(first: Any, second: Any) -> bool:
    """Whether two supports are the same set, up to points of measure zero.

    torch has several names for one set (`real_vector` and `independent(real, 1)`; `positive` and
    `greater_than(0)`), so supports are compared by what they contain.

    >>> supports_equal(constraints.real_vector, constraints.independent(constraints.real, 1))
    True
    >>> supports_equal(constraints.real, constraints.positive)
    False
    """
    return first.event_dim == second.event_dim and _as_set(first) == _as_set(second)


def element_of(support: Any) -> Any:
    """Support of each element of an event; for distributions of vectors, the set of vectors.

    >>> element_of(constraints.independent(constraints.boolean, 2)) is constraints.boolean
    True
    """
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def any_element(constraint: Any) -> Tensor:
    """A number inside the support of one element, as a scalar tensor, without a host sync.

    >>> [float(any_element(one)) for one in (constraints.positive, constraints.boolean, constraints.unit_interval)]
    [1.0, 0.0, 0.5]
    """
    constraint = element_of(constraint)
    if constraint.is_discrete:
        return torch.as_tensor(float(getattr(constraint, "lower_bound", 0)))
    return transform_to(constraint)(torch.zeros((1,) * constraint.event_dim)).flatten()[0]


def describe(constraint: Any) -> str:
    """Description of a support, for messages.

    >>> describe(constraints.independent(constraints.boolean, 1))
    '{0, 1}'
    """
    kind, *bounds = _as_set(constraint)
    if kind == "discrete":
        return "{0, 1}" if bounds == [0.0, 1.0] else f"the integers in {bounds}"
    if kind == "interval":
        return "the real numbers" if bounds == [-math.inf, math.inf] else f"the numbers in {bounds}"
    if kind is type(constraints.simplex):
        return "the vectors of positive numbers that sum to 1"
    return str(constraint)


def _as_set(constraint: Any) -> tuple[Any, ...]:
    constraint = element_of(constraint)
    bounded = hasattr(constraint, "lower_bound") or hasattr(constraint, "upper_bound")
    if bounded or constraint in (constraints.real, constraints.boolean):
        return ("discrete" if constraint.is_discrete else "interval", *_bounds(constraint))
    return (type(constraint),)


def _bounds(constraint: Any) -> tuple[Any, Any]:
    if constraint is constraints.boolean:
        return (0.0, 1.0)
    lower, upper = getattr(constraint, "lower_bound", -math.inf), getattr(constraint, "upper_bound", math.inf)
    return _plain(lower), _plain(upper)


def _plain(bound: Any) -> Any:
    """A float, or nested tuples of floats for an array, so that bounds compare."""
    if not isinstance(bound, Tensor) or bound.numel() == 1:
        return float(bound)
    return tuple(_plain(item) for item in bound)
