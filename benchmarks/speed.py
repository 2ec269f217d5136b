"""One epoch of MNIST through `fit`, beside a hand-written loop, Pyro's SVI and the bare matrix products.

Run: python benchmarks/speed.py --root ../shared/data. All loops take turns in one process, on the same data, network
(784-400-20, Gaussian likelihood with one learned scale), batch size 128, optimizer and precision; the ratios are of
medians over the rounds. SVI runs twice: over a DataLoader of the tensor in memory, and of torchvision's images with
`ToTensor`, as Pyro's tutorial has it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from peers import HandWritten, matrix_products
from pyro.infer import SVI, Trace_ELBO
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

import pyro_vae as pv

BATCH = 128


def ours(x: torch.Tensor) -> float:
    """One epoch of `fit`, as its history times it: checks and set-up come before."""
    vae = pv.VAE((1, 28, 28), 20, encoder=pv.MLP(hidden=(400,)))
    history = pv.fit(vae, x, epochs=2, batch_size=BATCH, progress=False)
    return float(history["seconds"][1])


def hand_written(x: torch.Tensor) -> float:
    """One epoch of a hand-written eager loop: data in memory, fused Adam."""
    model = HandWritten()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for _ in range(2):
        start, total = time.perf_counter(), torch.zeros(())
        for index in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss = model(x.index_select(0, index))
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(index)
        float(total)
        elapsed = time.perf_counter() - start
    return elapsed


def pyro_svi(x: torch.Tensor, loader: "DataLoader[Any]") -> float:
    """One epoch of Pyro's SVI with Trace_ELBO on the same programs, over a DataLoader."""
    pyro.clear_param_store()
    vae = pv.VAE((1, 28, 28), 20, encoder=pv.MLP(hidden=(400,))).initialize(x)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    start = time.perf_counter()
    for batch, *_ in loader:
        svi.step(batch)
    elapsed = time.perf_counter() - start
    pyro.clear_param_store()
    return elapsed


def products(x: torch.Tensor) -> float:
    """One epoch's matrix products alone."""
    start = time.perf_counter()
    for _ in range(0, len(x), BATCH):
        matrix_products(BATCH)
    return time.perf_counter() - start


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x = pv.data.load("mnist", root=options.root, validation=0).train.x
    images = MNIST(options.root, transform=ToTensor())
    loaders = [DataLoader(data, batch_size=BATCH, shuffle=True) for data in (TensorDataset(x), images)]
    loops: dict[str, Callable[[torch.Tensor], float]] = {
        "fit": ours,
        "hand-written, eager": hand_written,
        "SVI, loader of a tensor": partial(pyro_svi, loader=loaders[0]),
        "SVI, loader of images": partial(pyro_svi, loader=loaders[1]),
        "products": products,
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            seconds[name].append(loop(x))
    mine = statistics.median(seconds["fit"])
    print(f"torch {torch.__version__}, {options.threads} threads, {len(x)} rows, {options.rounds} rounds")
    print(f"{'one epoch':<24}{'median s':>10}{'min':>8}{'max':>8}{'fit / this':>12}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<24}{median:>10.2f}{min(values):>8.2f}{max(values):>8.2f}{mine / median:>12.2f}")


if __name__ == "__main__":
    main()
