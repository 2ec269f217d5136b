"""Steps skipped because their gradient is NaN or infinite: detected, skipped and counted with no host sync."""

import torch
from torch import Tensor, nn


class NonfiniteGuard:
    """A guard that skips and counts steps of a fused optimizer.

    Args:
        optimizer: the optimizer, whose fused kernels read `found_inf`.
        max_steps: the largest number of steps to skip; 0 for none, and then gradients are not checked.
        device: of the weights.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_steps: int, device: torch.device) -> None:
        self.optimizer, self.max_steps = optimizer, max_steps
        self.counts = torch.zeros(3, dtype=torch.float64, device=device)  # of this epoch: steps, rows; steps in all
        rows = ([1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
        self.step, self.row, self.lasting = torch.tensor(rows, dtype=torch.float64, device=device)
        self.found = torch.zeros((), dtype=torch.bool, device=device)
        for group in optimizer.param_groups if max_steps else ():
            for weight in group["params"] if group.get("momentum") else ():
                # a first step that is skipped would leave uninitialised memory there
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    def check_finite(self, rows: int) -> None:
        """Skip the coming step, on so many rows, if its gradient is NaN or infinite."""
        if not self.max_steps:
            return
        weights: list[nn.Parameter] = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        self.found.copy_(~norm.isfinite())
        flags: dict[str, Tensor | None] = {"found_inf": self.found.float(), "grad_scale": None}
        vars(self.optimizer).update(flags)
        self.counts.add_(self.found * (self.step + rows * self.row))

    def mask(self, sums: Tensor, instead: float | Tensor = 0.0) -> Tensor:
        """Sums of the last step, or `instead` if it was skipped."""
        return torch.where(self.found, instead, sums) if self.max_steps else sums

    def next_epoch(self) -> None:
        """Reset the counts of an epoch."""
        self.counts.mul_(self.lasting)
