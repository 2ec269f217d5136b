"""Distributions over ordered levels, whose masses are differences of logistic distribution functions."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.constraints import integer_interval
from torch.nn.functional import logsigmoid, pad

from pyro_vae.distributions.wrappers import ExpandMixin


class StableOrderedLogistic(ExpandMixin, dist.OrderedLogistic):
    """The ordered logistic whose masses keep their digits, and their gradients, however far the predictor is."""

    def __init__(self, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None) -> None:
        edges = cutpoints - predictor.unsqueeze(-1)
        self.predictor, self.cutpoints = predictor.expand(edges.shape[:-1]), cutpoints.expand(edges.shape)
        below, above = pad(logsigmoid(edges), (0, 1)), pad(logsigmoid(-edges), (1, 0))
        gaps = cutpoints.diff().clamp(min=torch.finfo(cutpoints.dtype).eps)
        logits = below + above + pad(_log_one_minus_exp(-gaps), (1, 1))
        dist.Categorical.__init__(self, logits=logits, validate_args=validate_args)


class DiscretizedLogisticMixture(dist.TorchDistribution):
    r"""A mixture of logistic distributions, rounded to integers; the first and the last one take the tails.

    Args:
        logits: log weights of the components, (*batch, components).
        loc: their locations, where level 0 is -1 and level bins - 1 is 1.
        scale: their scales, in that unit.
        bins: the number of levels.
        validate_args: as for every distribution.

    >>> one = DiscretizedLogisticMixture(torch.zeros(1), torch.zeros(1), torch.full((1,), 0.1), bins=3)
    >>> one.log_prob(torch.arange(3.0)).exp().sum().item(), one.mean.item()
    (1.0, 1.0)
    """

    arg_constraints = {
        "logits": torch.distributions.constraints.real_vector,
        "loc": torch.distributions.constraints.real_vector,
        "scale": torch.distributions.constraints.independent(torch.distributions.constraints.positive, 1),
    }

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, *, bins: int, validate_args: bool | None = None
    ) -> None:
        self.bins = bins
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        super().__init__(self.loc.shape[:-1], validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Integers 0, ..., bins - 1."""
        return integer_interval(0, self.bins - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogisticMixture":
        """Distribution of that batch shape."""
        values = (parameter.expand(*batch_shape, -1) for parameter in (self.logits, self.loc, self.scale))
        return DiscretizedLogisticMixture(*values, bins=self.bins, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass of each level, by a formula that neither subtracts nor overflows."""
        if self._validate_args:
            self._validate_sample(value)
        level = value.to(self.loc).unsqueeze(-1)
        below = (self._edge(level) - self.loc) / self.scale
        above = (self._edge(level + 1) - self.loc) / self.scale
        first, last = level == 0, level == self.bins - 1
        mass = (
            logsigmoid(above).masked_fill(last, 0)
            + logsigmoid(-below).masked_fill(first, 0)
            + _log_one_minus_exp(-2 / (self.bins - 1) / self.scale).masked_fill(first | last, 0)
        )
        return torch.logsumexp(self.logits.log_softmax(-1) + mass, -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of a component, then of a logistic number, rounded."""
        with torch.no_grad():
            component = dist.Categorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape))
            loc, scale = (
                parameter.expand(*component.shape, -1).gather(-1, component.unsqueeze(-1)).squeeze(-1)
                for parameter in (self.loc, self.scale)
            )
            drawn = loc + scale * torch.logit(torch.rand_like(loc))
            return ((drawn + 1) / 2 * (self.bins - 1)).round().clamp(0, self.bins - 1)

    @property
    def mean(self) -> Tensor:
        r"""The mean level, $\sum_{k \ge 1} P(x \ge k)$."""
        return self._sum_of_tails(lambda k: 1.0)

    @property
    def variance(self) -> Tensor:
        r"""The variance of the level, by $E x^2 = \sum_{k \ge 1} (2k - 1) P(x \ge k)$."""
        return self._sum_of_tails(lambda k: 2 * k - 1.0) - self.mean.square()

    def _edge(self, level: Tensor | int) -> Any:
        return (2 * level - 1) / (self.bins - 1) - 1

    def _sum_of_tails(self, weight: Callable[[int], float]) -> Tensor:
        total = torch.zeros_like(self.loc)
        for k in range(1, self.bins):  # one at a time: all at once would be as many copies of a batch
            total += weight(k) * torch.sigmoid((self.loc - self._edge(k)) / self.scale)
        return (self.logits.softmax(-1) * total).sum(-1)


def _log_one_minus_exp(x: Tensor) -> Tensor:
    r"""$\log(1 - e^x)$ for x < 0; with it, $\sigma(b) - \sigma(a) = \sigma(b)\,\sigma(-a)\,(1 - e^{a - b})$ exactly."""
    return torch.log(-torch.expm1(x))
