"""Figure of the inference gap, split into the approximation gap and the amortisation gap."""

import numpy as np
from matplotlib.figure import Figure

from pyro_vae.core.calls import explained
from pyro_vae.criticism.inference_gap import InferenceGap
from pyro_vae.plots._style import COLOURS, INK, array, figure, tidy

PARTS = {
    "approximation": (COLOURS[0], "approximation\n(family)", "approximation, log p(x) - L*"),
    "amortisation": (COLOURS[1], "amortisation\n(encoder)", "amortisation, L* - L"),
}

CUTOFF = 3
"""Multiple of the 90 % quantile of the gaps above which rows are cut off, and counted."""


@explained
def inference_gap(gap: InferenceGap) -> Figure:
    """Figure of the mean of both gaps with two standard errors over rows, and the gaps of each row, smallest first.

    Args:
        gap: the gap that `pv.criticism.inference_gap` returned.

    Returns:
        A figure with two panels, in nats per row; a few rows far beyond the others are cut off, and counted.
    """
    picture = figure(3.2)
    left, right = picture.subplots(1, 2, width_ratios=(1, 2.2))
    for place, (name, (colour, _, _)) in enumerate(PARTS.items()):
        mean, over_rows, _ = gap.parts[name]
        left.bar(place, mean, 0.6, color=colour)
        if len(gap) > 1:
            left.errorbar(place, mean, 2 * over_rows, color=INK, lw=1, capsize=3)
    left.set_xticks(range(len(PARTS)), [label for _, label, _ in PARTS.values()])
    left.axhline(0, color=INK, lw=0.6)
    tidy(left, title=f"mean, in total {gap.parts['inference'][0]:.2f}", ylabel="nats per row")
    order = gap.total.argsort()
    lower, upper = array(gap.approximation[order]), array(gap.total[order])
    edges = np.arange(len(gap) + 1) + 0.5
    for (colour, _, label), values, baseline in zip(PARTS.values(), (lower, upper), (0, lower), strict=True):
        right.stairs(values, edges, baseline=baseline, fill=True, color=colour, label=label)
    right.axhline(0, color=INK, lw=0.6)
    sizes = np.maximum(np.abs(lower), np.abs(upper))
    reach = CUTOFF * np.quantile(sizes, 0.9)
    note = ""
    if cut := int((sizes > reach).sum()) if reach > 0 else 0:
        note = f"; {cut} {'row is' if cut == 1 else 'rows are'} cut off: up to {sizes.max():.0f} nats"
        right.set_ylim(max(-reach, min(lower.min(), upper.min(), 0)), min(reach, max(lower.max(), upper.max(), 0)))
    right.legend(frameon=False, fontsize=8, loc="upper left")
    tidy(right, title="each row", xlabel=f"rows, by their gap{note}", ylabel="nats")
    return picture
