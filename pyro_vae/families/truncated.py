"""Families that are cut off at bounds: what lies beyond is left out (truncated) or piled up there (censored)."""

from abc import ABC
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from pyro_vae.core.errors import InputError
from pyro_vae.distributions.bounded import BoundedDistribution, CensoredDistribution, TruncatedDistribution
from pyro_vae.distributions.tails import STANDARDS
from pyro_vae.families.base import Composite, Family
from pyro_vae.families.normal import Normal
from pyro_vae.families.site import BoundFamily, SiteSpec


@dataclass(frozen=True)
class _Bounded(Composite, ABC):
    """Base of truncated and censored families: their fields and their checks."""

    family: Family = Normal()
    low: float | None = 0.0
    high: float | None = None
    cut: ClassVar[type[BoundedDistribution]]
    support_text = "numbers in [low, inf) by default"
    fix_hint = "give low and high that hold it, or drop those rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        name, low, high = type(self).__name__, self.low, self.high
        if type(self.family).__name__ not in STANDARDS:
            raise InputError(
                f"{name}.family = {self.family!r} has no closed cdf to cut off: take one of {', '.join(STANDARDS)}."
            )
        if low is None and high is None:
            raise InputError(f"{name} has no bound: give low=0, high=1 or both, or take {self.family!r} alone.")
        if low is not None and high is not None and low >= high:
            raise InputError(f"{name}.low = {low:g} has to be less than {name}.high = {high:g}.")

    def bind(self, site: SiteSpec) -> BoundFamily:
        """The family in its place, its distribution cut off at the bounds."""
        inner, standard = self.family.bind(site), STANDARDS[type(self.family).__name__]
        cut = partial(self.cut, standard, self.low, self.high, inner.distribution, validate_args=False)
        return BoundFamily(self.slots_of(inner), cut, inner.group)


@dataclass(frozen=True)
class Truncated(_Bounded):
    r"""A family given that its draw lies between two bounds: values beyond them cannot be.

    $$ p(x) = \frac{f(x)}{F(b) - F(a)}, \qquad a \le x \le b $$

    Its parameters are those of the family before it is cut off, and start where that family's would. The density is
    exact in the tails: the location may lie far beyond a bound. Draws are reparameterised, so that a truncated guide
    goes with a truncated prior of the same bounds.

    References:
        Robert, Simulation of Truncated Normal Variables, 1995 [robert1995], https://arxiv.org/abs/0907.4010.

    Args:
        family: the family that is cut off: `Normal`, `Laplace`, `Logistic` or `Cauchy`.
        low: the lower bound a, in the data's unit; None for no bound.
        high: the upper bound b > a, in the data's unit; None for no bound.

    Raises:
        InputError: another family, no bound at all, or an empty interval.

    >>> Truncated(Normal(0, 1), low=0, high=2)
    Truncated(family=Normal(loc=0.0, scale=1.0), low=0.0, high=2.0)
    """

    cut = TruncatedDistribution


@dataclass(frozen=True)
class Censored(_Bounded):
    r"""A family whose draws beyond a bound are recorded as that bound: a detection limit, a full scale.

    $$ x = \min(\max(y, a), b), \qquad
       p(x) = F(a)^{[x = a]}\; f(x)^{[a < x < b]}\; \big(1 - F(b)\big)^{[x = b]} $$

    This is a density with respect to the sum of Lebesgue's measure on (a, b) and unit masses at a and b: at a bound
    it is a probability, so log-likelihoods compare among models with the same bounds only. With a Gaussian it is the
    tobit likelihood. Draws are not a smooth function of the parameters, and values repeat: it is a likelihood only.

    References:
        Tobin, Estimation of Relationships for Limited Dependent Variables, 1958 [tobin1958].

    Args:
        family: the uncensored family: `Normal`, `Laplace`, `Logistic` or `Cauchy`.
        low: the lower bound a, in the data's unit; None for no bound.
        high: the upper bound b > a, in the data's unit; None for no bound.

    Raises:
        InputError: another family, no bound at all, or an empty interval.

    >>> Censored(Normal(scale="learned"), low=0)
    Censored(family=Normal(loc=None, scale='learned'), low=0.0, high=None)
    """

    has_point_masses = True
    cut = CensoredDistribution
    roles = ("likelihood",)
