"""The ordered logistic distribution, stable for any predictor."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from pyro_vae.distributions.wrappers import ExpandMixin


class StableOrderedLogistic(ExpandMixin, dist.OrderedLogistic):
    """The ordered logistic whose masses keep their digits, and their gradients, however far the predictor is."""

    def __init__(self, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None) -> None:
        edges = cutpoints - predictor.unsqueeze(-1)
        self.predictor, self.cutpoints = predictor.expand(edges.shape[:-1]), cutpoints.expand(edges.shape)
        below, above = pad(logsigmoid(edges), (0, 1)), pad(logsigmoid(-edges), (1, 0))
        gaps = cutpoints.diff().clamp(min=torch.finfo(cutpoints.dtype).eps)
        logits = below + above + pad(log_one_minus_exp(-gaps), (1, 1))
        dist.Categorical.__init__(self, logits=logits, validate_args=validate_args)


def log_one_minus_exp(x: Tensor) -> Tensor:
    r"""$\log(1 - e^x)$ for x < 0; with it, $\sigma(b) - \sigma(a) = \sigma(b)\,\sigma(-a)\,(1 - e^{a - b})$ exactly."""
    return torch.log(-torch.expm1(x))
