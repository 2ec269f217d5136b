"""Prior of a trained model: a density fitted to its aggregate posterior."""

from typing import Any

from pyro_vae.core.calls import explained
from pyro_vae.core.rng import seeded
from pyro_vae.data.dispatch import as_data
from pyro_vae.families import Aggregate, Family, Mixture, MultivariateNormal
from pyro_vae.model.vae import VAE
from pyro_vae.workflow.fit import fit
from pyro_vae.workflow.two_stage import BATCH_SIZE, EPOCHS, LR, fit_density


@explained
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
    r"""Copy of a trained VAE whose prior is a density fitted to the aggregate posterior of some rows.

    $$ \max_\psi \frac1N \sum_n E_{q(z \mid x_n)} \log p_\psi(z) $$

    Encoder and decoder stay as they are; sampling and log-likelihoods use the new p(z).

    References:
        Ghosh et al., From Variational to Deterministic Autoencoders, 2020 [ghosh2020],
            https://arxiv.org/abs/1903.12436.

    Args:
        vae: a trained model; it is not changed.
        x: rows, as for `fit`.
        family: the density.
        epochs: passes over one draw of z per row.
        batch_size: rows per step.
        lr: learning rate of Adam.
        seed: of the draws and of the fit; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        The copy, with `prior=Aggregate(family)`, in eval mode.

    Raises:
        InputError: rows that the model does not take, or a density over another set than the prior's.

    >>> import pyro_vae as pv
    >>> digits = pv.data.load("digits")
    >>> vae = pv.VAE(digits.event_shape, 2, encoder=pv.MLP(hidden=(16,)))
    >>> better = aggregate(vae.initialize(digits.train.x), digits.train, epochs=1)
    >>> better.declaration.prior.base
    Normal(loc=0.0, scale=1.0)
    """
    rows, prior = as_data(x).aligned(vae.feature_names), vae.declaration.prior
    with seeded(seed, vae.likelihood.device_tensor.device):
        rows = rows.checked(vae.check, progress)
        other = vae.replace(prior=Aggregate(family, base=prior.base if isinstance(prior, Aggregate) else prior))
    other.eval()
    fit_density(fit, other, rows, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, progress=progress)
    return other
