"""Pictures of training."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.plots.style import COLOURS, figure, tidy
from pyro_vae.training.history import History


def training(history: History) -> Figure:
    """Draw loss, log-likelihood and KL over epochs, for training and validation data.

    Args:
        history: what `fit` returned.

    Returns:
        A figure with three panels, in nats per row.
    """
    picture = figure(2.6)
    panels = (
        ("loss", "minus the bound"),
        ("log_likelihood", "minus cross-entropy" if history.caveat else "log-likelihood"),
        ("kl", "KL from guide to prior"),
    )
    for axes, (column, title) in zip(picture.subplots(1, 3), panels, strict=True):
        axes.plot(history["epoch"], history[column], color=COLOURS[0], label="training", marker=_marker(history))
        if f"validation_{column}" in history.columns:
            held = history[f"validation_{column}"]
            axes.plot(history["epoch"], held, color=COLOURS[1], ls="--", label="validation", marker=_marker(history))
        tidy(axes, title=title, xlabel="epoch", ylabel="nats per row" if column == "loss" else "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        if column == "loss":
            axes.legend(frameon=False, fontsize=8)
    if notes := [note for note in (_bits(history), history.caveat) if note]:
        picture.supxlabel("; ".join(notes), fontsize=7)
    return picture


def _bits(history: History) -> str:
    names = {"training": "bits_per_dim", "validation": "validation_bits_per_dim"}
    told = [f"{split} {history.last[name]:.3f}" for split, name in names.items() if name in history.columns]
    return f"bits per dimension after the last epoch: {', '.join(told)}" if told else ""


def _marker(history: History) -> str:
    return "." if len(history) < 3 else ""
