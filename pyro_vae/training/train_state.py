"""Everything that training changes, as one object that saves to a tree and resumes from it bit for bit."""

import contextlib
import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.core.errors import InputError
from pyro_vae.core.formatting import abbreviate
from pyro_vae.core.rng import GENERATORS, device_generator, seed_torch
from pyro_vae.model.programs import named_tensors
from pyro_vae.training.distributed import RANK_SEED_STRIDE, ProcessGroup
from pyro_vae.training.ema import ExponentialMovingAverage
from pyro_vae.training.history import History
from pyro_vae.training.loss import Loss
from pyro_vae.training.nonfinite import NonfiniteGuard
from pyro_vae.training.optimizers import Optimizer, OptimizerLike, build_optimizer

Tree = dict[str, Any]

FOREIGN_GENERATORS = {name: GENERATORS[name] for name in ("numpy", "python")}
"""Random states that are not seeded here, and are saved where a user's program draws from them."""


class TrainState:
    """The state of a training; a step, a loop and a rule of termination are given it, and it holds none of them.

    Args:
        loss: the module that is trained.
        weights: every trainable tensor by name, those in Pyro's store included.
        spec: the optimizer as declared.
        group: the processes.
        seed: of the order of the rows, and of random draws.
        history: the record of past epochs.

    Raises:
        InputError: the optimizer cannot be made.
    """

    def __init__(
        self,
        loss: Loss,
        weights: Mapping[str, nn.Parameter],
        spec: OptimizerLike,
        group: ProcessGroup,
        seed: int,
        history: History,
    ) -> None:
        self.loss, self.weights, self.group, self.seed, self.history = loss, weights, group, seed, history
        declared = spec if isinstance(spec, Optimizer) else Optimizer()
        self.optimizer = build_optimizer(spec, weights)
        held = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        trained = {name: weight for name, weight in weights.items() if id(weight) in held}
        self.ema = None if declared.ema is None else ExponentialMovingAverage(trained, declared.ema)
        self.nonfinite = NonfiniteGuard(self.optimizer, declared.max_nonfinite_steps, group.device)
        self.scaler = group.fabric.strategy.precision  # of the loss in mixed precision
        settings = [{key: value for key, value in g.items() if key != "params"} for g in self.optimizer.param_groups]
        shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in self.tensors().items()}
        self.identity = _as_json({"settings of the optimizer": settings, "weights": shapes})
        self.order = torch.Generator().manual_seed(seed)
        self.epoch, self.done, self.steps, self.seconds = 1, 0, 0, 0.0  # `done`: steps of this epoch
        self.epoch_order = self.order.get_state()  # of `order` before the rows of this epoch were shuffled
        self.names: list[str] = []  # of the loss and its parts
        self.totals = torch.zeros((), device=group.device, dtype=torch.float64)
        self.device_generator = device_generator(group.device)
        self.foreign = {name: generator.get() for name, generator in FOREIGN_GENERATORS.items()}
        self.compiled = False  # whether steps are compiled graphs
        self.stop_reason, self.best_epoch = "", 0
        self.best_weights: dict[str, Tensor] = {}

    def set_identity(self, facts: Mapping[str, Any]) -> None:
        """Add plain facts by which a checkpoint is known to be of the same training."""
        self.identity = _as_json(facts) | self.identity

    def next_epoch(self) -> None:
        """Begin an epoch, with no steps done."""
        self.epoch, self.done, self.seconds = self.epoch + 1, 0, 0.0
        self.epoch_order = self.order.get_state()
        self.totals = torch.zeros((), device=self.group.device, dtype=torch.float64)
        self.nonfinite.next_epoch()

    def tensors(self) -> dict[str, Tensor]:
        """Weights and buffers of the programs, and their parameters in Pyro's store."""
        found = named_tensors(self.loss.held)
        known = {id(tensor) for tensor in found.values()}
        return found | {name: weight for name, weight in self.weights.items() if id(weight) not in known}

    def averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        """A block within which the weights are their moving averages, where those are kept."""
        return contextlib.nullcontext() if self.ema is None else self.ema.applied()

    def keep_best(self) -> None:
        """Keep a copy of the present weights as those of the best epoch."""
        self.best_epoch = self.epoch
        self.best_weights = {name: tensor.detach().clone() for name, tensor in self.tensors().items()}

    def restore_best(self) -> None:
        """Give the model its final weights: those of the best epoch, their moving average, or the last ones."""
        if self.best_weights:
            with torch.no_grad():
                for name, tensor in self.tensors().items():
                    tensor.copy_(self.best_weights[name])
        elif self.ema is not None:
            self.ema.copy_to_model()

    def state_dict(self) -> Tree:
        """The complete state as a tree, gathered by all processes together; the tensors are not copied."""
        used = {name: now for name, held in FOREIGN_GENERATORS.items() if (now := held.get()) != self.foreign[name]}
        device = None if self.group.device.type == "cpu" else self.group.all_gather(self.device_generator.get())
        columns = self.history.columns
        table = [[record.get(column, math.nan) for column in columns] for record in self.history.records]
        return {
            "weights": {name: tensor.detach() for name, tensor in self.tensors().items()},
            "schedules": dict(self.loss.memory.named_buffers()),
            "clock": self.loss.running.step,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": {} if self.ema is None else {"steps": self.ema.steps, "means": self.ema.means},
            "random": {"torch": self.group.all_gather(GENERATORS["torch"].get()), "device": device, "foreign": used},
            "order": self.epoch_order,
            "at": {"epoch": self.epoch, "done": self.done, "steps": self.steps, "seconds": self.seconds},
            "sums": {"names": self.names, "totals": self.group.all_reduce(self.totals)},
            "history": {"columns": columns, "values": torch.tensor(table, dtype=torch.float64)},
            "nonfinite": self.nonfinite.counts,
            "stop": {"reason": self.stop_reason, "best_epoch": self.best_epoch, "best_weights": self.best_weights},
            "identity": self.identity,
            "machine": self._machine(),
        }

    def check_same_run(self, tree: Tree, where: str, epochs: int) -> None:
        """Refuse the checkpoint of another training.

        Raises:
            InputError: what differs, by name.
        """
        try:
            theirs, epoch = dict(tree["identity"]), int(tree["at"]["epoch"])
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid_checkpoint(where, error) from error
        for name in self.identity | theirs:
            if self.identity.get(name) != theirs.get(name):
                now, then = (json.dumps(values.get(name)) for values in (self.identity, theirs))
                change = f"{name} = {then}, and now {name} = {now}" if len(now + then) < 200 else f"other {name}"
                raise InputError(
                    f"{where} is of a training with {change}: resume with the arguments it was started with, or start "
                    "again with overwrite=True."
                )
        if epoch > epochs + 1:
            raise InputError(
                f"{where} has {epoch - 1} epochs behind it, more than epochs = {epochs}: give epochs of at least "
                f"{epoch - 1}, or start again with overwrite=True."
            )

    def load_state_dict(self, tree: Tree, where: str) -> None:
        """Restore everything as it was when the tree was made.

        Args:
            tree: from `state_dict`.
            where: the name of the checkpoint, for messages.

        Raises:
            InputError: the tree is not of a state like this one.
        """
        try:
            self._check_shapes(tree)
            if self.group.is_rank0:
                _warn_of_another_machine(self._machine(), tree["machine"])
            with torch.no_grad():
                for ours, theirs in self._pairs(tree).values():
                    for name, tensor in ours.items():
                        tensor.copy_(theirs[name])
            self.optimizer.load_state_dict(self._with_own_settings(tree["optimizer"]))
            self.scaler.load_state_dict(tree["scaler"])
            self.loss.running.step = int(tree["clock"])
            at, table, stop = tree["at"], tree["history"], tree["stop"]
            self.epoch, self.done, self.steps = int(at["epoch"]), int(at["done"]), int(at["steps"])
            self.seconds, self.names = float(at["seconds"]), [str(name) for name in tree["sums"]["names"]]
            self.totals = tree["sums"]["totals"].to(self.totals) * self.group.is_rank0
            if self.ema is not None:
                self.ema.steps = int(tree["average"]["steps"])
            records = [dict(zip(table["columns"], row, strict=True)) for row in table["values"].tolist()]
            self.history.records[:] = [record | {"epoch": int(record["epoch"])} for record in records]
            self.order.set_state(tree["order"])
            self.epoch_order = tree["order"]
            self.nonfinite.counts.copy_(tree["nonfinite"].reshape(self.nonfinite.counts.shape))
            mine = self.tensors()
            self.stop_reason, self.best_epoch = str(stop["reason"]), int(stop["best_epoch"])
            self.best_weights = {name: kept.to(mine[name], copy=True) for name, kept in stop["best_weights"].items()}
            self._restore_random(tree["random"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise _invalid_checkpoint(where, error) from error

    def divergence_message(self, what: str) -> str:
        """Message that training diverged: where, which weights, and the remedy."""
        bad = [name for name, finite in self._are_finite().items() if not finite]
        weights = f" NaN or infinite weights: {abbreviate(bad, 2)}." if bad else ""
        return (
            f"{what} in epoch {self.epoch}: lower the learning rate, as in optimizer=pv.Adam(lr=1e-4), or scale the "
            f"data to unit spread.{weights}"
        )

    def require_finite_weights(self, advice: str) -> None:
        """Refuse to continue from weights that are NaN or infinite.

        Raises:
            FloatingPointError: some are.
        """
        if not all(self._are_finite().values()):
            raise FloatingPointError(self.divergence_message("a weight is not finite") + advice)

    def _are_finite(self) -> dict[str, bool]:
        finite = [weight.isfinite().all() for weight in self.weights.values()]
        return dict(zip(self.weights, torch.stack(finite).tolist(), strict=True))

    def _pairs(self, tree: Tree) -> dict[str, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]:
        """Named tensors of this state, and those of a tree that are copied into them."""
        return {
            "weights": (self.tensors(), tree["weights"]),
            "schedules": (dict(self.loss.memory.named_buffers()), tree["schedules"]),
            "averages": ({}, {}) if self.ema is None else (self.ema.means, tree["average"]["means"]),
        }

    def _check_shapes(self, tree: Tree) -> None:
        """Check everything that would be written into memory, before anything is."""
        best = tree["stop"]["best_weights"]
        pairs = self._pairs(tree) | {"weights of the best epoch": (self.tensors() if best else {}, best)}
        for part, (ours, theirs) in pairs.items():
            if set(theirs) != set(ours):
                raise ValueError(f"its {part} have other names")
            for name, tensor in ours.items():
                if theirs[name].shape != tensor.shape or theirs[name].dtype != tensor.dtype:
                    raise ValueError(f"{name} of its {part} has another shape or type")
        listed = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        fused = any(group.get("fused") for group in self.optimizer.param_groups)
        for index, kept in tree["optimizer"]["state"].items():
            for name, value in kept.items():  # fused steps trust these shapes, and would read beyond the end
                alike = isinstance(value, Tensor) and value.shape in ((), listed[index].shape)
                if fused and value is not None and not alike:
                    raise ValueError(f"{name} of the optimizer has another shape than its weight")

    def _with_own_settings(self, saved: Tree) -> Tree:
        """State dict of the optimizer, checked to have the same settings, of the same types, as the present one."""
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
            raise ValueError("its random states are not a list")
        if len(saved["torch"]) == self.group.world_size:
            GENERATORS["torch"].set(saved["torch"][self.group.rank])
            if self.group.device.type != "cpu" and saved["device"] is not None:
                self.device_generator.set(saved["device"][self.group.rank])
        else:  # another number of processes: each draws numbers that none has drawn before
            seed_torch(self.seed + self.steps * RANK_SEED_STRIDE + self.group.rank, self.group.device)
        for name, state in saved["foreign"].items():
            FOREIGN_GENERATORS[name].set(state)
            self.foreign[name] = ()  # used, so saved from now on

    def _machine(self) -> dict[str, Any]:
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self.group.device.type,
            "processes": self.group.world_size,
            "compiled": self.compiled,
        }


def _warn_of_another_machine(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    if differing := [name for name in ours if ours[name] != theirs.get(name)]:
        change = ", ".join(f"{name} {theirs.get(name)} (now {ours[name]})" for name in differing)
        warnings.warn(f"this training was started with {change}: it continues, and not bit for bit.", stacklevel=5)


def _as_json(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as they come back from JSON, to compare with those of a checkpoint."""
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=repr))
    return plain


def _invalid_checkpoint(where: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"{where} is not a state of this training, and was left alone: {reason}.")
