"""How good is this model, and how sure is that? One VAE of the digits, its evidence by every method, and its gaps.

Run: python examples/evidence.py. It writes runs/evidence.png. On the left, estimates of the mean log p(x) of the same
test rows by ever more draws: each approaches the truth from below, as fast as its proposal is good, and a hollow dot is
one that k-hat does not trust. Annealing, which trusts no guide, is the level they have to reach. On the right, what the
ELBO lacks of it: the fault of the guide's family, or of the encoder?
"""

import os
from pathlib import Path

import numpy as np
import torch

import pyro_vae as pv
from pyro_vae.criticism import AIS, Importance, bdmc, inference_gap
from pyro_vae.plots._style import COLOURS, INK, figure, tidy

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))
EPOCHS, ROWS, DRAWS = (2, 10, (30, 100)) if QUICK else (100, 60, (30, 100, 300, 1000, 3000, 10_000))
TEMPERATURES, STEPS = (20, 10) if QUICK else (1000, 200)

digits = pv.data.load("digits", seed=0)
torch.manual_seed(0)
vae = pv.VAE(digits.event_shape, latent_dim=6, likelihood=pv.Normal(scale=0.15), encoder=pv.MLP(hidden=(32,)))
pv.fit(vae, digits.train, optimizer=pv.Adam(3e-3), epochs=EPOCHS, progress=False)
x = digits.test.x[:ROWS]

annealing = AIS(temperatures=TEMPERATURES)
annealed = pv.evidence(vae, x, method=annealing, progress=False)
check = bdmc(vae, rows=ROWS, method=annealing, progress=False)
gap = inference_gap(vae, x, draws=1000, steps=STEPS, method=annealing, progress=False)
print(annealed, check, gap, sep="\n\n")

picture = figure(4.2)
left, right = picture.subplots(1, 2, width_ratios=(1.5, 1))
left.axhspan(annealed.mean - check.error_bound, annealed.mean + check.error_bound, color=INK, alpha=0.15, lw=0)
left.axhline(annealed.mean, color=INK, lw=1, label="annealing, and its error by BDMC")
for place, proposal in enumerate(("guide", "defensive", "refined")):
    colour, beside = COLOURS[place], np.array(DRAWS) * 1.1 ** (place - 1)  # so that error bars do not hide each other
    options = {"steps": STEPS} if proposal == "refined" else {}
    found = [pv.evidence(vae, x, method=Importance(draws, proposal, **options), progress=False) for draws in DRAWS]
    means = np.array([each.mean for each in found])
    left.errorbar(beside, means, [2 * each.mean_mcse for each in found], color=colour, lw=1.2, label=proposal)
    for draws, each in zip(beside, found, strict=True):
        trusted = float(each.unreliable.double().mean()) < 0.05
        left.plot(draws, each.mean, "o", color=colour, mfc=colour if trusted else "white", ms=5)
left.set_xscale("log")
left.legend(frameon=False, fontsize=8, loc="lower right")
tidy(left, title="importance sampling, by its proposal", xlabel="draws per row", ylabel="mean log p(x), nats per image")

amortised, refined, evidence = float(gap.amortised.mean()), float(gap.refined.mean()), gap.evidence.mean
low = amortised - 0.4 * max(evidence - amortised, 0.1)
steps = (
    ("ELBO", low, amortised),
    ("encoder:\namortisation", amortised, refined),
    ("family:\napproximation", refined, evidence),
)
for place, (_, start, end) in enumerate(steps):
    right.bar(place, end - start, bottom=start, width=0.6, color=COLOURS[place + 3])
    right.annotate(
        f"{end:.2f}", (place, max(start, end)), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=8
    )
right.axhline(evidence, color=INK, lw=0.8, ls="--")
right.set_xticks(range(3), [name for name, *_ in steps], fontsize=7)
tidy(right, title="what the ELBO lacks of it", ylabel="nats per image")
picture.suptitle(
    f"Evidence of a VAE with an encoder of 32 units: {ROWS} grey test digits, {EPOCHS} epochs. Hollow dots: k-hat\n"
    "is too large in 5 % of the rows or more. Bars around dots: two standard errors over draws.",
    fontsize=9,
    color=INK,
    x=0.02,
    ha="left",
)
Path("runs").mkdir(exist_ok=True)
picture.savefig("runs/evidence.png")
