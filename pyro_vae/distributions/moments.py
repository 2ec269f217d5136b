"""Mean, variance and cdf of what a model describes: in closed form where there is one, else by draws, with the error.

Each function takes a distribution as `vae.decode(z)` gives it, works element by element, and returns an `Estimate`
that holds its standard error.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError
from pyro_vae.distributions.wrappers import distribution_name

DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimate with its Monte Carlo standard error.

    Args:
        value: the value, (*batch, *event).
        error: its Monte Carlo standard error, of that shape; 0 for a closed form.
        draws: the number of draws behind it; 0 for a closed form.
        quantity: its name, in a word.
    """

    value: Tensor
    error: Tensor
    draws: int
    quantity: str

    @property
    def how(self) -> str:
        """Description of how it was computed."""
        if not self.draws:
            return f"{self.quantity} in closed form"
        return f"{self.quantity} by {self.draws:,} draws, standard error at most {float(self.error.max()):.2g}"


@explained
@torch.no_grad()
def mean(distribution: TorchDistribution, draws: int = DRAWS) -> Estimate:
    """The mean of each element.

    Args:
        distribution: such as `vae.decode(z)`.
        draws: how many draws stand in for a closed form.

    Raises:
        InputError: there is no mean: the values are labels, or the tails too heavy.

    >>> import pyro.distributions as dist
    >>> mean(dist.Gamma(torch.tensor([2.0]), torch.tensor([4.0])).to_event(1)).how
    'mean in closed form'
    """
    return _moment("mean", lambda: distribution.mean, distribution, draws, lambda x: x)


@explained
@torch.no_grad()
def variance(distribution: TorchDistribution, draws: int = DRAWS) -> Estimate:
    """The variance of each element; see `mean`.

    Raises:
        InputError: there is none.
    """

    def squares(x: Tensor) -> Tensor:
        return (x - x.mean(0)).square() * (len(x) / (len(x) - 1))

    return _moment("variance", lambda: distribution.variance, distribution, draws, squares)


@explained
@torch.no_grad()
def cdf(distribution: TorchDistribution, x: Tensor, draws: int = DRAWS) -> Estimate:
    """The probability of each element to be at most x, whatever the others are.

    Args:
        distribution: such as `vae.decode(z)`.
        x: values that broadcast to (*batch, *event).
        draws: how many draws stand in for a closed form.

    >>> import pyro.distributions as dist
    >>> float(cdf(dist.Normal(torch.zeros(3), 1.0).to_event(1), torch.tensor(0.0)).value[0])
    0.5
    """
    elements = distribution
    while isinstance(elements, Independent):
        elements = elements.base_dist
    x = x.expand(distribution.batch_shape + distribution.event_shape)

    def closed() -> Tensor:
        if elements.event_shape:  # of a vector's family, it would be that of all elements together
            raise NotImplementedError
        return elements.cdf(x)

    return _moment("cdf", closed, distribution, draws, lambda drawn: (drawn <= x).to(torch.result_type(drawn, 1.0 * x)))


def _moment(
    quantity: str,
    closed: Callable[[], Tensor],
    distribution: TorchDistribution,
    draws: int,
    terms: Callable[[Tensor], Tensor],
) -> Estimate:
    """A closed form, or the mean of terms over draws."""
    try:
        value = closed().detach()
        error, draws = torch.zeros_like(value), 0
    except NotImplementedError:
        each = terms(distribution.sample((draws,)))
        value, error = each.mean(0), each.std(0) / draws**0.5
    if not bool(torch.isfinite(value).all()):
        raise InputError(
            f"{distribution_name(distribution)} has no {quantity} (its values are labels, or its tails are too heavy): "
            "look at draws, with mean=False, or at the distribution vae.decode(z)."
        )
    return Estimate(value, error, draws, quantity)
