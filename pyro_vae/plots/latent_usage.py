"""Figure of latent usage: the KL of each latent, and the variance of its posterior means."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pyro_vae.core.calls import explained
from pyro_vae.criticism.latent_usage import ACTIVE, Latents
from pyro_vae.plots._layout import legend_below
from pyro_vae.plots._style import COLOURS, INK, array, figure, tidy

UNUSED = "#bbbbbb"


@explained
def latent_usage(found: Latents) -> Figure:
    """Figure of the KL of each latent and the variance of its posterior means, by active and unused latents.

    Args:
        found: the result of `pv.criticism.latents`.

    Returns:
        The figure; the upper panel is left out where the KL is not a sum over latents.
    """
    panels = [("KL [nats]", found.kl, "KL from guide to prior, mean over rows")] if found.kl is not None else []
    panels.append((r"$\mathrm{Var}_x\,E[z|x]$", found.spread, "Variance over rows of the posterior mean"))
    colours = [COLOURS[0] if latent in found.active else UNUSED for latent in range(len(found))]
    picture = figure(0.6 + 2.0 * len(panels))
    for axes, (label, values, title) in zip(picture.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        axes.bar(range(len(found)), array(values.clamp(min=1e-12)), color=colours, width=0.75)
        axes.set_xlim(-0.6, len(found) - 0.4)
        axes.set_xticks(range(0, len(found), -(-len(found) // 20)))
        tidy(axes, title=title, xlabel="latent", ylabel=label)
    axes.set_yscale("log")
    axes.axhline(ACTIVE, color=INK, lw=0.8, ls="--")
    axes.set_ylim(ACTIVE / 10, max(2.0, 2 * float(found.spread.max())))
    unused = Patch(color=UNUSED, label=f"not used ({len(found.collapsed)}): below {ACTIVE}")
    legend_below(picture, [Patch(color=COLOURS[0], label=f"active ({len(found.active)})"), unused])
    return picture
