"""Should you believe this model? From a misspecified one to a mended one, in five steps.

Run: python examples/criticism.py. It writes runs/criticism.png. The digits are pixels of 17 levels, 0 to 16, which look
like counts, so we begin with a Poisson likelihood. The prior check asks whether such data can come out at all; the
check after the fit says what is wrong, in sentences; one word is swapped; and the check is repeated. Above, data beside
replicates of both models; below, how far each test statistic of the data lies from that of replicates, and how much of
the data central intervals hold.
"""

import os
from pathlib import Path

import numpy as np
import torch

import pyro_vae as pv
from pyro_vae.criticism import findings
from pyro_vae.plots._style import COLOURS, INK, figure, tidy
from pyro_vae.plots.samples import show_grid

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))
EPOCHS, DRAWS = (2, 20) if QUICK else (60, 1280)

digits = pv.data.load("digits", levels=17, seed=0)


def checked(vae: pv.VAE, kind: str = "population"):
    """Check against held-out digits, and say what was found."""
    tree = pv.predictive_check(vae, digits.test, kind=kind, draws=DRAWS, progress=False)
    print("", vae.declaration.likelihood, *findings(tree), sep="\n")
    return tree


# 1. A prior check: where does training start?
torch.manual_seed(0)
poisson = pv.VAE(digits.event_shape, latent_dim=8, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(256,)))
checked(poisson.initialize(digits.train.x), kind="prior")

# 2. A fit, and 3. a check of it.
pv.fit(poisson, digits.train, epochs=EPOCHS, progress=False)
first = checked(poisson)

# 4. One word is swapped: pixels have no more than 17 levels, and any share of each. 5. The check again.
levels = poisson.replace(likelihood=pv.Categorical(classes=17))
pv.fit(levels, digits.train, epochs=EPOCHS, progress=False)
second = checked(levels)

picture = figure(7.0)
above, below = picture.subfigures(2, 1, height_ratios=(1, 1.4))
shown = (("data", digits.test.x), ("replicates, Poisson", first), ("replicates, Categorical", second))
for axes, (title, source) in zip(above.subplots(1, 3), shown, strict=True):
    if not isinstance(source, torch.Tensor):
        drawn = source["posterior_predictive"]["x"].values[0, 0]
        source = torch.from_numpy(drawn).reshape(-1, *digits.event_shape).float()
    show_grid(axes, source[:25], 5, digits.test.x)
    axes.set_title(title, fontsize=10, loc="left", color=INK)

left, right = below.subplots(1, 2, width_ratios=(1.6, 1))
both = [str(name) for name in first["checks"]["statistic"].values if name in second["checks"]["statistic"]]
models = ((first, "Poisson", COLOURS[1]), (second, "Categorical", COLOURS[0]))
gaps = []
for tree, _, _ in models:
    checks = tree["checks"].to_dataset().sel(statistic=both)
    gaps.append(np.abs(checks["observed"] - checks["mean"]) / checks["sd"].clip(min=1e-9))
order = np.argsort(gaps[0].values)[-14:]
for gap, (_, label, colour) in zip(gaps, models, strict=True):
    left.plot(gap.values[order].clip(0.05, 100), range(len(order)), "o", color=colour, ms=5, label=label)
left.set_yticks(range(len(order)), [both[at] for at in order], fontsize=7)
left.set_xscale("log")
left.axvline(2, color=INK, lw=0.8, ls=":")
left.legend(frameon=False, fontsize=8, loc="lower right")
tidy(left, title="data against replicates", xlabel="distance [standard deviations of replicates]", ylabel="")
left.tick_params(axis="y", labelsize=7)

for tree, label, colour in models:
    part = tree["calibration"]
    right.plot(100 * part["level"], 100 * part["coverage_overall"], "o-", color=colour, lw=1.2, ms=4, label=label)
right.axline((50, 50), slope=1, color=INK, lw=0.8, ls=":")
tidy(right, title="central intervals", xlabel="should hold [%]", ylabel="hold [% of the values]")

Path("runs").mkdir(exist_ok=True)
picture.savefig("runs/criticism.png")
print("\nThe picture is in runs/criticism.png.")
