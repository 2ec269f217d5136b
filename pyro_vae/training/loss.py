"""The loss of a batch under any pair of Pyro programs, as a module, and the weights it trains."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import seeded
from pyro_vae.model.programs import Programs, as_module
from pyro_vae.networks.base import evaluating
from pyro_vae.objectives import Objective, Particles, ScheduledObjective


class OpaqueBatch:
    """A batch that Fabric leaves as it is: it would round tensors that it can see to a mixed precision."""

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        self.batch = batch


class Loss(nn.Module):
    """Mean loss of a batch, as a module that holds those of the programs, so that Fabric can place and wrap it.

    Args:
        programs: the pair.
        objective: the bound that is maximised.
        steps_per_epoch: the number of steps of an epoch, for its schedules.
        rows: the number of training rows.
    """

    def __init__(
        self, programs: Programs, objective: Objective, steps_per_epoch: int = 1, rows: int | None = None
    ) -> None:
        super().__init__()
        self.running = ScheduledObjective(objective, steps_per_epoch, rows)
        self.memory = self.running.state
        self.model, self.guide = programs.model, programs.guide
        self.held = as_module(programs)

    def forward(
        self, given: Mapping[str, Tensor] | OpaqueBatch, values: Mapping[str, float | Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss per row, and it and its parts without gradient, all scalars; no clock advances.

        The schedules have the `values`, by default their present ones.
        """
        batch = given.batch if isinstance(given, OpaqueBatch) else given
        objective = self.running.resolve(self.running.values if values is None else values)
        particles = objective.draw(self.model, self.guide, **batch)
        share = self._share(particles, batch)
        loss = -objective.bound(particles).mean()
        loss = loss if share == 1 else loss * share
        with torch.no_grad():
            log_likelihood = particles.log_likelihood.mean()
            parts = {"log_likelihood": log_likelihood, "kl": objective.kl_of(particles).mean()}
            parts |= objective.extra_terms(particles)
            if share != 1:
                parts = {name: share * part for name, part in parts.items()}
            return loss, {"loss": loss.detach(), **parts}

    def parts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss and every part of it, per row, without gradient."""
        with torch.no_grad():
            objective = self.running.current
            particles = objective.draw(self.model, self.guide, **batch)
            parts = {"loss": -objective.bound(particles).mean(), **objective.summary(particles)}
            share = self._share(particles, batch)
            return {name: part * share for name, part in parts.items()}

    @staticmethod
    def _share(particles: Particles, batch: Mapping[str, Tensor]) -> float:
        """Rows of particles per row of data: less than 1 where one stands for a batch, or a batch for all rows."""
        return particles.log_likelihood.shape[1] / (batch["x"].shape[0] * particles.subsampling)

    def weights(self, batch: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
        """Every trainable tensor by name, found in a dry run that leaves all random states as they were.

        Weights of modules come first; then what the programs register in Pyro's parameter store
        (`pyro.param`, `PyroModule`, autoguides).

        Raises:
            InputError: the programs have no weights, or the objective does not fit them.
        """
        trace = poutine.trace(param_only=True)
        with seeded(None, batch["x"].device), evaluating(self.held), trace as stored:  # BatchNorm's statistics stay
            self.parts(batch)
        named: dict[str, Any] = dict(self.held.named_parameters())
        for name, site in stored.trace.nodes.items():
            if site["type"] == "param":  # a constrained parameter is a function of the leaf that is trained
                value: Any = site["value"]
                named[name] = value.unconstrained() if hasattr(value, "unconstrained") else value
        unique = {id(weight): (name, weight) for name, weight in reversed(named.items())}
        named = dict(reversed(unique.values()))
        if not named:
            raise InputError("these programs have no weights to train: keep them in torch modules or in pyro.param.")
        return named


@contextlib.contextmanager
def frozen(weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """A block within which weights that the optimizer does not hold get no gradient."""
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    resting = [weight for weight in weights.values() if id(weight) not in held and weight.requires_grad]
    for weight in resting:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in resting:
            weight.requires_grad_(True)


def resting_modules(programs: Programs) -> list[nn.Module]:
    """Modules that stay in eval mode while a pair is trained.

    They are those whose weights are all frozen, and those that are in eval mode while others are in train mode. Where
    all are in eval mode, as `fit` and `load` leave a model, mode says nothing.
    """
    module = as_module(programs)
    listed = list(module.modules())
    if not isinstance(programs, nn.Module):
        listed.remove(module)  # which was made to hold them
    by_mode = [part for part in listed if not part.training] if any(part.training for part in listed) else []
    frozen_parts = [
        part for part in listed if (held := list(part.parameters())) and not any(w.requires_grad for w in held)
    ]
    return [inner for part in frozen_parts for inner in part.modules()] + by_mode


def train_mode(module: nn.Module, resting: Sequence[nn.Module]) -> None:
    """Put a module in train mode, and some of its parts in eval mode."""
    module.train()
    for part in resting:
        part.training = False


@contextlib.contextmanager
def substituted(weights: Mapping[str, nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """A block within which the weights have other values, given in their order."""
    own = [weight.detach() for weight in weights.values()]
    kept = [weight.clone() for weight in own]
    torch._foreach_copy_(own, list(values))
    try:
        yield
    finally:
        torch._foreach_copy_(own, kept)
