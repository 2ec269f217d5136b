"""Families of labels."""

from dataclasses import dataclass
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.declared import option
from pyro_vae.families import constraints
from pyro_vae.families.base import Family, Parameter, Source


def _one_per_class(event: tuple[int, ...], family: "Categorical") -> tuple[int, ...]:
    return (*event, family.classes)


def _log_shares(x: Tensor, family: "Categorical") -> Tensor:
    counts = torch.stack([(x == label).sum(0) for label in range(family.classes)], dim=-1)
    return torch.log((counts.to(x) + 0.5) / (x.shape[0] + 0.5 * family.classes))


@dataclass(frozen=True)
class Categorical(Family):
    r"""Independent elements, each one of K unordered labels 0, ..., K-1.

    $$ p(x) = \prod_j \frac{\exp l_{j x_j}}{\sum_k \exp l_{jk}} $$

    It has no mean: its values are names. Look at draws, or at `vae.decode(z).base_dist.probs`.

    References:
        Agresti, Categorical Data Analysis, 2013.

    Args:
        classes: the number of labels K, at least 2.
        logits: the log weights l, of the event's shape and K.

    >>> Categorical(classes=3)
    Categorical(classes=3, logits=None)
    """

    classes: int = option(2, low=2)
    logits: Source = None
    parameters = {"logits": Parameter(constraints.real, shape=_one_per_class, start=_log_shares, one_value=False)}
    remedy: ClassVar = "code the labels as 0, 1, ..., K-1 and set classes=K, or take a family for real values"

    @staticmethod
    def distribution(logits: Tensor, validate_args: bool) -> dist.TorchDistribution:
        """Build Pyro's distribution, whose first argument is `probs`."""
        return dist.Categorical(logits=logits, validate_args=validate_args)
