"""Everything that training changes: taken down as one tree, and put back so that it goes on bit for bit."""

import json
import math
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import GENERATORS, device_generator, seed_torch
from pyro_vae.model.programs import tensors_of
from pyro_vae.training.distributed import STRIDE, Devices
from pyro_vae.training.history import History
from pyro_vae.training.loss import Loss
from pyro_vae.training.step import Stepper

Tree = dict[str, Any]

ELSEWHERE = {name: GENERATORS[name] for name in ("numpy", "python")}
"""Random states that are not ours, and are held where a user's program draws from them."""


class Part(Protocol):
    """Something else that training changes, and that has a place in a checkpoint."""

    def capture(self) -> Tree:
        """What a checkpoint has to hold."""

    def restore(self, tree: Tree) -> None:
        """Put that back."""

    def require_fitting(self, tree: Tree) -> None:
        """Refuse what cannot be put back.

        Raises:
            ValueError: that is so.
        """


class State:
    """Where training stands, and the things whose state that is.

    Args:
        loss: the module that is trained.
        weights: every trainable tensor by name, those in Pyro's store included.
        stepper: makes the steps: has the optimizer of these, and perhaps their average.
        devices: where they are.
        seed: of the order of the rows, and of what is drawn.
        history: the record of what was.
    """

    def __init__(
        self,
        loss: Loss,
        weights: Mapping[str, nn.Parameter],
        stepper: Stepper,
        devices: Devices,
        seed: int,
        history: History,
    ) -> None:
        self.loss, self.weights, self.devices, self.seed, self.history = loss, weights, devices, seed, history
        self.stepper, self.optimizer, self.average, self.skips = (
            stepper,
            stepper.optimizer,
            stepper.average,
            stepper.skips,
        )
        self.scaler = devices.fabric.strategy.precision  # of the loss in mixed precision
        settings = [{key: value for key, value in g.items() if key != "params"} for g in self.optimizer.param_groups]
        shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in self.tensors().items()}
        self.identity = _plain({"settings of the optimizer": settings, "weights": shapes})
        self.order = torch.Generator().manual_seed(seed)
        self.epoch, self.done, self.steps, self.seconds = 1, 0, 0, 0.0
        self.drawn = self.order.get_state()  # of `order` before the rows of this epoch were put in order
        self.names: list[str] = []
        self.totals = torch.zeros((), device=devices.device, dtype=torch.float64)
        self.on_device = device_generator(devices.device)
        self.elsewhere = {name: generator.get() for name, generator in ELSEWHERE.items()}
        self.ending: Part | None = None

    def identify(self, facts: Mapping[str, Any]) -> None:
        """Say of which training this is the state, by plain values."""
        self.identity = _plain(facts) | self.identity

    def next_epoch(self) -> None:
        """Begin an epoch: nothing is done of it."""
        self.epoch, self.done, self.seconds = self.epoch + 1, 0, 0.0
        self.drawn = self.order.get_state()
        self.totals = torch.zeros((), device=self.devices.device, dtype=torch.float64)
        self.skips.next_epoch()

    def capture(self) -> Tree:
        """The whole state as a tree, by all processes together; the tensors are not copied."""
        used = {name: now for name, held in ELSEWHERE.items() if (now := held.get()) != self.elsewhere[name]}
        device = None if self.devices.device.type == "cpu" else self.devices.gathered(self.on_device.get())
        columns = self.history.columns
        table = [[record.get(column, math.nan) for column in columns] for record in self.history.records]
        average = {} if self.average is None else {"steps": self.average.steps, "means": self.average.means}
        return {
            "weights": {name: tensor.detach() for name, tensor in self.tensors().items()},
            "schedules": dict(self.loss.memory.named_buffers()),
            "clock": self.loss.running.step,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": average,
            "random": {"torch": self.devices.gathered(GENERATORS["torch"].get()), "device": device, "elsewhere": used},
            "order": self.drawn,
            "at": {"epoch": self.epoch, "done": self.done, "steps": self.steps, "seconds": self.seconds},
            "sums": {"names": self.names, "totals": self.devices.total(self.totals)},
            "history": {"columns": columns, "values": torch.tensor(table, dtype=torch.float64)},
            "skips": self.skips.counts,
            "ending": {} if self.ending is None else self.ending.capture(),
            "identity": self.identity,
            "machine": self._machine(),
        }

    def diverged(self, what: str) -> str:
        """Say that training went astray, where, and what to do about it."""
        bad = [name for name, finite in self._finite().items() if not finite]
        more = f" and {len(bad) - 2} more" if len(bad) > 2 else ""
        told = f" No numbers any more: {', '.join(bad[:2])}{more}." if bad else ""
        return (
            f"{what} in epoch {self.epoch}: lower the learning rate, as in optimizer=pv.Adam(lr=1e-4), or scale the "
            f"data to unit spread.{told}"
        )

    def require_finite_weights(self, advice: str) -> None:
        """Refuse to go on from weights that are no numbers.

        Raises:
            FloatingPointError: some are none.
        """
        if not all(self._finite().values()):
            raise FloatingPointError(self.diverged("a weight is not finite") + advice)

    def _finite(self) -> dict[str, bool]:
        finite = [weight.isfinite().all() for weight in self.weights.values()]
        return dict(zip(self.weights, torch.stack(finite).tolist(), strict=True))

    def require_same(self, tree: Tree, where: str, epochs: int) -> None:
        """Refuse the state of another training.

        Raises:
            InputError: what differs, by name.
        """
        try:
            theirs, epoch = dict(tree["identity"]), int(tree["at"]["epoch"])
        except (KeyError, TypeError, ValueError) as error:
            raise _not_ours(where, error) from error
        for name in self.identity | theirs:
            if self.identity.get(name) != theirs.get(name):
                now, then = (json.dumps(values.get(name)) for values in (self.identity, theirs))
                told = f"{name} = {then}, and now {name} = {now}" if len(now + then) < 200 else f"other {name}"
                raise InputError(
                    f"{where} is of a training with {told}: resume with what it was begun with, or begin anew with "
                    "overwrite=True."
                )
        if epoch > epochs + 1:
            raise InputError(
                f"{where} has {epoch - 1} epochs behind it, and epochs = {epochs} is asked for: give epochs of at "
                f"least {epoch - 1}, or begin anew with overwrite=True."
            )

    def restore(self, tree: Tree, where: str) -> None:
        """Put everything back as it was when the tree was captured.

        Raises:
            InputError: the tree is not of a state like this one.
        """
        try:
            self._require_fitting(tree)
            if self.devices.first:
                _warn_of_another_machine(self._machine(), tree["machine"])
            with torch.no_grad():
                for name, tensor in self.tensors().items():
                    tensor.copy_(tree["weights"][name])
                for name, tensor in self.loss.memory.named_buffers():
                    tensor.copy_(tree["schedules"][name])
            self.optimizer.load_state_dict(self._settings_of_ours(tree["optimizer"]))
            self.scaler.load_state_dict(tree["scaler"])
            self.loss.running.step = int(tree["clock"])
            at, table = tree["at"], tree["history"]
            self.epoch, self.done, self.steps = int(at["epoch"]), int(at["done"]), int(at["steps"])
            self.seconds, self.names = float(at["seconds"]), [str(name) for name in tree["sums"]["names"]]
            self.totals = tree["sums"]["totals"].to(self.totals) * self.devices.first
            if self.average is not None:
                self.average.steps = int(tree["average"]["steps"])
                for name, mean in self.average.means.items():
                    mean.copy_(tree["average"]["means"][name])
            records = [dict(zip(table["columns"], row, strict=True)) for row in table["values"].tolist()]
            self.history.records[:] = [record | {"epoch": int(record["epoch"])} for record in records]
            self.order.set_state(tree["order"])
            self.drawn = tree["order"]
            self.skips.counts.copy_(tree["skips"].reshape(self.skips.counts.shape))
            if self.ending is not None:
                self.ending.restore(tree["ending"])
            self._restore_random(tree["random"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise _not_ours(where, error) from error

    def tensors(self) -> dict[str, Tensor]:
        """Weights and buffers of the programs, and what they keep in Pyro's store."""
        found = tensors_of(self.loss.held)
        known = {id(tensor) for tensor in found.values()}
        return found | {name: weight for name, weight in self.weights.items() if id(weight) not in known}

    def _require_fitting(self, tree: Tree) -> None:
        """Check everything that would be written into memory of ours, before anything is."""
        parts: dict[str, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = {
            "weights": (self.tensors(), tree["weights"]),
            "schedules": (dict(self.loss.memory.named_buffers()), tree["schedules"]),
            "averages": ({}, {}) if self.average is None else (self.average.means, tree["average"]["means"]),
        }
        for part, (ours, theirs) in parts.items():
            if set(theirs) != set(ours):
                raise ValueError(f"its {part} are others")
            for name, tensor in ours.items():
                if theirs[name].shape != tensor.shape or theirs[name].dtype != tensor.dtype:
                    raise ValueError(f"{name} has another shape or type in it")
        if self.ending is not None:
            self.ending.require_fitting(tree["ending"])
        listed = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for index, kept in tree["optimizer"]["state"].items():
            for name, value in kept.items():  # fused steps trust these shapes, and would read beyond the end
                alike = isinstance(value, Tensor) and value.shape in ((), listed[index].shape)
                if self._fused and value is not None and not alike:
                    raise ValueError(f"{name} of the optimizer has another shape than its weight")

    @property
    def _fused(self) -> bool:
        return any(group.get("fused") for group in self.optimizer.param_groups)

    def _settings_of_ours(self, saved: Tree) -> Tree:
        """The optimizer's state with no other settings, and of no other types, than it has."""
        groups = []
        for ours, theirs in zip(self.optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True):
            if ours["params"] != theirs["params"] or ours.keys() != theirs.keys():
                raise ValueError("its optimizer is another")
            for name, value in ours.items():
                numbers = all(isinstance(one, int | float) for one in (value, theirs[name]))
                if type(value) is not type(theirs[name]) and not numbers:
                    raise ValueError(f"{name} of its optimizer is of another type")
            groups.append(ours | theirs | {"fused": ours["fused"]} if "fused" in ours else ours | theirs)
        return {"state": saved["state"], "param_groups": groups}

    def _restore_random(self, saved: Tree) -> None:
        if not isinstance(saved["torch"], list):
            raise ValueError("its random states are none")
        if len(saved["torch"]) == self.devices.world:
            GENERATORS["torch"].set(saved["torch"][self.devices.rank])
            if self.devices.device.type != "cpu" and saved["device"] is not None:
                self.on_device.set(saved["device"][self.devices.rank])
        else:  # another number of processes: each has numbers that it has not drawn before
            seed_torch(self.seed + self.steps * STRIDE + self.devices.rank, self.devices.device)
        for name, state in saved["elsewhere"].items():
            ELSEWHERE[name].set(state)
            self.elsewhere[name] = ()  # used, so held from now on

    def _machine(self) -> dict[str, Any]:
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self.devices.device.type,
            "processes": self.devices.world,
            "compiled": self.stepper.compiled,
        }


def _warn_of_another_machine(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    differing = [name for name in ours if ours[name] != theirs.get(name)]
    if differing:
        told = ", ".join(f"{name} {theirs.get(name)} (now {ours[name]})" for name in differing)
        warnings.warn(f"this training was begun with {told}: it goes on, and not bit for bit.", stacklevel=5)


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What comes back from JSON, so that it can be compared with what did."""
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=repr))
    return plain


def _not_ours(where: str, error: Exception) -> InputError:
    told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"{where} is no state of this training, and was left alone: {told}.")
