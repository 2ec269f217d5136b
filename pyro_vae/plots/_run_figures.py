"""Figures that a run folder holds."""

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
"""Maximum number of rows in the pictures of a run."""


def predictive_pictures(tree: Any) -> dict[str, Figure]:
    """Figures by name of the tree that `pv.predictive_check` returned."""
    pictures = {
        "replicates": ppc(tree),
        "test-statistics": test_statistics(tree),
        "coverage": pit(tree),
        "worst": outliers(tree),
    }
    if "two_sample" in tree.children:
        pictures["two-sample"] = two_sample(tree)
    return pictures


def write(folder: Path, vae: VAE, rows: Rows, history: History) -> None:
    """Draw all figures of a fitted model with random numbers of their own, and save them as PNG in a folder.

    The rows are the validation data, or the training data where there are none.
    """
    with seeded(0, rows.x.device):
        batch: dict[str, Any] = rows.batch()
        batch["x"] = vae.impute(batch)  # missing values are NaN
        pictures = {
            "training": training(history),
            "draws": prior_predictive(vae, **batch),
            "reconstructions": reconstructions(vae, **batch),
            "latent": latent(vae, labels=rows.labels, **batch),
        }
    for name, picture in pictures.items():
        picture.savefig(folder / f"{name}.png")
