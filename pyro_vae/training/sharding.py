"""Where the weights lie while they are trained: whole in every process, or in pieces.

In pieces (FSDP, ZeRO's third stage) each of W processes keeps 1/W of every weight, of its gradient, and of what an
optimizer and an average remember of it. The whole weights are put together for a step, in a module of ours: a user's
own are never wrapped nor hooked, and are whole and ordinary again at the end.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.core.errors import InputError
from pyro_vae.training.ema import Average

Tree = dict[str, Any]


class Whole:
    """Weights that lie whole in every process: nothing has to be done for anything."""

    def take(self, optimizer: torch.optim.Optimizer, average: Average | None) -> None:
        """Take over what was made for whole weights, once it has the state that training begins with."""

    def keep(self, on: bool) -> None:
        """Whether weights that are put together for a batch stay so for the next, of the same step."""

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """Within the block, the modules have whole weights; entered by all processes together."""
        return contextlib.nullcontext()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> Tree:
        """The state of an optimizer as one process would have it; asked for by all together."""
        return optimizer.state_dict()

    def means(self, average: Average) -> dict[str, Tensor]:
        """The averages of whole weights; asked for by all together."""
        return average.means

    def give_back(self) -> None:
        """Leave the modules with whole weights, for good; called by all together."""

    def release(self, average: Average | None) -> None:
        """Leave everything as it was before `take`, with the values of now; called by all together."""


class Sharded(nn.Module):
    """A loss whose weights lie in pieces: a module that Fabric and `fully_shard` may wrap, with nothing of the user's.

    The pieces are weights of this module. Its forward pass, at which they are put together, lends them to the modules
    of the loss; between steps these have empty ones, and keep them where an error of one process alone ends training.
    All weights are one group, for programs may read them anywhere: a step has them all at once. A weight
    without dimensions is a piece of shape (1,).

    References:
        Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, 2020,
            https://arxiv.org/abs/1910.02054.
        Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023,
            https://arxiv.org/abs/2304.11277.

    Args:
        loss: the module that is trained, with the same weights in all processes.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.held = [loss]  # in a list, for its modules are to stay as they are
        self.weights = list(loss.parameters())
        self.shapes = [weight.shape for weight in self.weights]
        self.places = _places(loss, self.weights)
        self.pieces = nn.ParameterList(
            nn.Parameter(weight.detach().reshape(weight.shape or (1,)).contiguous(), weight.requires_grad)
            for weight in self.weights
        )
        self.averaged: dict[str, Any] = {}  # the pieces that have an average
        self.cut: list[nn.Parameter] = []  # the pieces, also while `pieces` has whole weights, in the middle of a step

    def forward(self, batch: Any) -> Any:
        """What the loss returns; see `Loss.forward`."""
        weights = [piece if shape else piece.view(()) for piece, shape in zip(self.pieces, self.shapes, strict=True)]
        lent = {name: weights[number] for name, number in self.places.items()}
        with pyro.get_param_store().scope():  # or `pyro.module` would take the empty ones, which it knows by name
            return torch.func.functional_call(self.held[0], lent, (batch,), tie_weights=False)

    def train(self, mode: bool = True) -> "Sharded":
        """Let the loss train, or be evaluated."""
        for loss in self.held:
            loss.train(mode)
        return super().train(mode)

    def take(self, optimizer: torch.optim.Optimizer, average: Average | None) -> None:
        """Let the optimizer and the average hold the pieces, and pieces of what they hold of whole weights."""
        self.cut = list(self.pieces)
        pieces: dict[int, Any] = dict(zip(map(id, self.weights), self.cut, strict=True))
        for group in optimizer.param_groups:
            group["params"] = [pieces[id(weight)] for weight in group["params"]]
            if group.get("fused") and not isinstance(optimizer, torch.optim.Adam):  # torch has no other for pieces
                group["fused"] = False
        for weight in list(optimizer.state):
            piece, kept = pieces[id(weight)], optimizer.state.pop(weight)
            alike = [name for name in kept if name != "step" and getattr(kept[name], "shape", None) == weight.shape]
            optimizer.state[piece] = kept | {name: _cut(kept[name], piece) for name in alike}
        if average is not None:
            self.averaged = {name: pieces[id(weight)] for name, weight in average.weights.items()}
            # as tensors of this process alone, for torch copies no list of pieces at once
            average.weights = {name: piece.detach().to_local() for name, piece in self.averaged.items()}
            average.means = {name: _cut(mean, self.averaged[name]).to_local() for name, mean in average.means.items()}
        self._empty()

    def keep(self, on: bool) -> None:
        """Whether weights that are put together for a batch stay so for the next, of the same step.

        A process may have a batch less than the others in a step, and puts them together as often as these: once.
        """
        module: Any = self
        module.set_reshard_after_backward(not on)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Within the block, the modules have whole weights; entered by all processes together."""
        self.give_back()
        try:
            yield
        finally:
            self._empty()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> Tree:
        """The state of an optimizer as one process would have it; asked for by all together."""
        saved = optimizer.state_dict()
        listed = [piece for group in optimizer.param_groups for piece in group["params"]]
        for index, kept in saved["state"].items():
            saved["state"][index] = {name: self._whole(value, listed[index]) for name, value in kept.items()}
        return saved

    def means(self, average: Average) -> dict[str, Tensor]:
        """The averages of whole weights; asked for by all together."""
        return {name: self._whole(_joined(average.means[name], of), of) for name, of in self.averaged.items()}

    def give_back(self) -> None:
        """Leave the modules with whole weights, and the first process's buffers; called by all together."""
        for buffer in self.held[0].buffers():
            if buffer.numel():
                torch.distributed.broadcast(buffer, 0)
        for weight, piece in zip(self.weights, self.cut, strict=True):
            weight.data = self._whole(piece.detach(), piece)

    def release(self, average: Average | None) -> None:
        """Leave everything as it was before `take`, with the values of now; called by all together."""
        self.give_back()
        if average is not None:
            weights = dict(zip(map(id, self.cut), self.weights, strict=True))
            average.means = self.means(average)
            average.weights = {name: weights[id(piece)] for name, piece in self.averaged.items()}

    def _whole(self, value: Any, piece: nn.Parameter) -> Any:
        """What lies in pieces as a whole, of the shape of a weight where it is cut like that; all else as it is."""
        if not hasattr(value, "full_tensor"):
            return value
        shapes = dict(zip(map(id, self.cut), self.shapes, strict=True))
        shape = shapes[id(piece)] if value.shape == piece.shape else value.shape
        return value.full_tensor().reshape(shape).clone()  # without the padding that is behind it

    def _empty(self) -> None:
        for weight in self.weights:
            weight.data = weight.data.new_empty(0)


def _places(loss: nn.Module, weights: list[nn.Parameter]) -> dict[str, int]:
    """The number of the weight at each name; one name for each place, or torch leaves what was lent at the others."""
    numbers = {id(weight): number for number, weight in enumerate(weights)}
    return {
        f"{prefix}.{name}".lstrip("."): numbers[id(weight)]
        for prefix, module in loss.named_modules()
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False)
    }


def _joined(local: Tensor, like: Any) -> Tensor:
    """The tensor of which each process has a piece, cut as a weight is, from these."""
    from torch.distributed.tensor import DTensor

    mesh, shape, stride = like.device_mesh, like.shape, like.stride()
    return DTensor.from_local(local, mesh, like.placements, run_check=False, shape=shape, stride=stride)


def _cut(value: Tensor, like: Any) -> Any:
    """This process's piece of a whole tensor that all have, cut as a weight is."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.reshape(like.shape), like.device_mesh, like.placements, src_data_rank=None)


def strategy() -> Any:
    """Fabric's strategy of sharded weights, on GPUs and CPUs; of modules, it shards a `Sharded` alone."""
    from lightning.fabric.strategies import ModelParallelStrategy

    def sharded(module: nn.Module, mesh: Any) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if isinstance(module, Sharded):
            fully_shard(module, mesh=init_device_mesh(mesh.device_type, (mesh.size(),)))
        return module

    return ModelParallelStrategy(sharded)


def require_shardable(weights: Mapping[str, nn.Parameter], skip: int) -> None:
    """Refuse what is not to be had in pieces.

    Args:
        weights: every trainable tensor by name.
        skip: how many steps may be left out.

    Raises:
        InputError: weights of several types, or steps that may be left out.
    """
    if skip:
        raise InputError(
            f"skip = {skip} looks at whole gradients, which no process has with strategy='fsdp': leave out skip=, or "
            "train with strategy='ddp'."
        )
    types = {weight.dtype: name for name, weight in weights.items() if weight.requires_grad}
    if len(types) > 1:
        told = " and ".join(f"{name} of {str(dtype).removeprefix('torch.')}" for dtype, name in types.items())
        raise InputError(
            f"strategy='fsdp' puts all weights together for a step, and {told} are of two types: give all one type, "
            "as in vae.float(), or train with strategy='ddp'."
        )
