"""Named tensors of whatever a user gives to the methods of a VAE: data as `fit` takes them, and latents."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import TensorDataset

from pyro_vae.core.errors import InputError
from pyro_vae.data.convert import as_tensor, columns_of
from pyro_vae.data.precision import check_precision
from pyro_vae.data.rows import Rows
from pyro_vae.model.validation import check_finite, check_size


def data_batch(x: Any, given: Mapping[str, Any], vae: Any) -> dict[str, Tensor]:
    """Checked tensors by name of data (*batch, *event_shape), and of further tensors of these rows.

    Args:
        x: whatever `Rows.of` takes; where that is not a mapping, an event without a batch too. Columns with names are
            put in the order of those that the model was fitted to.
        given: the further tensors; None stands for one that is not given.
        vae: the VAE that they are given to.

    Raises:
        InputError: a value cannot be made a tensor, or does not suit the model.
    """
    given = {name: values for name, values in given.items() if values is not None}
    features: Sequence[str] = ()
    event_shape = vae.declaration.event_shape
    if isinstance(x, Rows | Mapping | TensorDataset) or columns_of(x):
        if not isinstance(x, Rows | Mapping | TensorDataset):
            x, given = {"x": x, **given}, {}
        rows = Rows.of(x).aligned(vae.feature_names)
        batch, features = rows.batch(), rows.features
    else:
        batch = {"x": as_tensor("x", x)}
    batch |= {name: as_tensor(name, values) for name, values in given.items()}
    shape = tuple(batch["x"].shape)
    leading = len(shape) - len(event_shape)
    if leading < 0 or leading == 1 or shape[leading:] != event_shape:
        vae.check(batch)
    else:
        vae.check({name: tensor.reshape(-1, *tensor.shape[leading:]) for name, tensor in batch.items()})
    like = vae.likelihood.device_tensor
    check_precision(batch["x"].reshape(-1, *event_shape), vae.row_type, features)
    return _move(batch, like) | {"x": batch["x"].to(like.device, vae.row_type)}


def latent_batch(z: Any, given: Mapping[str, Any], declared: Any, like: Tensor) -> dict[str, Tensor]:
    """Checked latents `context` (*batch, D), and further tensors of a batch by name, broadcast to its rows.

    Args:
        z: the latents.
        given: `mask` and `size_factor`, where those are not None.
        declared: the declaration, with `latent_dim` and `event_shape`.
        like: a tensor of the weights, for their device and type.

    Raises:
        InputError: z has another length than D, or is NaN or infinite; or another tensor does not suit the rows.
    """
    latents, dim = as_tensor("z", z), declared.latent_dim
    shape = tuple(latents.shape)
    if shape[-1:] != (dim,):
        raise InputError(f"z has shape {shape}, and this VAE has {dim} latents: give z of shape (N, {dim}).")
    check_finite(latents, "z")
    batch = shape[:-1]
    tensors = {"context": latents}
    for name, wanted in (("size_factor", batch), ("mask", batch + declared.event_shape)):
        if given.get(name) is None:
            continue
        tensor = as_tensor(name, given[name])
        try:
            tensors[name] = tensor.expand(wanted)
        except RuntimeError:
            raise InputError(
                f"{name} has shape {tuple(tensor.shape)}, and these rows need {wanted}: give one value for each, or "
                "one for all."
            ) from None
    if "size_factor" in tensors:
        check_size(tensors["size_factor"].flatten(), math.prod(batch))
    return _move(tensors, like)


def _move(batch: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    return {name: tensor.to(like.device, None if name == "mask" else like.dtype) for name, tensor in batch.items()}
