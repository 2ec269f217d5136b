"""The figures that a run folder holds."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pyro_vae.core.rng import seeded
from pyro_vae.data.rows import Rows
from pyro_vae.model.vae import VAE
from pyro_vae.plots.latent import latent
from pyro_vae.plots.outliers import outliers
from pyro_vae.plots.pit import pit
from pyro_vae.plots.ppc import ppc
from pyro_vae.plots.samples import prior_predictive, reconstructions
from pyro_vae.plots.test_statistics import test_statistics
from pyro_vae.plots.training import training
from pyro_vae.plots.two_sample import two_sample
from pyro_vae.training.history import History

ROWS = 2000
"""Rows at most that the pictures of a run look at."""


def predictive_pictures(tree: Any) -> dict[str, Figure]:
    """Every picture of a predictive check, by name.

    Args:
        tree: what `pv.predictive_check` returned.
    """
    pictures = {
        "replicates": ppc(tree),
        "quantities": test_statistics(tree),
        "coverage": pit(tree),
        "worst": outliers(tree),
    }
    if "two_sample" in tree.children:
        pictures["two-sample"] = two_sample(tree)
    return pictures


def write(folder: Path, vae: VAE, rows: Rows, history: History) -> None:
    """Draw every picture of a run with random numbers of their own, and save them as PNG.

    Args:
        folder: where to; it has to exist.
        vae: the fitted model.
        rows: data to look at: the validation data where there are any.
        history: the training history.
    """
    with seeded(0, rows.x.device):
        given: dict[str, Any] = rows.batch()
        x = vae.impute(given)  # pictures of data show what was observed, never a NaN
        del given["x"]
        labels = rows.labels
        pictures = {
            "training": training(history),
            "draws": prior_predictive(vae, x, **given),
            "reconstructions": reconstructions(vae, x, **given),
            "latent": latent(vae, x, labels, **given),
        }
    for name, picture in pictures.items():
        picture.savefig(folder / f"{name}.png")
