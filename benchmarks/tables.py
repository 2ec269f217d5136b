"""Rows of published MNIST tables through the public API: bounds are trained, evidence is measured.

Run: python benchmarks/tables.py --root DATA --row vae|iwae5|iwae50|static|vampprior [--stages 4] [--rows 1000]

- vae, iwae5, iwae50: table 1 of Burda et al. (2016): 784-200-200-50, tanh, dynamic binarisation, 60,000 training rows,
  Adam with eps 1e-4, batches of 20; stage i = 0, ..., 7 is 3^i epochs at the learning rate 10^(-3 - i / 7). All 8
  stages are 3,280 epochs and published as 86.76, 85.54 and 84.78; 4 stages are 40 epochs, for a CPU.
- static: 784-400-40, Adam 1e-4, batches of 100, 500 epochs, static binarisation, 200 draws: 89.78 (pythae).
- vampprior: gated 300-300, z = 40, K = 500 pseudo-inputs, static binarisation, warm-up over 100 epochs: 85.57 (Tomczak
  and Welling, 2018), there with early stopping; `--epochs` says how many here.

What is printed is minus the mean of log p(x) of test rows, by importance sampling with 5,000 draws, and its errors.
"""

import argparse
import time

import torch
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.criticism import Importance
from pyro_vae.objectives import ELBO, IWAE
from pyro_vae.schedules import Linear


class Gated(nn.Module):
    """Two layers of h * sigmoid(g), and one linear head for each parameter."""

    def __init__(self, width: int, outputs: dict[str, tuple[int, ...]], inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        sizes = [(inputs, width), (width, width)]
        self.layers = nn.ModuleList(nn.Linear(a, 2 * b) for a, b in sizes)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, torch.Size(shape).numel()) for name, shape in outputs.items()}
        )
        self.shapes = outputs

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Named raw parameters (*batch, *shape)."""
        x = x.reshape(*x.shape[: -3 if self.inputs == 784 else -1], self.inputs)
        for layer in self.layers:
            x = nn.functional.glu(layer(x), -1)
        return {name: head(x).reshape(*x.shape[:-1], *self.shapes[name]) for name, head in self.heads.items()}


def burda(objective: pv.objectives.Objective, mnist: pv.data.Dataset, options: argparse.Namespace) -> pv.VAE:
    """Train by Burda's schedule, as many stages of it as asked for."""
    vae = pv.VAE(mnist.event_shape, 50, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(200, 200), activation="tanh"))
    for stage in range(options.stages):
        optimizer = pv.Adam(lr=10 ** (-3 - stage / 7), eps=1e-4)
        history = pv.fit(
            vae, mnist.train, objective=objective, optimizer=optimizer, epochs=3**stage, batch_size=20,
            seed=options.seed + stage, progress=options.progress, runtime=pv.Runtime(accelerator=options.accelerator),
        )  # fmt: skip
        print(f"  stage {stage}: {3**stage} epochs, training loss {history.last['loss']:.2f}", flush=True)
    return vae


def static(objective: pv.objectives.Objective, mnist: pv.data.Dataset, options: argparse.Namespace) -> pv.VAE:
    """Train the model of pythae's reproductions."""
    vae = pv.VAE(mnist.event_shape, 40, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(400,)))
    pv.fit(
        vae, mnist.train, objective=objective, optimizer=pv.Adam(lr=1e-4), epochs=options.epochs or 500,
        batch_size=100, seed=options.seed, progress=options.progress,
        runtime=pv.Runtime(accelerator=options.accelerator),
    )  # fmt: skip
    return vae


def vampprior(objective: pv.objectives.Objective, mnist: pv.data.Dataset, options: argparse.Namespace) -> pv.VAE:
    """Train the gated model with a VampPrior."""
    vae = pv.VAE(
        mnist.event_shape, 40, prior=pv.VampPrior(components=500), likelihood=pv.Bernoulli(),
        encoder=Gated(300, {"loc": (40,), "scale": (40,)}, 784), decoder=Gated(300, {"logits": mnist.event_shape}, 40),
    )  # fmt: skip
    pv.fit(
        vae, mnist.train, objective=objective, optimizer=pv.Adam(lr=5e-4), epochs=options.epochs or 500,
        batch_size=100, seed=options.seed, progress=options.progress,
        runtime=pv.Runtime(accelerator=options.accelerator),
    )  # fmt: skip
    return vae


ROWS = {
    "vae": (burda, ELBO(), "dynamic", 5000, 86.76),
    "iwae5": (burda, IWAE(particles=5), "dynamic", 5000, 85.54),
    "iwae50": (burda, IWAE(particles=50), "dynamic", 5000, 84.78),
    "static": (static, ELBO(), "static", 200, 89.78),
    "vampprior": (vampprior, ELBO(beta=Linear(0, 1, epochs=100)), "static", 5000, 85.57),
}


def main() -> None:
    """Train one row, and measure its evidence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=None)
    parser.add_argument("--row", choices=ROWS, default="vae")
    parser.add_argument("--stages", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--progress", action="store_true")
    options = parser.parse_args()
    train, objective, binarize, draws, published = ROWS[options.row]
    mnist = pv.data.load("mnist", root=options.root, binarize=binarize, validation=0)
    torch.manual_seed(options.seed)
    start = time.perf_counter()
    vae = train(objective, mnist, options)
    trained = time.perf_counter() - start
    test = pv.data.Rows({"x": mnist.test.x[: options.rows]}, dynamic=mnist.test.dynamic)
    found = pv.evidence(vae, test, method=Importance(draws=draws), progress=options.progress)
    print(found)
    print(
        f"{options.row}, {binarize}, seed {options.seed}: -log p(x) {-found.mean:.2f} +- {found.se:.2f}"
        f" over {len(found)} rows, +- {found.mean_mcse:.3f} over draws (published {published}, full schedule);"
        f" trained in {trained:.0f} s, measured in {time.perf_counter() - start - trained:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
