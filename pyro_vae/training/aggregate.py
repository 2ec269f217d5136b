"""The second stage of an `Aggregate` prior: a density fitted to where the encoder puts the data."""

import copy
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.data.given import as_data
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream
from pyro_vae.families import Aggregate, Family, Mixture, MultivariateNormal
from pyro_vae.families.aggregate import TwoStages
from pyro_vae.training.fit import fit
from pyro_vae.training.loop import EVALUATION_ROWS
from pyro_vae.training.optimizers import Adam
from pyro_vae.vae import VAE

EPOCHS, BATCH_SIZE, LR = 50, 256, 5e-3
"""How a density is fitted, unless told otherwise."""


class Density(nn.Module):
    """A density as a pair of programs: everything is observed, so that `fit` maximises its likelihood."""

    def __init__(self, density: Conditional) -> None:
        super().__init__()
        self.density = density

    def initialize(self, x: Tensor) -> None:
        """Start at the data."""
        self.density.initialize(x)

    def model(self, x: Tensor) -> None:
        """Z ~ p(z), observed."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.density(), obs=x)

    def guide(self, x: Tensor) -> None:
        """Nothing is hidden."""


def aggregate(
    vae: VAE,
    x: Any,
    family: Family = Mixture(MultivariateNormal(), components=10),
    *,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    seed: int = 0,
    progress: bool = False,
) -> VAE:
    r"""Replace the prior of a trained VAE by a density fitted to the aggregate posterior of some rows.

    $$ \max_\psi \frac1N \sum_n E_{q(z \mid x_n)} \log p_\psi(z) $$

    Encoder and decoder stay as they are; sampling and log-likelihoods use the new p(z).

    References:
        Ghosh et al., From Variational to Deterministic Autoencoders, 2020, https://arxiv.org/abs/1903.12436.

    Args:
        vae: a trained model; it is not changed.
        x: rows, as for `fit`.
        family: the density.
        epochs: passes over one draw of z per row.
        batch_size: rows per step.
        lr: learning rate of Adam.
        seed: of the draws and of the fit.
        progress: whether to show progress.

    Returns:
        A new model with `prior=Aggregate(family)`.

    Raises:
        InputError: rows that the model does not take, or a density over another set than the prior's.

    >>> import pyro_vae as pv
    >>> digits = pv.data.load("digits")
    >>> vae = pv.VAE(digits.event_shape, 2, encoder=pv.MLP(hidden=(16,)))
    >>> better = aggregate(vae.initialize(digits.train.x), digits.train, epochs=1)
    >>> better.declaration.prior.base
    Normal(loc=0.0, scale=1.0)
    """
    rows = as_data(x)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rows = rows.checked(vae.check, progress)
        other = vae.replace(prior=Aggregate(family, base=_base(vae.declaration.prior)))
    other.eval()
    _fit(other, rows, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, progress=progress)
    return other


def settle(vae: Any, rows: Rows | Stream, seed: int) -> None:
    """Fit the density of a model whose prior is an `Aggregate` in its first stage; do nothing with any other."""
    if isinstance(vae, VAE) and isinstance(vae.prior.distribution, TwoStages) and not vae.prior.distribution.fitted:
        _fit(vae, rows, epochs=EPOCHS, batch_size=BATCH_SIZE, lr=LR, seed=seed, progress=False)


def _fit(vae: VAE, rows: Rows | Stream, *, seed: int, lr: float, **options: Any) -> None:
    reference: Tensor = vae.decoder.reference
    stages: Any = vae.prior.distribution
    rows = rows.to(reference.device, reference.dtype)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        z = torch.cat([vae.encode(**piece.batch()).sample() for piece in rows.pieces(EVALUATION_ROWS)])
    density = Density(copy.deepcopy(stages.density))
    fit(density, z, optimizer=Adam(lr), seed=seed, **options)
    stages.replace(density.density)
    vae.prior.initialized.fill_(True)


def _base(prior: Family) -> Family:
    return prior.base if isinstance(prior, Aggregate) else prior
