"""The pictures of a report: each with what it shows in words, for those who do not see it, and how it is read."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import plots
from pyro_vae.criticism.compare import Comparison
from pyro_vae.criticism.evidence import Evidence
from pyro_vae.criticism.latent_usage import Latents
from pyro_vae.criticism.summary import FDR_LEVEL
from pyro_vae.data import Rows
from pyro_vae.model.vae import VAE
from pyro_vae.plots.pit import said_of
from pyro_vae.reports.page import Section
from pyro_vae.training.history import History

CHECKS: Mapping[str, Callable[..., Figure]] = {
    "replicates": plots.ppc,
    "checks": plots.test_statistics,
    "coverage": plots.pit,
    "two_sample": plots.two_sample,
}
"""The pictures of a predictive check, in their order."""

CAPTIONS = {
    "replicates": "Data beside data sets drawn from the model: whoever can tell them apart has found a misfit.",
    "checks": "Each test statistic of the data, a line, over the histogram of those of replicate data sets.",
    "coverage": "Where the model is right, PIT curves stay within the band and intervals hold as much as they should.",
    "two_sample": "What a classifier looks at to tell replicates from data.",
}


def of_check(section: Section, tree: Any) -> None:
    """Add the pictures of a predictive check."""
    for name in CHECKS:
        one_of_check(section, name, tree)


def one_of_check(section: Section, name: str, tree: Any, of: str = "") -> None:
    """Add one of them; `of` says of which model."""
    section.draw(lambda: CHECKS[name](tree), f"{_alt(name, tree)}{of}", CAPTIONS[name])


def _alt(name: str, tree: Any) -> str:
    if name == "coverage":
        return f"Calibration: {said_of(tree)}"
    if name == "checks":
        checks = tree["checks"].to_dataset()
        out = checks["noun"].values[checks["q_value"].values < FDR_LEVEL].tolist()
        told = f"{len(out)} stand out: {', '.join(out)}" if out else "none stands out"
        return f"Histograms of the test statistics of replicates, with those of the data; {told}"
    if name == "two_sample" and "two_sample" in tree.children:
        accuracy = float(tree["two_sample"]["classifier_accuracy"])
        return f"Importance of features to a classifier that tells replicates from data with accuracy {accuracy:.2f}"
    return {"replicates": "Data beside replicate data sets drawn from the model"}.get(name, name)


def worst(section: Section, tree: Any) -> None:
    """Add the picture of what is fitted worst."""
    alt = "Tail probabilities of the most extreme rows, and the calibration of the worst features"
    section.draw(lambda: plots.outliers(tree), alt, "Rows whose quantities are extreme among replicates, and features.")


def graph(section: Section, vae: VAE, batch: dict[str, Tensor]) -> None:
    """Add the model as a graph."""
    alt = "Graph of the model: an arrow from the latents z to the data x, which are observed, within a plate over rows"
    caption = "Shaded: observed. Box: repeated for each row. Dashed: the guide."
    section.draw(lambda: plots.graph(vae, **batch), alt, caption)


def training(section: Section, history: History, of: str = "") -> None:
    """Add the curves of training."""
    first, last = float(history["loss"][0]), float(history["loss"][-1])
    alt = (
        f"Loss and its parts over {len(history)} epochs: the loss goes from {first:.4g} to {last:.4g} nats per row{of}"
    )
    section.draw(lambda: plots.training(history), alt)


def of_latents(section: Section, vae: VAE, rows: Rows, found: Latents) -> None:
    """Add how the latents are used, where the data lie in them, and what they do."""
    given: dict[str, Any] = rows.batch()
    x = vae.impute(given)
    del given["x"]
    used = f"{len(found.active)} of {len(found)} latents are active"
    section.draw(lambda: plots.latent_usage(found), f"Bars of the KL and of the variance of each latent: {used}")
    alt = f"Posteriors of rows as ellipses over contours of the prior; aggregate KL {found.surgery.aggregate:.2f} nats"
    section.draw(lambda: plots.latent(vae, x, rows.labels, **given), alt, "An ellipse is one row, one sd wide.")
    alt = "Histograms of the latents of all rows, with the density of the prior"
    section.draw(lambda: plots.aggregate_posterior(vae, x, **given), alt, "The aggregate posterior against the prior.")
    alt = "Data that the decoder makes of one latent after the other, moved through its range"
    section.draw(lambda: plots.traversals(vae, x, **given), alt, "One latent is moved, the others stay.")


def khat(section: Section, found: Evidence) -> None:
    """Add the k-hat of each row."""
    alt = f"k-hat of {len(found)} rows: {int(found.unreliable.sum())} are above the threshold {found.threshold:.2f}"
    section.draw(lambda: plots.khat(found), alt, "A row with a large k-hat has a log p(x) that cannot be trusted.")


def comparison(section: Section, found: Comparison) -> None:
    """Add where each model stands."""
    alt = f"Mean log p(x) of each model and its difference to the best, {found.best.name}"
    section.draw(lambda: plots.compare(found), alt)
