"""How a training ends before its last epoch, and which weights it leaves."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vae.model.programs import Programs
from pyro_vae.training.callbacks import CallbackList, EpochEvent
from pyro_vae.training.step import Stepper
from pyro_vae.training.stopping import Stopping
from pyro_vae.training.train_state import State


class Termination:
    """Asks after each epoch whether to go on, and keeps the weights that are wanted at the end.

    Args:
        programs: what is trained.
        stepper: has the average of the weights, if there is one.
        at: where the training stands.
        stopping: the rule; None for none.
        watchers: who is told, in the first process.
    """

    def __init__(
        self, programs: Programs, stepper: Stepper, at: State, stopping: Stopping | None, watchers: CallbackList
    ) -> None:
        self.programs, self.at, self.average, self.devices = programs, at, stepper.average, stepper.devices
        self.stopping, self.watchers = stopping, watchers
        self.scheduled = list(at.loss.running.schedules)
        self.reason, self.epoch = "", 0
        self.kept: dict[str, Tensor] = {}

    def after_epoch(self) -> Exception | None:
        """An epoch is in the history: keep its weights, if they are wanted, and find out whether it was the last one.

        Returns:
            What a callback raised, to be raised when the epoch is saved.
        """
        history, at = self.at.history, self.at
        if self.stopping is None and not self.watchers.anybody:
            return None
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            if self.stopping is not None:
                best = self.stopping.best(history, self.scheduled)
                if self.stopping.restore and best == len(history) - 1:
                    self.epoch = at.epoch
                    self.kept = {name: tensor.detach().clone() for name, tensor in at.tensors().items()}
                self.reason = self.stopping.reason(history, self.scheduled)
            if not self.watchers.anybody:
                return None
            try:
                with self.devices.seeded(at.seed + at.epoch):  # what a callback draws changes nothing
                    asked = self.devices.by_first(self._asked)
            except Exception as error:  # the epoch is worth keeping
                return error
        self.reason = self.reason or asked
        return None

    def _asked(self) -> str:
        if not self.devices.first:
            return ""
        at = self.at
        return self.watchers.epoch(EpochEvent(at.epoch, dict(at.history.last), at.history, self.programs))

    def settle(self, epochs: int) -> str:
        """Training is over: leave the weights that are wanted.

        Returns:
            Why it ended early, and which weights there are; nothing for those of the last of all epochs.
        """
        done, whose = len(self.at.history), ""
        if self.kept:
            with torch.no_grad():
                for name, tensor in self.at.tensors().items():
                    tensor.copy_(self.kept[name])
            whose = f"; the weights are those of epoch {self.epoch}, the best" if self.epoch != done else ""
        elif self.average is not None:
            self.average.settle()
        if self.reason:
            return f"stopped after epoch {done} of {epochs}: {self.reason}{whose}"
        return f"carried through all {epochs} epochs{whose}" if whose else ""

    def capture(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {"reason": self.reason, "epoch": self.epoch, "kept": self.kept}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Put that back."""
        self.reason, self.epoch = str(tree["reason"]), int(tree["epoch"])
        ours = self.at.tensors()
        self.kept = {name: tensor.to(ours[name], copy=True) for name, tensor in tree["kept"].items()}

    def require_fitting(self, tree: Mapping[str, Any]) -> None:
        """Refuse weights of another model.

        Raises:
            ValueError: they are.
        """
        kept = tree["kept"]
        ours = self.at.tensors() if kept else {}
        if {n: (t.shape, t.dtype) for n, t in kept.items()} != {n: (t.shape, t.dtype) for n, t in ours.items()}:
            raise ValueError("the weights of its best epoch have other shapes or types")
