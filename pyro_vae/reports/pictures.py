"""Pictures that several reports show, each with a description for screen readers and a caption."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from pyro_vae import plots
from pyro_vae.plots.pit import describe_pit
from pyro_vae.reports.page import Section
from pyro_vae.reports.results import RunResults

CHECKS: Mapping[str, tuple[Callable[[Any], Figure], str]] = {
    "replicates": (plots.ppc, "Data beside data sets drawn from the model: a visible difference is a misfit."),
    "checks": (
        plots.test_statistics,
        "Each test statistic of the data, a line, over the histogram of those of replicate data sets.",
    ),
    "coverage": (
        plots.pit,
        "Where the model is right, PIT curves stay within the band and intervals hold as much as they should.",
    ),
    "two_sample": (plots.two_sample, "Features by which a classifier distinguishes replicates from data."),
}
"""Figures of a predictive check with their captions, in their order."""


def draw_check(name: str, section: Section, results: RunResults, model: str = "") -> None:
    """Add a figure of a predictive check to a section; a description ends with the name of the model."""
    figure, caption = CHECKS[name]
    section.draw(lambda: figure(results.tree), _describe_check(name, results) + model, caption)


def _describe_check(name: str, results: RunResults) -> str:
    if name == "coverage":
        return f"Calibration: {describe_pit(results.tree)}"
    if name == "checks":
        labels = results.significant
        which = f"{len(labels)} stand out: {', '.join(labels)}" if labels else "none stands out"
        return f"Histograms of the test statistics of replicates, with those of the data; {which}"
    if name == "two_sample":
        accuracy = results.classifier_accuracy
        return f"Importance of features to a classifier of replicates and data with accuracy {accuracy:.2f}"
    return "Data beside replicate data sets drawn from the model"


def draw_training(section: Section, results: RunResults, model: str = "") -> None:
    """Add the curves of training to a section; the description ends with the name of the model."""
    history = results.history
    first, last = float(history["loss"][0]), float(history["loss"][-1])
    change = f"the loss goes from {first:.4g} to {last:.4g} nats per row"
    section.draw(lambda: plots.training(history), f"Loss and its parts over {len(history)} epochs: {change}{model}")
