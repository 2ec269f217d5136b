"""Likelihoods for the same digits: draws of each, and which held-out bounds may be compared.

Run: python examples/likelihoods.py. It writes runs/likelihoods.png. A density is relative to length, a probability to
counting: bounds compare within a group below. Across groups they do not, for the measure or the data are others.
"""

import math
import os
from pathlib import Path
from typing import NamedTuple

import torch

import pyro_vae as pv
from pyro_vae.families import Family
from pyro_vae.plots._style import INK, array, figure

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))
EPOCHS = 1 if QUICK else 60
SHOWN = 16


class Group(NamedTuple):
    """Likelihoods of the same data, densities or probabilities relative to the same measure."""

    title: str
    data: pv.data.Dataset
    likelihoods: dict[str, Family]
    probabilities: bool = False


def digits(**options: object) -> pv.data.Dataset:
    """The data, with the same rows held out every time."""
    return pv.data.load("digits", seed=0, **options)


unit = {"low": 0, "high": 1}
groups = [
    Group(
        "Densities of grey values in [0, 1], relative to length: nats per image",
        digits(),
        {
            "Normal": pv.Normal(scale="learned"),
            "Laplace": pv.Laplace(scale="learned"),
            "StudentT": pv.StudentT(df="learned", scale="learned"),
            "Truncated Normal": pv.Truncated(pv.Normal(scale="learned"), **unit),
            "ContinuousBernoulli": pv.ContinuousBernoulli(),
            "Beta, squeezed": pv.Scaled(pv.Beta(), loc=-0.01, scale=1.02),  # with the Jacobian: it compares
            "Mixture of elements": pv.Mixture(pv.Normal(scale="learned"), components=3, of="elements"),
        },
    ),
    Group(
        "A density between 0 and 1 and probabilities at 0 and 1: a measure of its own",
        digits(),
        {"Censored Normal": pv.Censored(pv.Normal(scale="learned"), **unit)},
    ),
    Group(
        "Probabilities of 17 grey levels: bits per pixel, as of lossless compression",
        digits(levels=17),
        {
            "DiscretizedLogistic": pv.DiscretizedLogistic(bins=17, components=3),
            "Categorical": pv.Categorical(classes=17),
        },
        probabilities=True,
    ),
    Group(
        "Probabilities of binarised pixels: other data, of which there is less to tell",
        digits(binarize="static"),
        {"Bernoulli": pv.Bernoulli()},
        probabilities=True,
    ),
]


def strip(axes, images: torch.Tensor, white: float, name: str, said: str) -> None:
    """Show images (M, 1, 8, 8) in a line, from black at 0 to white, between a name and what is said of it."""
    lined = torch.cat(list(torch.nn.functional.pad(images[:, 0], (0, 1), value=white)), dim=1)[:, :-1]
    axes.imshow(array(lined), cmap="gray", vmin=0, vmax=white, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for at, side, text in ((-0.01, "right", name), (1.01, "left", said)):
        axes.text(at, 0.5, text, transform=axes.transAxes, ha=side, va="center", fontsize=8, color=INK)


lines = sum(2 + len(group.likelihoods) for group in groups)
picture = figure(0.37 * lines + 0.7)
places = iter(picture.subplots(lines, 1))
for group in groups:
    heading = next(places)
    heading.set_axis_off()
    heading.text(0, 0, group.title, transform=heading.transAxes, va="bottom", fontsize=8, weight="bold", color=INK)
    train, held = group.data.train, group.data.validation
    white = float(train.x.max())
    strip(next(places), held.x[:SHOWN], white, "data", "")
    print(group.title)
    for name, likelihood in group.likelihoods.items():
        torch.manual_seed(0)
        vae = pv.VAE(group.data.event_shape, latent_dim=8, likelihood=likelihood, encoder=pv.MLP(hidden=(256,)))
        pv.fit(vae, train, epochs=EPOCHS, batch_size=64, progress=False)
        torch.manual_seed(0)
        with torch.no_grad():
            bound = pv.objectives.ELBO(particles=20).draw(vae.model, vae.guide, held.x).log_weights.mean(0)
        if group.probabilities:
            bound = -bound / (held.x[0].numel() * math.log(2))
        unit_name, digits_shown = ("bits", 3) if group.probabilities else ("nats", 1)
        error = float(bound.std() / len(bound) ** 0.5)
        said = f"{float(bound.mean()):.{digits_shown}f} ± {error:.{digits_shown}f} {unit_name}"
        strip(next(places), vae.sample(SHOWN), white, name, said)
        print(f"    {name:<22} {said}")
picture.suptitle(
    "Draws z ~ p(z), x ~ p(x|z), cut off at black and white, and the held-out bound ± standard error over images:\n"
    "more nats are better, fewer bits are better. Compare within a group only.\n"
    "Grey values are 16ths: a density gains by spikes on them, without end, and a probability does not.",
    fontsize=8,
    color=INK,
    x=0.02,
    ha="left",
)
Path("runs").mkdir(exist_ok=True)
picture.savefig("runs/likelihoods.png")
print("Look at runs/likelihoods.png.")
