"""Location-scale families with heavier tails than the Gaussian's."""

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all

from pyro_vae.families import constraints
from pyro_vae.families.base import Family, Parameter, Source, mean_of, spread_of


@dataclass(frozen=True)
class Laplace(Family):
    r"""The double exponential, with independent elements.

    $$ p(x) = \prod_j \frac{1}{2 b_j} \exp\Big(-\frac{|x_j - m_j|}{b_j}\Big) $$

    As a likelihood its location is a conditional median, so single outliers pull less than under `Normal`.

    References:
        Kotz, Kozubowski and Podgorski, The Laplace Distribution and Generalizations, 2001.

    Args:
        loc: the median m, of the event's shape, in the data's unit.
        scale: the mean absolute deviation b, of the event's shape, in the data's unit, in [1e-4, 1e6].

    >>> Laplace(scale="learned")
    Laplace(loc=None, scale='learned')
    """

    loc: Source = None
    scale: Source = None
    parameters = {
        "loc": Parameter(constraints.real, start=mean_of),
        "scale": Parameter(constraints.positive, start=spread_of),
    }
    distribution = dist.Laplace


class UncheckedStudentT(dist.StudentT):
    """Student's t whose degrees of freedom are not checked: torch's waits for the device whenever one is made."""

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = dist.Chi2(self.df, validate_args=validate_args)
        torch.distributions.Distribution.__init__(self, self.df.shape, validate_args=validate_args)

    def expand(self, batch_shape: tuple[int, ...], _instance: Any = None) -> "UncheckedStudentT":
        """Expand as torch does, which refuses subclasses with a constructor of their own."""
        expanded: UncheckedStudentT = super().expand(batch_shape, _instance or self.__new__(type(self)))
        return expanded


@dataclass(frozen=True)
class StudentT(Family):
    r"""Student's t with independent elements: tails that fall like a power.

    $$ p(x) = \prod_j \frac{\Gamma(\frac{\nu_j+1}{2})}{\Gamma(\frac{\nu_j}{2})\sqrt{\nu_j\pi}\,s_j}
       \Big(1 + \frac{(x_j - m_j)^2}{\nu_j s_j^2}\Big)^{-\frac{\nu_j+1}{2}} $$

    It has a mean for degrees of freedom over 1 and a variance over 2.

    References:
        Lange, Little and Taylor, Robust Statistical Modeling Using the t Distribution, 1989.

    Args:
        df: the degrees of freedom nu, of the event's shape, in [0.5, 1000]; 10 before training.
        loc: the location m, of the event's shape, in the data's unit.
        scale: the scale s, of the event's shape, in the data's unit, in [1e-4, 1e6].

    >>> StudentT(df="learned", scale="per_feature")
    StudentT(df='learned', loc=None, scale='per_feature')
    """

    df: Source = None
    loc: Source = None
    scale: Source = None
    parameters = {
        "df": Parameter(constraints.Bounded(0.5, 1000.0, unit=10.0)),
        "loc": Parameter(constraints.real, start=mean_of),
        "scale": Parameter(constraints.positive, start=spread_of),
    }
    distribution = UncheckedStudentT
