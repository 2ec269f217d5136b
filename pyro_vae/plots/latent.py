"""Figure of the posteriors of rows in two latents, over the contours of the prior."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from pyro_vae.criticism.latent_usage import aggregate_kl, spread_of_means
from pyro_vae.criticism.session import evaluation
from pyro_vae.model.vae import VAE
from pyro_vae.plots._style import COLOURS, INK, array, figure, tidy

DRAWS = 256
"""Number of draws of a posterior behind its ellipse."""


def latent(
    vae: VAE, x: Tensor, labels: Tensor | None = None, *, rows: int = 400, seed: int = 0, **given: Any
) -> Figure:
    """Figure of the posterior of each row in two latents, coloured by class, over the prior's contours.

    The two latents are those whose posterior means vary most over rows. An ellipse holds one standard
    deviation of q(z|x); the contours hold 50 %, 90 % and 99 % of the prior's mass in these two latents.

    Args:
        vae: the model.
        x: rows (N, *event_shape).
        labels: classes (N,) of the rows, for colours.
        rows: the number of rows that are drawn; the distance to the prior is that of all.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The figure; its title has the KL from the aggregate posterior to the prior.
    """
    dimension = vae.declaration.latent_dim
    first, *others = torch.argsort(spread_of_means(vae, x, seed=seed, **given), descending=True).tolist()
    chosen = sorted([first, *others[:1]])
    with evaluation(vae, seed):
        z = vae.encode(x[:rows], **{name: value[:rows] for name, value in given.items()}).sample((DRAWS,))[..., chosen]
        prior = vae.prior().sample((20000,))[:, chosen]
    if dimension == 1:
        z = torch.cat([z, torch.linspace(-1, 1, z.shape[1], device=z.device).expand(DRAWS, -1).unsqueeze(-1)], -1)
    colours = [COLOURS[int(label) % len(COLOURS)] for label in labels[:rows]] if labels is not None else [COLOURS[0]]
    picture = figure(5.2, 5.6)
    axes = picture.subplots()
    _draw_ellipses(axes, z, colours)
    if dimension > 1:
        _draw_contours(axes, prior)
    kl = aggregate_kl(vae, x, seed=seed, **given)
    bound = "at most " if kl.saturated else ""
    tidy(
        axes,
        title=f"KL from aggregate posterior to prior: {bound}{kl.aggregate:.2f} nats\n"
        f"(mean KL per row {kl.mean:.2f} = {kl.information:.2f} information + {kl.aggregate:.2f}; {kl.rows} rows)",
        xlabel=f"latent {chosen[0]}",
        ylabel=f"latent {chosen[1]}" if dimension > 1 else "rows, evenly spaced",
    )
    axes.set_aspect("equal" if dimension > 1 else "auto", adjustable="box")
    handles = [Line2D([], [], color=INK, lw=0.8, ls="--", label="prior, 50, 90, 99 %")] if dimension > 1 else []
    if labels is not None:
        classes = sorted({int(label) for label in labels[:rows]})
        handles += [Line2D([], [], marker="o", ls="", color=COLOURS[c % len(COLOURS)], label=str(c)) for c in classes]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return picture


def _draw_ellipses(axes: Axes, z: Tensor, colours: list[str]) -> None:
    """Draw an ellipse for each row from its draws z (S, N, 2)."""
    centred = z - z.mean(0)
    covariance = torch.einsum("sni,snj->nij", centred, centred) / (len(z) - 1)
    values, vectors = torch.linalg.eigh(covariance.double().cpu())
    widths = 2 * values.clamp(min=0).sqrt()
    angles = torch.rad2deg(torch.atan2(vectors[:, 1, 1], vectors[:, 0, 1]))
    centres = array(z.mean(0))
    style: dict[str, Any] = {"facecolors": colours, "edgecolors": colours, "alpha": 0.35, "linewidths": 0.6}
    sizes = (array(part) for part in (widths[:, 1], widths[:, 0], angles))
    axes.add_collection(
        EllipseCollection(*sizes, units="xy", offsets=centres, offset_transform=axes.transData, **style)
    )
    axes.plot(*centres.T, ".", ms=1.5, color=INK, alpha=0.6)


def _draw_contours(axes: Axes, draws: Tensor) -> None:
    """Draw contours that hold 50, 90 and 99 % of the prior's draws (M, 2), from a smoothed histogram."""
    from scipy.ndimage import gaussian_filter  # here, for importing it takes time

    z = array(draws)
    low, high = np.quantile(z, (0.0005, 0.9995), axis=0)
    margin = 0.15 * (high - low)
    counts, *edges = np.histogram2d(z[:, 0], z[:, 1], bins=60, range=np.stack([low - margin, high + margin], 1))
    density = gaussian_filter(counts, 2.5, mode="constant", truncate=2.4)
    ranked = np.sort(density, axis=None)[::-1]
    mass = ranked.cumsum() / ranked.sum()
    levels = sorted({float(ranked[np.searchsorted(mass, share)]) for share in (0.5, 0.9, 0.99)})
    centres = [(ends[1:] + ends[:-1]) / 2 for ends in edges]
    axes.contour(*centres, density.T, levels=levels, colors=INK, linewidths=0.8, linestyles="--")
