"""The same VAE written by hand in torch, to measure `fit` against, and the matrix products of its step alone."""

import math
from collections.abc import Callable
from functools import partial

import torch
from setting import Setting
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

WEIGHED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Encoder(nn.Module):
    """Location and log scale of q(z|x), each (N, D), from images."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        act = _activation(setting)
        if setting.network == "mlp":
            width = 400
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, width), act())
        else:
            width = 128
            convolutions = [nn.Conv2d(1, 32, 3, 2, 1), act(), nn.Conv2d(32, 64, 3, 2, 1), act()]
            self.body = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64 * 7 * 7, width), act())
        self.loc, self.log_scale = nn.Linear(width, setting.latents), nn.Linear(width, setting.latents)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.loc(hidden), self.log_scale(hidden)


def decoder(setting: Setting) -> nn.Module:
    """What makes images of latents (N, D): means, or logits."""
    act = _activation(setting)
    if setting.network == "mlp":
        layers = [nn.Linear(setting.latents, 400), act(), nn.Linear(400, 784), nn.Unflatten(1, (1, 28, 28))]
    else:
        wide = [nn.Linear(setting.latents, 128), act(), nn.Linear(128, 64 * 7 * 7), nn.Unflatten(1, (64, 7, 7)), act()]
        layers = [*wide, nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), act(), nn.ConvTranspose2d(32, 1, 3, 2, 1, 1)]
    return nn.Sequential(*layers)


class HandWritten(nn.Module):
    """The loss of a VAE as a torch user writes it: no program, no family, no record."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        self.encoder, self.decoder = Encoder(setting), decoder(setting)
        self.log_noise = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Minus the ELBO per row, in nats, with the KL in closed form."""
        loc, log_scale = self.encoder(x)
        scale = log_scale.exp()
        emitted = self.decoder(loc + scale * torch.randn_like(loc))
        if self.setting.likelihood == "gaussian":
            squares = mse_loss(emitted, x, reduction="sum") * torch.exp(-2 * self.log_noise)
            distortion = 0.5 * squares + x.numel() * (self.log_noise + 0.5 * math.log(2 * math.pi))
        else:
            distortion = binary_cross_entropy_with_logits(emitted, x, reduction="sum")
        kl = 0.5 * (loc.square() + scale.square() - 1 - 2 * log_scale).sum()
        return (distortion + kl) / x.shape[0]


def products(setting: Setting) -> Callable[[], None]:
    """The matrix products and convolutions of one training step, forward and backward, and nothing else.

    Args:
        setting: of which network and batch.

    Returns:
        What computes them, on operands that are there already.
    """
    model, operands = HandWritten(setting).to(setting.device), []

    def look(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        operands.append((layer, torch.randn_like(inputs[0]), torch.randn_like(output), inputs[0].requires_grad))

    for layer in model.modules():
        if isinstance(layer, WEIGHED):
            layer.register_forward_hook(look)
    model(torch.randn(setting.batch, 1, 28, 28, device=setting.device))

    @torch.no_grad()
    def step() -> None:
        for layer, a, g, deep in operands:
            if isinstance(layer, nn.Linear):
                a @ layer.weight.T
                g.T @ a
                if deep:  # nobody asks for the gradient to the data
                    g @ layer.weight
                continue
            transposed = isinstance(layer, nn.ConvTranspose2d)
            how = (layer.stride, layer.padding, layer.dilation, transposed, layer.output_padding, layer.groups)
            torch.ops.aten.convolution(a, layer.weight, None, *how)
            torch.ops.aten.convolution_backward(g, a, layer.weight, None, *how, [deep, True, False])

    return step


def _activation(setting: Setting) -> Callable[[], nn.Module]:
    return partial(nn.ReLU, inplace=True) if setting.activation == "relu" else nn.Softplus
