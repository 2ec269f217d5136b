"""What evidence by importance sampling costs, against the decoder's matrix products alone, and its memory.

Run: python benchmarks/evidence.py --root ../shared/data [--network small|burda] [--rows 1000] [--draws 5000]

IWAE-5000 of MNIST test rows under dynamic binarisation, in float32. `small` is 784-400-20, `burda` 784-200-200-50 with
tanh (Burda et al. 2016). A hand-written loop of torch.mm has the shapes of the decoder's products, chunk by chunk; both
are timed in turn, so that a busy machine slows down both. Memory is the largest that a fresh process holds beyond what
it held before, imports on the way included (Linux); it does not grow with the draws. The targets are 1.7 and 1 GB.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from processes import resident

import pyro_vae as pv
from pyro_vae.criticism import Importance

NETWORKS = {
    "small": {"latent_dim": 20, "encoder": pv.MLP(hidden=(400,))},
    "burda": {"latent_dim": 50, "encoder": pv.MLP(hidden=(200, 200), activation="tanh")},
}
PIXELS = 784
AT_ONCE = 2**22 // PIXELS  # draws, 16 MB in float32: the size at which the products alone are fastest
TARGETS = {"eager": 1.7, "compiled": 1.5}


def fitted(options: argparse.Namespace, folder: Path) -> tuple[pv.VAE, torch.Tensor]:
    """A model after some training, for weights of an untrained one have no tail to fit, and rows of zeros and ones."""
    mnist = pv.data.load("mnist", root=options.root, binarize="dynamic", validation=0)
    torch.manual_seed(0)
    vae = pv.VAE((1, 28, 28), likelihood=pv.Bernoulli(), **NETWORKS[options.network])
    pv.fit(vae, mnist.train, epochs=options.epochs, batch_size=128, run=folder / "run", progress=False)
    x = mnist.test.batch(slice(options.rows))["x"]
    np.save(folder / "x.npy", x.numpy())
    return vae, x


def shapes(options: argparse.Namespace) -> list[tuple[int, int]]:
    """The decoder's weights, each (inputs, outputs)."""
    network = NETWORKS[options.network]
    sizes = [network["latent_dim"], *reversed(network["encoder"].hidden), PIXELS]
    return list(itertools.pairwise(sizes))


def products(options: argparse.Namespace) -> None:
    """The decoder's matrix products for all draws and rows, chunk by chunk."""
    weights = [torch.randn(shape) for shape in shapes(options)]
    left = options.rows * options.draws
    noise = torch.randn(min(AT_ONCE, left), len(weights[0]))
    for first in range(0, left, AT_ONCE):
        z = noise[: min(AT_ONCE, left - first)]
        for weight in weights:
            z = torch.mm(z, weight)


def warmed(vae: pv.VAE, x: torch.Tensor, options: argparse.Namespace) -> tuple[Callable[[], object], float]:
    """Evidence of all rows by a sampler that has compiled its chunk already, and how long that took."""
    sampler = Importance(options.draws, compiled=True).build_sampler(vae)
    batches = [{"x": part} for part in x.split(options.batch_size)]

    def whole() -> None:
        with torch.no_grad(), vae.no_param_store():
            for batch in batches:
                weights = sampler(batch)
                weights.estimate()
                weights.pareto_k()

    with torch.no_grad(), vae.no_param_store():
        return whole, timed(lambda: sampler(batches[0]))


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory(folder: Path, draws: int, batch_size: int) -> float:
    """The peak beyond the start of a fresh process, in MB."""
    words = [sys.executable, __file__, "--child", str(folder), "--draws", str(draws), "--batch_size", str(batch_size)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["megabytes"])


def child(options: argparse.Namespace) -> None:
    """Measure evidence in this process, and say how far its peak lies over what it held before."""
    vae, x = pv.load(options.child / "run"), torch.from_numpy(np.load(options.child / "x.npy"))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far; getrusage's is that of the parent too
    before = resident("VmRSS")
    pv.evidence(vae, x, method=Importance(options.draws), batch_size=options.batch_size, progress=False)
    print(json.dumps({"megabytes": resident("VmHWM") - before}))


def main() -> None:
    """Time both in turn, then measure memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=None)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(options)
        return
    with tempfile.TemporaryDirectory() as name:
        vae, x = fitted(options, Path(name))
        pv.evidence(vae, x[:2], method=Importance(30), progress=False)  # imports what it needs
        compiled, seconds = warmed(vae, x, options)
        print(f"compiling took {seconds:.0f} s, once; it is not in what follows")
        ratios: dict[str, list[float]] = {"eager": [], "compiled": []}
        for _ in range(options.rounds):
            alone = timed(lambda: products(options))
            whole = {
                "eager": timed(
                    lambda: pv.evidence(
                        vae, x, method=Importance(options.draws), batch_size=options.batch_size, progress=False
                    )
                ),
                "compiled": timed(compiled),
            }
            for how, took in whole.items():
                ratios[how].append(took / alone)
            print(f"matrix products {alone:.1f} s", *(f"{how} {took:.1f} s" for how, took in whole.items()), sep=", ")
        for how, found in ratios.items():
            print(
                f"{options.network}, {options.rows} rows, {options.draws} draws, float32, {torch.get_num_threads()} "
                f"threads, {how}: ratio {statistics.median(found):.2f}, median of {options.rounds} "
                f"({min(found):.2f} to {max(found):.2f}; target {TARGETS[how]})"
            )
        for draws in (500, 5000):
            print(
                f"peak memory with {draws} draws: {memory(Path(name), draws, options.batch_size):.0f} MB (target 1000)"
            )


if __name__ == "__main__":
    main()
