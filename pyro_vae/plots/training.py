"""Figure of training curves."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.core.calls import explained
from pyro_vae.plots._layout import panels
from pyro_vae.plots._style import COLOURS, tidy
from pyro_vae.training.history import History

PANELS = {"loss": "minus the bound", "log_likelihood": "log-likelihood", "kl": "KL from guide to prior"}
"""Titles of the columns of every history."""


@explained
def training(history: History) -> Figure:
    """Figure of loss, log-likelihood and KL over epochs, for training and validation data.

    Further rows of panels show the other columns of the objective: parts of its bound, and hyperparameters that
    followed a schedule.

    Args:
        history: the history that `fit` returned.

    Returns:
        A figure with three panels a row; the first row in nats per row of data.
    """
    titles = PANELS | ({"log_likelihood": "minus cross-entropy"} if history.caveat else {})
    columns = [*titles, *_further(history)]
    picture, grid = panels(len(columns), height=2.6, head=0)
    marker = "." if len(history) < 3 else ""
    for axes, column in zip(grid, columns, strict=True):
        axes.plot(history["epoch"], history[column], color=COLOURS[0], label="training", marker=marker)
        if f"validation_{column}" in history.columns:
            held = history[f"validation_{column}"]
            axes.plot(history["epoch"], held, color=COLOURS[1], ls="--", label="validation", marker=marker)
        title = titles.get(column, column.replace("_", " "))
        tidy(axes, title=title, xlabel="epoch", ylabel="nats per row" if column == "loss" else "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        if column == "loss":
            axes.legend(frameon=False, fontsize=8)
    if notes := [note for note in (_bits(history), history.caveat) if note]:
        picture.supxlabel("; ".join(notes), fontsize=7)
    return picture


def _further(history: History) -> list[str]:
    """Columns that not every objective has."""
    known = {"epoch", "seconds", "bits_per_dim", *PANELS}
    return [name for name in history.columns if name not in known and not name.startswith(("validation_", "kl_"))]


def _bits(history: History) -> str:
    names = {"training": "bits_per_dim", "validation": "validation_bits_per_dim"}
    parts = [f"{split} {history.last[name]:.3f}" for split, name in names.items() if name in history.columns]
    return f"bits per dimension after the last epoch: {', '.join(parts)}" if parts else ""
