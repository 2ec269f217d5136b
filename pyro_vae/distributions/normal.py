"""Gaussian distributions evaluated in few passes over memory, and low-rank ones that always factorise."""

import math
from types import SimpleNamespace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pyro_vae.distributions.wrappers import ExpandMixin


class FusedNormal(ExpandMixin, dist.Normal):
    """The Gaussian whose density is computed from its parameters as they were given.

    torch expands a scale that is one number to every pixel of every row first, and then takes as many logarithms.
    """

    unexpanded = ("given",)

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.given: Any = SimpleNamespace(loc=loc, scale=scale, _validate_args=False)
        super().__init__(loc, scale, validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each element, by torch's formula."""
        if value.shape[value.ndim - len(self._batch_shape) :] != self._batch_shape:
            value = value.expand(torch.broadcast_shapes(value.shape, self._batch_shape))
        return torch.distributions.Normal.log_prob(self.given, value)

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        """Distribution whose event is the last batch dimensions, all by default."""
        rank = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return FusedIndependentNormal(self, rank) if rank > 0 else super().to_event(rank)


class FusedIndependentNormal(dist.Independent):
    r"""Independent Gaussian elements: $\log p(x) = -\frac12 \sum_j (x_j - m_j)^2 / s_j^2 - \sum_j \log s_j + c$.

    Squares in one pass over memory and their sum in another, where torch's elementwise density takes nine; a scale that
    is one number is divided by once, after the sum.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, of the batch shape."""
        rank, given, event = self.reinterpreted_batch_ndims, self.base_dist.given, self.event_shape
        dims, loc, scale = tuple(range(-rank, 0)), given.loc, given.scale
        scaled = scale.ndim > 0
        if scaled:
            squares = ((value - loc) / scale).square()
        elif value.shape == loc.shape:
            squares = mse_loss(value, loc, reduction="none")
        else:
            squares = (value - loc).square()
        if squares.shape[squares.ndim - rank :] != event:
            squares = squares.expand(*squares.shape[: max(squares.ndim - rank, 0)], *event)
        constant = event.numel() * 0.5 * math.log(2 * math.pi)
        if scaled:
            logs = scale.log()
            logs = logs if logs.shape[logs.ndim - rank :] == event else logs.expand(*logs.shape[:-rank], *event)
            density = -0.5 * squares.sum(dims) - logs.sum(dims) - constant
        else:
            rest = -event.numel() * scale.log() - constant
            density = torch.addcdiv(rest, squares.sum(dims), scale.square(), value=-0.5)
        return density if density.ndim >= len(self.batch_shape) else density.expand(self.batch_shape)


class StableLowRankMultivariateNormal(ExpandMixin, dist.LowRankMultivariateNormal):
    r"""The Gaussian of covariance $F F^\top + \mathrm{diag}(d)$, each factor's signal at most 1e5 times the noise.

    A factor $F_k$ with $F_k^\top \mathrm{diag}(d)^{-1} F_k$ over that is shortened to it: the Cholesky factor of the
    inner matrix $I + F^\top \mathrm{diag}(d)^{-1} F$ then exists in float32. torch checks that it does, which is
    a host sync each time.
    """

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None) -> None:
        deviation = cov_diag.sqrt().unsqueeze(-1)
        loudness = torch.linalg.vector_norm(cov_factor / deviation, dim=-2, keepdim=True)
        cov_factor = cov_factor * (_MAX_SIGNAL_TO_NOISE / loudness.clamp(min=_MAX_SIGNAL_TO_NOISE))
        whitened = cov_factor / deviation
        one = torch.eye(cov_factor.shape[-1], dtype=cov_factor.dtype, device=cov_factor.device)
        self._capacitance_tril = torch.linalg.cholesky_ex(whitened.mT @ whitened + one).L
        self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag = cov_factor, cov_diag
        batch = torch.broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc, self.cov_diag = (vector.expand(*batch, loc.shape[-1]) for vector in (loc, cov_diag))
        self.cov_factor = cov_factor.expand(*batch, *cov_factor.shape[-2:])
        torch.distributions.Distribution.__init__(self, batch, loc.shape[-1:], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""The log density, whose distance $\lVert x - F b \rVert^2_d + \lVert b \rVert^2$ is a sum of squares.

        b is the factors' mean given x; torch's difference of two large numbers is off by 1e-5 of them.
        """
        factor, diagonal, tril = self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag, self._capacitance_tril
        deviation = diagonal.sqrt()
        white, whitened = (value.to(self.loc.dtype) - self.loc) / deviation, factor / deviation.unsqueeze(-1)
        b = torch.cholesky_solve(whitened.mT @ white.unsqueeze(-1), tril)
        distance = (white - (whitened @ b).squeeze(-1)).square().sum(-1) + b.squeeze(-1).square().sum(-1)
        log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + diagonal.log().sum(-1)
        return -0.5 * (distance + log_det + self.event_shape[0] * math.log(2 * math.pi))


_MAX_SIGNAL_TO_NOISE = math.sqrt(1e5)
