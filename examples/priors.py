"""Six priors for the same digits: what each expects of two latents, over where the guide puts the data.

Run: python examples/priors.py. It writes runs/priors.png. Nothing but the prior differs: network, starting weights and
shuffles are the same, so the held-out bounds compare. With two latents they differ little, for the decoder bends any
prior to the data's needs; with eight they do: benchmarks/priors.py.
"""

import os
from pathlib import Path

import torch
from matplotlib.lines import Line2D

import pyro_vae as pv
from pyro_vae.plots._style import COLOURS, INK, array, figure, tidy

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))
EPOCHS = 1 if QUICK else 200

digits = pv.data.load("digits", binarize="dynamic", seed=0)
held = pv.data.load("digits", binarize="static", seed=0).validation
torch.manual_seed(0)
first = pv.VAE(digits.event_shape, latent_dim=2, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(256,)))

priors = {
    "Normal(0, 1)": pv.Normal(0, 1),
    "Laplace(0, 1)": pv.Laplace(0, 1),
    "Mixture(Normal(), 20)": pv.Mixture(pv.Normal(), components=20),
    "VampPrior(50)": pv.VampPrior(components=50),
    "Flow('nsf')": pv.Flow("nsf"),
    "Aggregate()": pv.Aggregate(),
}


@torch.no_grad()
def draw_prior(axes, vae: pv.VAE, z: torch.Tensor) -> None:
    """Contours that hold 50, 90 and 99 % of the prior's mass, by its density on a grid around the draws z (N, 2)."""
    both = torch.cat([vae.prior().sample((5000,)), z])
    low, high = (torch.quantile(both, share, dim=0) for share in (0.001, 0.999))
    margin = 0.2 * (high - low)
    across, up = (torch.linspace(float(a), float(b), 200) for a, b in zip(low - margin, high + margin, strict=True))
    density = vae.prior().log_prob(torch.stack(torch.meshgrid(across, up, indexing="xy"), dim=-1)).exp()
    ranked = density.flatten().sort(descending=True).values
    mass = ranked.cumsum(0) / ranked.sum()
    levels = sorted({float(ranked[int((mass < share).sum())]) for share in (0.5, 0.9, 0.99)})
    axes.contour(array(across), array(up), array(density), levels=levels, colors=INK, linewidths=0.8)


picture, reference = figure(5.6), None
for axes, (name, prior) in zip(picture.subplots(2, 3).flat, priors.items(), strict=True):
    vae = first.replace(prior=prior)
    pv.fit(vae, digits.train, optimizer=pv.Adam(2e-3), epochs=EPOCHS, progress=False)
    torch.manual_seed(0)
    with torch.no_grad():
        bound = pv.objectives.ELBO(particles=100).draw(vae.model, vae.guide, held.x).log_weights.mean(0)
        z = vae.encode(held.x).sample((5,))
    reference = bound if reference is None else reference
    gain = bound - reference  # image by image, so that how hard the images are is no error of it
    said = f"{float(bound.mean()):.2f}"
    if vae.declaration.prior != first.declaration.prior:
        said += f" ({float(gain.mean()):+.2f} ± {float(gain.std() / len(gain) ** 0.5):.2f})"
    print(f"{name:<22} held-out bound {said} nats per image")
    colours = [COLOURS[int(label)] for label in held.labels]
    draw_prior(axes, vae, z.flatten(0, 1))
    for some in z:
        axes.scatter(*array(some.T), s=2.5, c=colours, linewidths=0)
    tidy(axes, title=f"{name}\n{said}", xlabel="latent 0", ylabel="latent 1")
dots = [Line2D([], [], marker="o", ls="", ms=4, color=colour, label=str(k)) for k, colour in enumerate(COLOURS)]
picture.legend(handles=dots, ncols=10, loc="outside lower center", frameon=False, fontsize=8)
picture.suptitle(
    "Each prior (contours around 50, 90 and 99 % of its mass) over the aggregate posterior: 5 draws for each of\n"
    f"{len(held)} held-out digits, coloured by class. Below the name: the bound in nats per image, {EPOCHS} epochs;\n"
    "in brackets the difference to Normal(0, 1) and its standard error over images. Latents have no unit.",
    fontsize=9,
    color=INK,
    x=0.02,
    ha="left",
)
Path("runs").mkdir(exist_ok=True)
picture.savefig("runs/priors.png")
print("Look at runs/priors.png.")
