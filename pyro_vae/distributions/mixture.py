"""Mixtures of diagonal Gaussians with reparameterised draws."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


class ReparameterizedNormalMixture(dist.MixtureSameFamily):
    r"""A mixture of diagonal Gaussians whose draws are an implicit function of weights, means and scales: a guide.

    $$ F_i(z_i \mid z_{<i}; \theta) = u_i \quad\Rightarrow\quad
       \frac{dz}{d\theta} = -\Big(\frac{\partial F}{\partial z}\Big)^{-1} \frac{\partial F}{\partial \theta} $$

    Pyro's `MixtureOfDiagNormals` cannot be used: its gradient to the weights is off wherever a line through two means
    misses the origin, or scales are not 1.
    """

    has_rsample = True

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws with a gradient."""
        parts, z = self.component_distribution.base_dist, self.sample(torch.Size(sample_shape))
        at = (z.unsqueeze(-2) - parts.loc) / parts.scale
        log_density = -0.5 * at.square() - parts.scale.log()
        before = torch.nn.functional.pad(log_density[..., :-1].cumsum(-1), (1, 0))
        share = (self.mixture_distribution.logits.unsqueeze(-1) + before).softmax(-2)  # of k, given z_<i
        below = torch.special.ndtr(at)
        cdf = (share * below).sum(-2)
        with torch.no_grad():
            slope = torch.einsum("...ki,...kj->...ij", share * (below - cdf.unsqueeze(-2)), -at / parts.scale)
            density = (share * log_density.exp()).sum(-2) / math.sqrt(2 * math.pi)
            slope = slope.tril(-1) + density.clamp(min=torch.finfo(z.dtype).tiny).diag_embed()
        return z - torch.linalg.solve_triangular(slope, (cdf - cdf.detach()).unsqueeze(-1), upper=False).squeeze(-1)
