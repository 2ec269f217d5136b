"""Second stage of an `Aggregate` prior: a density fitted to draws from the guide, one for each row.

It is fitted by `fit`, which has such a stage itself, and so passes itself.
"""

import copy
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.core.errors import TrainingInterrupted
from pyro_vae.core.rng import seeded
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.priors import TwoStages
from pyro_vae.model.vae import VAE
from pyro_vae.training.loop import EVALUATION_ROWS
from pyro_vae.training.optimizers import Adam

EPOCHS, BATCH_SIZE, LR = 50, 256, 5e-3
"""Default epochs, rows per step and learning rate of the density."""


class Density(nn.Module):
    """Density of z as a pair of programs without latents, so that `fit` maximises its likelihood."""

    def __init__(self, density: Conditional) -> None:
        super().__init__()
        self.density = density.train()  # a fitted model's is in eval mode

    def initialize(self, x: Tensor) -> None:
        """Set starting values at the data."""
        self.density.initialize(x)

    def model(self, x: Tensor) -> None:
        """Density of z, which is observed."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.density(), obs=x)

    def guide(self, x: Tensor) -> None:
        """No latent variables."""


def fit_second_stage(vae: Any, rows: Rows | Stream, seed: int, fit: Callable[..., Any]) -> None:
    """Fit the density of a model whose prior is an `Aggregate` in its first stage; other models do not change."""
    if isinstance(vae, VAE) and isinstance(vae.prior.distribution, TwoStages) and not vae.prior.distribution.fitted:
        fit_density(fit, vae, rows, epochs=EPOCHS, batch_size=BATCH_SIZE, lr=LR, seed=seed, progress=False)


def fit_density(
    fit: Callable[..., Any], vae: VAE, rows: Rows | Stream, *, seed: int, lr: float, **options: Any
) -> None:
    """Fit the density to draws of z, one for each row, and make it the prior.

    Args:
        fit: the function `pyro_vae.fit`.
        vae: a model whose prior is an `Aggregate`; it is changed.
        rows: the data.
        seed: of the draws and of the fit.
        lr: learning rate of Adam.
        options: other arguments of `fit`.

    Raises:
        TrainingInterrupted: by SIGINT; the density is the prior as far as it was fitted.
    """
    reference: Tensor = vae.likelihood.device_tensor
    stages: Any = vae.prior.distribution
    rows = rows.to(reference.device, vae.row_type)
    with seeded(seed, reference.device), torch.no_grad():
        z = torch.cat([vae.encode(**piece.batch()).sample() for piece in rows.chunks(EVALUATION_ROWS)])
    density = Density(copy.deepcopy(stages.density))
    interrupted = None
    try:
        fit(density, z, optimizer=Adam(lr), seed=seed, **options)
    except TrainingInterrupted as error:
        interrupted = error
    stages.replace(density.density)
    vae.prior.initialized.fill_(True)
    if interrupted is not None:
        raise interrupted
