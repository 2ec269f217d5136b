"""The latent picture: where the guide puts each datum, over where the prior expects them."""

from typing import Any

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
"""Draws per posterior behind each ellipse."""


def latent(
    vae: VAE, x: Tensor, labels: Tensor | None = None, *, rows: int = 400, seed: int = 0, **given: Any
) -> Figure:
    """Figure of each datum's posterior over two latents, coloured by class, over the prior's contours.

    The two latents are those whose posterior means vary most over the data. An ellipse holds one standard
    deviation of q(z|x); the contours hold 50 %, 90 % and 99 % of the prior's mass in these two latents.

    Args:
        vae: the model.
        x: rows (N, *event_shape).
        labels: classes (N,) of the rows, for colours.
        rows: how many rows are drawn; the distance to the prior is taken over all.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The figure; its title says how far the aggregate posterior is from the prior.
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
    _ellipses(axes, z, colours)
    if dimension > 1:
        _contours(axes, prior)
    kl = aggregate_kl(vae, x, seed=seed, **given)
    bound = "at most " if kl.saturated else ""
    tidy(
        axes,
        title=f"KL from aggregate posterior to prior: {bound}{kl.aggregate:.2f} nats\n"
        f"(mean KL per row {kl.mean:.2f} = {kl.information:.2f} information + {kl.aggregate:.2f}; {kl.rows} rows)",
        xlabel=f"latent {chosen[0]}",
        ylabel=f"latent {chosen[1]}" if dimension > 1 else "rows, spread out",
    )
    axes.set_aspect("equal" if dimension > 1 else "auto", adjustable="box")
    handles = [Line2D([], [], color=INK, lw=0.8, ls="--", label="prior, 50, 90, 99 %")] if dimension > 1 else []
    if labels is not None:
        classes = sorted({int(label) for label in labels[:rows]})
        handles += [Line2D([], [], marker="o", ls="", color=COLOURS[c % len(COLOURS)], label=str(c)) for c in classes]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return picture


def _ellipses(axes: Axes, z: Tensor, colours: list[str]) -> None:
    """One ellipse per row from its draws z (S, N, 2)."""
    centred = z - z.mean(0)
    covariance = torch.einsum("sni,snj->nij", centred, centred) / (len(z) - 1)
    values, vectors = torch.linalg.eigh(covariance.double().cpu())
    widths = 2 * values.clamp(min=0).sqrt()
    angles = torch.rad2deg(torch.atan2(vectors[:, 1, 1], vectors[:, 0, 1]))
    centres = array(z.mean(0))
    collection = EllipseCollection(
        array(widths[:, 1]),
        array(widths[:, 0]),
        array(angles),
        units="xy",
        offsets=centres,
        offset_transform=axes.transData,
        facecolors=colours,
        edgecolors=colours,
        alpha=0.35,
        linewidths=0.6,
    )
    axes.add_collection(collection)
    axes.plot(*centres.T, ".", ms=1.5, color=INK, alpha=0.6)


def _contours(axes: Axes, draws: Tensor) -> None:
    """Contours that hold 50, 90 and 99 % of the prior's draws (M, 2), from a smoothed histogram."""
    low, high = torch.quantile(draws.cpu(), torch.tensor([0.0005, 0.9995]), dim=0)
    margin = 0.15 * (high - low)
    edges = [torch.linspace(float(a), float(b), 61) for a, b in zip(low - margin, high + margin, strict=True)]
    counts = torch.histogramdd(draws.cpu().float(), [e.float() for e in edges])[0]
    kernel = torch.exp(-0.5 * (torch.arange(-6, 7) / 2.5) ** 2)
    kernel = (kernel[:, None] * kernel) / kernel.sum() ** 2
    density = torch.nn.functional.conv2d(counts[None, None], kernel[None, None], padding=6)[0, 0]
    ranked = density.flatten().sort(descending=True).values
    mass = ranked.cumsum(0) / ranked.sum()
    levels = sorted({float(ranked[int((mass < share).sum())]) for share in (0.5, 0.9, 0.99)})
    centres = [array((e[1:] + e[:-1]) / 2) for e in edges]
    axes.contour(*centres, array(density.T), levels=levels, colors=INK, linewidths=0.8, linestyles="--")
