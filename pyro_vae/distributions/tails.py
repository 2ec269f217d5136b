r"""Standard symmetric distributions on an interval, exact however far out it lies.

The mass of an interval in a tail cannot be a difference of cdfs: both round to 0 or to 1. By symmetry an interval is
turned to the side where its middle is not positive, [l, h] with l + h <= 0, and everything is relative to the
density f(c) at its likeliest point, c = min(h, 0). A point u of it is given by s = c - u; where h < 0 that is the
distance from the bound, and positive. What is left are sums of terms of one sign, in float32 too.

An interval without a bound is `UNBOUNDED` wide, which no floating type tells from infinity.

References:
    Robert, Simulation of Truncated Normal Variables, 1995 [robert1995], https://arxiv.org/abs/0907.4010.
    Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018 [figurnov2018],
        https://arxiv.org/abs/1805.08498.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro.distributions.util import detach
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

UNBOUNDED = 1e18
"""The width, in scales, of an interval without a bound."""

ROOT_HALF_PI = math.sqrt(math.pi / 2)


@dataclass(frozen=True)
class Interval:
    """An interval in units of the scale, turned so that its middle is not positive.

    Args:
        low: l, its end that is further from 0.
        high: h.
        width: h - l, of the ends themselves, so that no digits are lost.
    """

    low: Tensor
    high: Tensor
    width: Tensor

    @property
    def top(self) -> Tensor:
        """The point c of highest density."""
        return torch.where(self.high > 0, 0.0, self.high)  # a clamp has no gradient where it begins


@dataclass(frozen=True)
class Standard:
    r"""A standard distribution that is symmetric about 0.

    Args:
        log_cdf: log F(u).
        log_density: log f(c - s) - log f(c), from c and s.
        log_mass: log((F(h) - F(l)) / f(c)) of an interval.
        quantile: s, where F(h) - F(c - s) is a share v of the interval's mass, from the interval and v; differentiable.
        overshoot: the mean of (u + y)^+ for a draw y, an antiderivative of F.
    """

    log_cdf: Callable[[Tensor], Tensor]
    log_density: Callable[[Tensor, Tensor], Tensor]
    log_mass: Callable[[Interval], Tensor]
    quantile: Callable[[Interval, Tensor], Tensor]
    overshoot: Callable[[Tensor], Tensor]


def log1mexp(d: Tensor) -> Tensor:
    """log(1 - exp(-d)) for d > 0.

    References:
        Maechler, Accurately Computing log(1 - exp(-|a|)), 2012 [maechler2012].

    >>> [f"{v:.4g}" for v in log1mexp(torch.tensor([1e-30, 1.0, 10.0])).tolist()]
    ['-69.08', '-0.4587', '-4.54e-05']
    """
    near = d < math.log(2)
    small, large = torch.where(near, d, 1.0), torch.where(near, 1.0, d)
    return torch.where(near, torch.log(-torch.expm1(-small)), torch.log1p(-torch.exp(-large)))


# ---- Gaussian ----------------------------------------------------------------------------------------------------

FAR = 10.0
NODES = tuple((0.5 * (1 + node), weight) for node, weight in (
    (-0.8611363115940526, 0.17392742256872692),
    (-0.3399810435848563, 0.32607257743127307),
    (0.3399810435848563, 0.32607257743127307),
    (0.8611363115940526, 0.17392742256872692),
))  # fmt: skip
"""The rule of Gauss and Legendre on [0, 1] with four nodes."""


def log_mills(a: Tensor) -> Tensor:
    """The log of Mills's ratio, (1 - F(a)) / f(a), for a >= 0: beyond 10 by its asymptotic series."""
    is_far = a > FAR
    near, square = torch.where(is_far, FAR, a), torch.where(is_far, a, FAR).square()
    series = torch.ones_like(a)
    for k in range(23, 0, -2):
        series = 1 - k / square * series
    close = torch.special.log_ndtr(-near) + 0.5 * near.square() + 0.5 * math.log(2 * math.pi)
    return torch.where(is_far, torch.log(series) - 0.5 * torch.log(square), close)


def _normal_log_cdf(u: Tensor) -> Tensor:
    """Log cdf, whose gradient is a number far out too, where torch's is a difference of large ones."""
    is_far = u < -FAR
    beyond = torch.where(is_far, -u, FAR)
    tail = log_mills(beyond) - 0.5 * beyond.square() - 0.5 * math.log(2 * math.pi)
    return torch.where(is_far, tail, torch.special.log_ndtr(torch.where(is_far, -FAR, u)))


def _normal_gap(interval: Interval) -> tuple[Tensor, Tensor]:
    """Where h <= 0: the log tail relative to f(h), and by how much the tail beyond l is less in logs."""
    a, w = -interval.top, interval.width
    tail = log_mills(a)
    return tail, w * (a + 0.5 * w) + (tail - log_mills(a + w))


def _normal_mass(interval: Interval) -> Tensor:
    """Log mass by erf around 0; in a tail by Mills's ratio, and by quadrature where the density hardly changes."""
    tail, gap = _normal_gap(interval)
    a, flat = -interval.top, gap < 0.1
    w = torch.where(flat, interval.width, 0.1)
    terms = [weight * torch.exp(-w * node * (a.clamp(max=1e15) + 0.5 * w * node)) for node, weight in NODES]
    narrow = torch.log(w) + torch.log(torch.stack(terms).sum(0).clamp(min=torch.finfo(w.dtype).tiny))
    beside = torch.where(flat, narrow, tail + log1mexp(torch.where(flat, 1.0, gap)))
    right, left = (end / math.sqrt(2) for end in (interval.high.clamp(min=0), interval.low.clamp(max=0)))
    astride = interval.high > 0
    share = torch.where(astride, torch.erf(right) - torch.erf(left), 1.0)
    return torch.where(astride, math.log(ROOT_HALF_PI) + torch.log(share), beside)


def _normal_quantile(interval: Interval, v: Tensor) -> Tensor:
    """Quantile by erfinv around 0; in a tail by Newton's method on its log, which is concave, from above the root."""
    a, (tail, gap) = -interval.top, _normal_gap(interval)
    excess = -torch.log1p(v * torch.expm1(-gap))
    b, e, t = detach(a), detach(excess), detach(tail)
    s = torch.minimum(e * t.exp(), 2 * e / (b + torch.sqrt(b.square() + 2 * e) + torch.finfo(e.dtype).tiny))
    for _ in range(5):
        mills = log_mills(b + s)
        s = (s + (mills - t - s * (b + 0.5 * s) + e) * mills.exp()).clamp(min=0)
    mills = log_mills(a + s)  # once more, for the gradient: that of the root of what s solves
    beside = s + (mills - tail - s * (a + 0.5 * s) + excess) * detach(mills).exp()
    right, left = (torch.erf(end / math.sqrt(2)) for end in (interval.high.clamp(min=0), interval.low.clamp(max=0)))
    limit = 1 - torch.finfo(v.dtype).eps
    astride = -math.sqrt(2) * torch.erfinv((right + v * (left - right)).clamp(-limit, limit))
    return torch.where(interval.high > 0, astride, beside)


def _normal_overshoot(u: Tensor) -> Tensor:
    cdf, density = torch.special.ndtr(u), torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi)
    return u * cdf + density


NORMAL = Standard(
    log_cdf=_normal_log_cdf,
    log_density=lambda c, s: s * (c - 0.5 * s),
    log_mass=_normal_mass,
    quantile=_normal_quantile,
    overshoot=_normal_overshoot,
)


# ---- Laplace -----------------------------------------------------------------------------------------------------


def _laplace_log_cdf(u: Tensor) -> Tensor:
    is_below = u < 0
    above = torch.log1p(-0.5 * torch.exp(-torch.where(is_below, 0.0, u)))
    return torch.where(is_below, torch.where(is_below, u, 0.0) - math.log(2), above)


def _laplace_mass(interval: Interval) -> Tensor:
    astride = interval.high > 0
    right, left = torch.where(astride, interval.high, 1.0), torch.where(astride, interval.low, -1.0)
    return torch.where(astride, torch.log(-torch.expm1(-right) - torch.expm1(left)), log1mexp(interval.width))


def _laplace_quantile(interval: Interval, v: Tensor) -> Tensor:
    beside = -torch.log1p(v * torch.expm1(-interval.width))
    right, left = torch.expm1(-interval.high.clamp(min=0)), torch.expm1(interval.low.clamp(max=0))
    signed = v * (right + left) - right  # 2 F(u) - 1, from that at h to that at l
    limit = 1 - torch.finfo(v.dtype).eps
    astride = signed.sign() * torch.log1p(-signed.abs().clamp(max=limit))
    return torch.where(interval.high > 0, astride, beside)


LAPLACE = Standard(
    log_cdf=_laplace_log_cdf,
    log_density=lambda c, s: -s.abs(),
    log_mass=_laplace_mass,
    quantile=_laplace_quantile,
    overshoot=lambda u: u.clamp(min=0) + 0.5 * torch.exp(-u.abs()),
)


# ---- logistic ----------------------------------------------------------------------------------------------------


def _logistic_mass(interval: Interval) -> Tensor:
    ends = logsigmoid(-interval.low) - softplus(-interval.high.abs())
    return 2 * softplus(interval.top) + ends + log1mexp(interval.width)


def _logistic_quantile(interval: Interval, v: Tensor) -> Tensor:
    rise = softplus(interval.top) - softplus(interval.low)
    beside = torch.log1p(v * torch.expm1(rise)) - torch.log1p(v * torch.expm1(rise - interval.width))
    first, second = torch.log1p(-v), torch.log(v)
    below, above = (
        torch.logaddexp(first + logsigmoid(sign * interval.high), second + logsigmoid(sign * interval.low))
        for sign in (1, -1)
    )
    return torch.where(interval.high > 0, above - below, beside)


LOGISTIC = Standard(
    log_cdf=logsigmoid,
    log_density=lambda c, s: 2 * (softplus(c) - softplus(-(c - s).abs())) - s.abs(),
    log_mass=_logistic_mass,
    quantile=_logistic_quantile,
    overshoot=softplus,
)


# ---- Cauchy ------------------------------------------------------------------------------------------------------


def _angle(interval: Interval) -> Tensor:
    """arctan(h) - arctan(l), in (0, pi)."""
    return torch.atan2(torch.ones_like(interval.width), (1 + interval.low * interval.high) / interval.width)


def _cauchy_quantile(interval: Interval, v: Tensor) -> Tensor:
    c, turn = interval.top, v * _angle(interval)
    tiny = torch.finfo(v.dtype).tiny
    beside = (1 + c.square()) * torch.sin(turn) / (torch.cos(turn) + c * torch.sin(turn)).clamp(min=tiny)
    astride = torch.tan(turn - torch.atan(interval.high.clamp(min=0)))
    return torch.where(interval.high > 0, astride, torch.minimum(beside, interval.width))


CAUCHY = Standard(
    log_cdf=lambda u: torch.log(torch.atan2(torch.ones_like(u), -u) / math.pi),
    log_density=lambda c, s: torch.log1p(c.square()) - torch.log1p((c - s).square()),
    log_mass=lambda interval: torch.log(_angle(interval)) + torch.log1p(interval.top.square()),
    quantile=_cauchy_quantile,
    overshoot=lambda u: u * (0.5 + torch.atan(u) / math.pi) - torch.log1p(u.square()) / (2 * math.pi),
)

STANDARDS = {"Normal": NORMAL, "Laplace": LAPLACE, "Logistic": LOGISTIC, "Cauchy": CAUCHY}
"""The families that can be cut off, by name: those with parameters loc and scale and a closed log cdf."""
