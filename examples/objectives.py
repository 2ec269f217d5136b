"""What an objective asks for is what the latents become: rate and distortion of one model under many objectives.

Run: python examples/objectives.py. It writes runs/objectives.png. Every model is the same VAE of the digits with the
same starting weights; only the objective differs. The ELBO is a line of slope 1 in this plane: a model further to the
lower left has the higher ELBO, and moving along the line trades fidelity for information.
"""

import itertools
import os
from pathlib import Path

import numpy as np
import torch

import pyro_vae as pv
from pyro_vae.objectives import DIP, ELBO, IWAE, BetaTC, InfoVAE
from pyro_vae.plots._style import COLOURS, INK, figure, tidy
from pyro_vae.schedules import GECO, Linear

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))
EPOCHS = 2 if QUICK else 120

digits = pv.data.load("digits", seed=0)
torch.manual_seed(0)
first = pv.VAE(digits.event_shape, latent_dim=8, likelihood=pv.Normal(scale=0.15), encoder=pv.MLP(hidden=(128,)))

objectives = {
    "ELBO": ELBO(),
    "ELBO, beta 0 to 1": ELBO(beta=Linear(0, 1, epochs=30)),
    "IWAE(10)": IWAE(particles=10, estimator="dreg"),
    "beta = 4": ELBO(beta=4),
    "beta = 0.25": ELBO(beta=0.25),
    "free bits 2 each": ELBO(free_bits=2.0),
    "GECO, rate 6": ELBO(beta=GECO(rate=6)),
    "BetaTC(6)": BetaTC(beta=6),
    "InfoVAE(0, 10)": InfoVAE(alpha=0, scale=10),
    "DIP-II": DIP(),
}

points, active, betas = {}, {}, {}
for name, objective in objectives.items():
    vae = first.replace()
    history = pv.fit(
        vae, digits.train, validation=digits.validation, objective=objective, epochs=EPOCHS, progress=False
    )
    last = history.last
    points[name] = (last["validation_kl"], -last["validation_log_likelihood"])
    active[name] = np.array([last[f"kl_z_{j}"] for j in range(8)])
    if name.startswith("GECO"):
        betas[name] = (history["beta"], history["validation_kl"])
    print(f"{name:<20} rate {points[name][0]:6.2f}  distortion {points[name][1]:7.2f} nats per image")

picture = figure(6.4)
left, right = picture.subplots(1, 2, width_ratios=(1.35, 1))
rates, distortions = np.array(list(points.values())).T
span = np.array([rates.min() - 1, rates.max() + 1])
best = (rates + distortions).min()
left.plot(span, best - span, color=INK, lw=0.8, ls="--", zorder=0)
left.annotate("ELBO as good as the best", (span[0] + 0.5, best - span[0]), fontsize=8, color=INK)
for number, point in enumerate(points.values()):
    left.plot(*point, "o", color=COLOURS[number], ms=7, alpha=0.9)
tidy(left, title="held out; colours as on the right", xlabel="rate: KL to the prior, nats per image")
left.set_ylabel("distortion: minus log-likelihood, nats per image")

for row, each in enumerate(active.values()):
    ordered = np.sort(each)[::-1]
    edges = np.concatenate([[0], np.cumsum(ordered)])
    for low, high in itertools.pairwise(edges):
        right.barh(row, high - low, left=low, height=0.7, color=COLOURS[row % 10], edgecolor="white", lw=0.6)
right.set_yticks(range(len(active)), list(active), fontsize=8)
right.invert_yaxis()
tidy(right, title="rate, latent by latent", xlabel="nats per image")
rate = betas["GECO, rate 6"]
picture.suptitle(
    f"Ten objectives, one VAE: 8 latents, Gaussian of scale 0.15, {EPOCHS} epochs, {len(digits.train)} digits.\n"
    f"GECO ended with beta = {rate[0][-1]:.2f}, by which the rate is {rate[1][-1]:.1f} nats.",
    fontsize=9,
    color=INK,
    x=0.02,
    ha="left",
)
Path("runs").mkdir(exist_ok=True)
picture.savefig("runs/objectives.png")
