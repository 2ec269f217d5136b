"""Figure of the aggregate posterior against the prior, latent by latent."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pyro_vae.core.calls import explained
from pyro_vae.criticism.latent_usage import MAX_ROWS, spread_of_means
from pyro_vae.model.vae import VAE
from pyro_vae.plots._datatree import Numbers
from pyro_vae.plots._layout import columns_of, few_ticks, headline, label_outer, legend_below, panels, small
from pyro_vae.plots._style import COLOURS, INK, array
from pyro_vae.plots.latent_traversal import PRIOR, evaluating_rows

LATENTS = 30
"""Maximum number of latents in the picture."""


@explained
def aggregate_posterior(vae: VAE, x: Any, *, draws: int = 10, seed: int = 0, **given: Any) -> Figure:
    r"""Figure of the density of each latent under the aggregate posterior over that under the prior.

    $$ q(z) = \frac1N \sum_n q(z \mid x_n) $$

    References:
        Hoffman and Johnson, ELBO surgery, 2016 [hoffman2016].

    Args:
        vae: the model, with any prior: both densities are histograms of draws.
        x: rows (N, *event_shape), as for `fit`; the first 2,000 are used.
        draws: draws per row.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The figure: at most 30 latents, of more those whose posterior means vary most over rows. Each is titled with
        the Kolmogorov distance of the two, the largest difference of their distribution functions.

    Raises:
        InputError: the rows cannot be used.
    """
    with evaluating_rows(vae, seed, x, given) as batch:
        rows = {name: value[:MAX_ROWS] for name, value in batch.items()}
        spread = spread_of_means(vae, rows)
        z = array(vae.encode(**rows).sample((draws,)).flatten(0, 1))
        prior = array(vae.prior().sample((PRIOR,)))
    shown = sorted(torch.argsort(spread, descending=True)[:LATENTS].tolist())
    columns = columns_of(len(shown))
    picture, grid = panels(len(shown), columns=columns, height=1.2 if columns == 5 else 1.7, head=0.9)
    distances = []
    for axes, latent in zip(grid, shown, strict=True):
        distances.append(_kolmogorov_distance(z[:, latent], prior[:, latent]))
        _draw_densities(axes, z[:, latent], prior[:, latent])
        small(axes, f"latent {latent}: {distances[-1]:.2f}", size=7 if columns == 5 else 8)
    label_outer(grid, columns=columns, xlabel="z", ylabel="density")
    posterior = Patch(color=COLOURS[0], alpha=0.6, label="aggregate posterior")
    legend_below(picture, [posterior, Line2D([], [], color=INK, lw=1.2, ls="--", label="prior")])
    part = f", {len(shown)} of {len(spread)} latents: those that vary most" if len(shown) < len(spread) else ""
    headline(
        picture,
        f"Draws of q(z|x) for {len(rows['x'])} rows, and of p(z){part}. Numbers: Kolmogorov distance, the largest "
        f"{max(distances):.2f}.",
    )
    return picture


def _kolmogorov_distance(one: Numbers, other: Numbers) -> float:
    points = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (one, other)]
    return float(abs(shares[0] - shares[1]).max())


def _draw_densities(axes: Axes, z: Numbers, prior: Numbers) -> None:
    """Draw both over the bulk of either: the tails of a prior may reach too far."""
    ends = np.concatenate([np.quantile(z, (0.002, 0.998)), np.quantile(prior, (0.01, 0.99))])
    low, high = ends.min(), ends.max()
    edges = np.linspace(low, high, 41) if high > low else np.linspace(low - 0.5, high + 0.5, 41)
    width = np.diff(edges)
    heights = [np.histogram(sample, edges)[0] / len(sample) / width for sample in (z, prior)]
    axes.stairs(heights[0], edges, fill=True, color=COLOURS[0], alpha=0.6)
    axes.stairs(heights[1], edges, color=INK, lw=1.2, ls="--")
    few_ticks(axes, "x")
    axes.set_yticks([])
