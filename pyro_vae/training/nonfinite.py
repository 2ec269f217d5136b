"""Steps that are left out because their gradient is no number: noticed, skipped and counted without waiting for it."""

import torch
from torch import Tensor, nn


class Skips:
    """Leaves out steps of a fused optimizer.

    Args:
        optimizer: the optimizer, whose fused kernels look at `found_inf`.
        allowed: how many steps may be left out; 0 for none, and then nothing is looked at.
        device: where the weights are.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, allowed: int, device: torch.device) -> None:
        self.optimizer, self.allowed = optimizer, allowed
        self.counts = torch.zeros(3, dtype=torch.float64, device=device)  # of this epoch: steps, rows; steps in all
        rows = ([1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
        self.step, self.row, self.lasting = torch.tensor(rows, dtype=torch.float64, device=device)
        self.found = torch.zeros((), dtype=torch.bool, device=device)
        for group in optimizer.param_groups if allowed else ():
            for weight in group["params"] if group.get("momentum") else ():
                # a first step that is left out would leave what was in memory there
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    def look(self, rows: int) -> None:
        """Leave out the coming step, on so many rows, if its gradient is no number."""
        if not self.allowed:
            return
        weights: list[nn.Parameter] = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        self.found.copy_(~norm.isfinite())
        told: dict[str, Tensor | None] = {"found_inf": self.found.float(), "grad_scale": None}
        vars(self.optimizer).update(told)
        self.counts.add_(self.found * (self.step + rows * self.row))

    def without(self, sums: Tensor, instead: float | Tensor = 0.0) -> Tensor:
        """What the step came to; or something instead, if it was left out."""
        return torch.where(self.found, instead, sums) if self.allowed else sums

    def next_epoch(self) -> None:
        """Begin to count an epoch."""
        self.counts.mul_(self.lasting)
