"""Bernoulli distributions over one event, evaluated in one pass over memory."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import unit_interval
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.functional import softplus

BLOCK_SIZE = 2**19
"""Numbers in a block that is passed over several times: 2 MB in float32, which the caches of two cores hold."""


VECTOR_SIZE = 16
"""Numbers in one vector instruction of a processor, in float32."""


MAX_FACTORS = 8
"""Number of factors in a product whose logarithm is taken."""


class FusedBernoulli(dist.Bernoulli):
    """Pyro's Bernoulli, whose elements are summed as they are evaluated once they are one event."""

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> TorchDistribution:
        """Distribution whose event is the last batch dimensions, all by default."""
        rank = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return FusedIndependentBernoulli(self, rank) if rank else self


class FusedIndependentBernoulli(dist.Independent):
    r"""Independent Bernoulli elements: $\log p(x) = -\sum_j \log(1 + e^{s_j l_j})$ with the signs $s = 1 - 2x$.

    One pass over memory, where the sum of Pyro's elementwise log-probabilities takes five: evidence by thousands of
    draws spends most of its time there.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of zeros and ones, of the batch shape."""
        rank = self.reinterpreted_batch_ndims
        logits, value = (t.flatten(-rank) if rank > 1 else t for t in (self.base_dist.logits, value))
        return -softplus_sum(logits, 1 - 2 * value.to(logits))


def softplus_sum(logits: Tensor, signs: Tensor) -> Tensor:
    r"""The sum $\sum_j \log(1 + e^{s_j l_j})$ over the J elements of an event.

    Torch's softplus takes three times as long as an exponential and a logarithm, which the processor's own library
    computes. So without gradients these are used instead, block by block of what a cache holds;
    and the softplus after all where an exponential overflows. A compiler makes one pass of whatever is recorded, in
    which the logarithm is what takes longest, so that of several factors one is taken,
    $\sum_j \max(s_j l_j, 0) + \log \prod_j (1 + e^{-|l_j|})$. Each element is right up to rounding, that of 1 + e^l.

    Args:
        logits: l, (*batch, J).
        signs: s, 1 or -1, of a shape that broadcasts with it, such as one row for many draws.

    Returns:
        The sums, of the batch shape of both.

    >>> with torch.no_grad():
    ...     softplus_sum(torch.zeros(2, 3), torch.ones(3)) / torch.log(torch.tensor(2.0))
    tensor([3., 3.])
    """
    precise = logits.device.type == "cpu" and torch.finfo(logits.dtype).bits >= 32
    if torch.is_grad_enabled() or not precise:
        return softplus(signs * logits).sum(-1)
    if _is_traced():
        return _sum_by_products(signs * logits)
    found = _sum_by_exponentials(*torch.broadcast_tensors(torch.atleast_2d(logits), signs)).view(
        torch.broadcast_shapes(logits.shape, signs.shape)[:-1]
    )
    return found if math.isfinite(float(found.sum())) else softplus(signs * logits).sum(-1)


def _sum_by_exponentials(logits: Tensor, signs: Tensor) -> Tensor:
    at_once = max(1, BLOCK_SIZE // math.prod(logits.shape[1:]))
    blocks = (tensor.split(at_once) for tensor in (logits, signs))
    return torch.cat([(logit * sign).exp_().add_(1).log_().sum(-1) for logit, sign in zip(*blocks, strict=True)])


def _sum_by_products(exponents: Tensor) -> Tensor:
    """Sums for a compiler: full vectors of the processor are multiplied, element by element."""
    *vectors, last = exponents.split(VECTOR_SIZE * math.ceil(exponents.shape[-1] / (VECTOR_SIZE * MAX_FACTORS)), -1)
    groups = [[*vectors, last]] if not vectors or last.shape == vectors[0].shape else [vectors, [last]]
    return sum((_sum_group(group) for group in groups), torch.zeros_like(exponents[..., 0]))


def _sum_group(parts: list[Tensor]) -> Tensor:
    above = sum((part.relu() for part in parts), torch.zeros_like(parts[0]))
    product = math.prod((1 + (-part.abs()).exp() for part in parts), start=torch.ones_like(parts[0]))
    return (above + product.log()).sum(-1)


def _is_traced() -> bool:
    """Whether operations are traced or mapped, so that control flow cannot depend on values."""
    mapped = torch._C._functorch.maybe_current_level() is not None
    return mapped or torch.compiler.is_compiling() or get_proxy_mode() is not None


class GreyBernoulli(dist.Bernoulli):
    """Bernoulli formula at values between 0 and 1: a cross-entropy, not a density."""

    support = unit_interval
