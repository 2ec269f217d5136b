"""What those who take part in `peers.py` train."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Setting:
    """What every contender trains: a network for images (1, 28, 28), a likelihood, a batch size.

    Args:
        network: "mlp" is 784-400-D and back; "conv" has 32 and 64 channels of 3x3 kernels with stride 2, 128 units, D.
        batch: rows per step.
        latents: D.
        activation: the nonlinearity, by the name that `pv.MLP` has for it.
        likelihood: "gaussian" with one learned scale, or "bernoulli".
        device: where it is trained.
    """

    network: Literal["mlp", "conv"] = "mlp"
    batch: int = 128
    latents: int = 20
    activation: Literal["relu", "softplus"] = "relu"
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    device: str = "cpu"
