"""Figure of the posteriors of rows in two latents, over the contours of the prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError
from pyro_vae.criticism.latent_usage import Latents, aggregate_kl, spread_of_means
from pyro_vae.criticism.session import evaluation
from pyro_vae.model.vae import VAE
from pyro_vae.plots._datatree import Numbers
from pyro_vae.plots._layout import colour_bar, shorten
from pyro_vae.plots._style import COLOURS, INK, array, figure, tidy

DRAWS = 256
"""Number of draws of a posterior behind its ellipse."""

PRIOR = 40_000
"""Number of draws behind the contours of a prior that is not Gaussian."""

SHARES = (0.5, 0.9, 0.99)
"""Shares of the prior's mass that the contours hold."""

LINE: dict[str, Any] = {"color": INK, "lw": 0.8, "ls": "--"}

OTHERS = "#bbbbbb"
"""Colour of classes without a colour of their own, and of labels that are NaN."""

CONTINUOUS = colormaps["cividis"].with_extremes(bad=OTHERS)


@explained
def latent(
    vae: VAE,
    x: Any,
    labels: Any = None,
    *,
    rows: int = 400,
    seed: int = 0,
    usage: Latents | None = None,
    **given: Any,
) -> Figure:
    """Figure of the posterior of each row in two latents, coloured by label, over the prior's contours.

    The two latents are those whose posterior means vary most over rows. An ellipse holds one standard
    deviation of q(z|x); the contours hold 50 %, 90 % and 99 % of the prior's mass in these two latents: ellipses of a
    Gaussian prior, otherwise contours of a density estimate at quantiles of its values at draws.

    Args:
        vae: the model.
        x: rows (N, *event_shape), as for `fit`.
        labels: labels (N,) of the rows, for colours: classes as integers, words or booleans, of which the ten most
            frequent have a colour each; floating numbers of more than ten values get a colour bar.
        rows: the number of rows that are drawn; the distance to the prior is that of all.
        seed: of the draws; the global random state is left as it was.
        usage: the result of `pv.criticism.latents`, whose estimates are shown; by default they are made of these rows.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The figure; its title has the KL from the aggregate posterior to the prior.

    Raises:
        InputError: labels that are not one for each row.
    """
    dimension, batch = vae.declaration.latent_dim, vae.as_batch(x, **given)
    colours = _Colours.of(labels, len(batch["x"]), rows)
    spread = spread_of_means(vae, batch, seed=seed) if usage is None else usage.spread
    first, *others = torch.argsort(spread, descending=True).tolist()
    chosen = sorted([first, *others[:1]])
    with evaluation(vae, seed):
        z = vae.encode({name: tensor[:rows] for name, tensor in batch.items()}).sample((DRAWS,))[..., chosen]
        prior = vae.prior()
        gaussian = _gaussian(prior, chosen)
        draws = prior.sample((PRIOR,))[:, chosen] if gaussian is None else None
    if dimension == 1:
        z = torch.cat([z, torch.linspace(-1, 1, z.shape[1], device=z.device).expand(DRAWS, -1).unsqueeze(-1)], -1)
    picture = figure(5.2, 5.6)
    axes = picture.subplots()
    _draw_ellipses(axes, z, colours.rows)
    if dimension > 1 and gaussian is not None:
        _draw_gaussian(axes, *gaussian)
    elif dimension > 1 and draws is not None:
        _draw_contours(axes, draws)
    kl = aggregate_kl(vae, batch, seed=seed) if usage is None else usage.surgery
    bound = "at most " if kl.saturated else ""
    tidy(
        axes,
        title=f"KL from aggregate posterior to prior: {bound}{kl.aggregate:.2f} nats\n"
        f"(mean KL per row {kl.mean:.2f} = {kl.information:.2f} information + {kl.aggregate:.2f}; {kl.rows} rows)",
        xlabel=f"latent {chosen[0]}",
        ylabel=f"latent {chosen[1]}" if dimension > 1 else "rows, evenly spaced",
    )
    axes.set_aspect("equal" if dimension > 1 else "auto", adjustable="box")
    handles = [Line2D([], [], label="prior, 50, 90, 99 %", **LINE)] if dimension > 1 else []
    axes.legend(
        handles=[*handles, *colours.handles], frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
    )
    if colours.scale is not None:
        colour_bar(picture, colours.scale, axes, "label")
    return picture


@dataclass(frozen=True)
class _Colours:
    """Colours of rows by their labels.

    Args:
        rows: a colour for each row, or one for all.
        handles: the classes, for a legend.
        scale: the colours of continuous labels, for a colour bar.
    """

    rows: Sequence[Any]
    handles: Sequence[Line2D] = ()
    scale: ScalarMappable | None = None

    @classmethod
    def of(cls, labels: Any, count: int, shown: int) -> "_Colours":
        """Colours of the first `shown` of `count` rows."""
        if labels is None:
            return cls([COLOURS[0]])
        values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if values.shape != (count,):
            raise InputError(f"labels have shape {values.shape}, and x has {count} rows: give one label for each row.")
        values = values[:shown]
        if values.dtype.kind == "f" and len(np.unique(values)) > len(COLOURS):
            scale = ScalarMappable(Normalize(np.nanmin(values), np.nanmax(values)), CONTINUOUS)
            return cls(list(scale.to_rgba(np.ma.masked_invalid(values))), (), scale)
        classes, index, counts = np.unique(
            values.astype(str) if values.dtype == object else values, return_inverse=True, return_counts=True
        )
        frequent = sorted(np.argsort(-counts, kind="stable")[: len(COLOURS)].tolist())
        colours = {at: COLOURS[place] for place, at in enumerate(frequent)}
        names = [
            (colours[at], shorten(f"{classes[at]:g}" if values.dtype.kind == "f" else str(classes[at]), 1.2, 8))
            for at in frequent
        ]
        if len(classes) > len(frequent):
            names.append((OTHERS, f"{len(classes) - len(frequent)} other classes"))
        handles = [Line2D([], [], marker="o", ls="", color=colour, label=name) for colour, name in names]
        return cls([colours.get(int(at), OTHERS) for at in index], handles)


def _gaussian(prior: Any, chosen: Sequence[int]) -> tuple[Numbers, Numbers] | None:
    """Mean (2,) and covariance (2, 2) of two latents under a Gaussian prior; None for another prior."""
    base = getattr(prior, "base_dist", prior)
    if isinstance(base, Normal) and base.batch_shape[-1:] == prior.event_shape:
        return array(base.loc)[chosen], np.diag(array(base.scale)[chosen] ** 2)
    if isinstance(prior, MultivariateNormal):
        return array(prior.loc)[chosen], array(prior.covariance_matrix)[np.ix_(chosen, chosen)]
    return None


def _draw_ellipses(axes: Axes, z: Tensor, colours: Sequence[Any]) -> None:
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


def _draw_gaussian(axes: Axes, mean: Numbers, covariance: Numbers) -> None:
    """Draw the ellipses that hold the shares of a Gaussian, whose squared radii are chi-squared of two degrees."""
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * np.pi, 181)
    circle = vectors @ (np.sqrt(values)[:, None] * np.stack([np.cos(angle), np.sin(angle)]))
    for share in SHARES:
        axes.plot(*(mean[:, None] + np.sqrt(-2 * np.log1p(-share)) * circle), **LINE)


def _draw_contours(axes: Axes, draws: Tensor) -> None:
    """Draw contours that hold the shares of the prior's draws (M, 2).

    Levels are quantiles of a smoothed histogram at other draws than those that it is made of, so that its smoothing
    cannot move the shares.
    """
    from scipy.interpolate import RegularGridInterpolator  # here, for importing these takes time
    from scipy.ndimage import gaussian_filter

    made, held = array(draws[::2]), array(draws[1::2])
    low, quarter, middle, upper, high = np.quantile(made, (0.0005, 0.25, 0.5, 0.75, 0.9995), axis=0)
    margin, unit = 0.15 * (high - low), np.maximum(upper - quarter, 1e-12 + 1e-6 * (high - low))
    ends = np.arcsinh((np.stack([low - margin, high + margin]) - middle) / unit)  # wider cells in heavy tails
    edges = (middle + unit * np.sinh(np.linspace(ends[0], ends[1], 61))).T
    counts, _, _ = np.histogram2d(made[:, 0], made[:, 1], bins=(edges[0], edges[1]))
    density = gaussian_filter(counts, 1.5, mode="constant") / np.outer(np.diff(edges[0]), np.diff(edges[1]))
    centres = [(each[1:] + each[:-1]) / 2 for each in edges]
    at_draws = RegularGridInterpolator(centres, density, bounds_error=False, fill_value=0.0)(held)
    levels = sorted({float(level) for level in np.quantile(at_draws, [1 - share for share in SHARES]) if level > 0})
    axes.contour(*centres, density.T, levels=levels, colors=INK, linewidths=0.8, linestyles="--")
