"""What a predictive check costs against decoding and drawing alone, and its memory.

Run: python benchmarks/check.py --root ../shared/data [--rows 10000] [--draws 100]

MNIST test rows under static binarisation, 784-400-20, Bernoulli, float32. "Alone" draws as many replicates of as many
rows by the same decoder and throws them away; both are timed in turn, so that a busy machine slows down both. Memory is
the largest that a fresh process holds beyond what it held before, the data on the way included (Linux). The targets are
1.3 and 1 GB.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from evidence import timed
from processes import resident

import pyro_vae as pv
from pyro_vae.criticism.methods import base

PIXELS = 784


def alone(vae: pv.VAE, rows: int, draws: int) -> None:
    """Decode and draw, in batches of the size that checks take."""
    size = base.MAX_ELEMENTS // PIXELS
    with torch.no_grad():
        for _ in range(draws):
            for start in range(0, rows, size):
                vae.decode(vae.prior().sample((min(size, rows - start),))).sample()


def looked(vae: pv.VAE, rows: pv.data.Rows, draws: int, two_sample: bool) -> None:
    """Check."""
    pv.predictive_check(vae, rows, draws=draws, two_sample=two_sample, progress=False)


def data(options: argparse.Namespace) -> pv.data.Dataset:
    """MNIST, static."""
    return pv.data.load("mnist", root=options.root, binarize="static", validation=0)


def first(rows: pv.data.Rows, count: int) -> pv.data.Rows:
    """The first rows."""
    return pv.data.Rows(rows.batch(slice(count)))


def main() -> None:
    """Time both in turn, then measure memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=None)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        vae, rows = pv.load(options.child), first(data(options).test, options.rows)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = resident("VmRSS")
        looked(vae, rows, options.draws, True)
        print(json.dumps({"megabytes": resident("VmHWM") - before}))
        return
    with tempfile.TemporaryDirectory() as name:
        mnist = data(options)
        torch.manual_seed(0)
        vae = pv.VAE((1, 28, 28), 20, likelihood=pv.Bernoulli(), encoder=pv.MLP(hidden=(400,)))
        pv.fit(vae, mnist.train, epochs=options.epochs, run=Path(name) / "run", progress=False)
        rows = first(mnist.test, options.rows)
        looked(vae, first(rows, 100), 2, True)  # imports what it needs
        ratios: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(options.rounds):
            by_hand = timed(lambda: alone(vae, options.rows, options.draws))
            took = {two: timed(lambda two=two: looked(vae, rows, options.draws, two)) for two in ratios}
            for two, seconds in took.items():
                ratios[two].append(seconds / by_hand)
            print(f"alone {by_hand:.1f} s, check {took[False]:.1f} s, with two-sample tests {took[True]:.1f} s")
        for two, found in ratios.items():
            print(
                f"{options.rows} rows, {options.draws} replicates, {torch.get_num_threads()} threads, "
                f"{'with' if two else 'without'} two-sample tests: ratio {statistics.median(found):.2f}, median of "
                f"{options.rounds} ({min(found):.2f} to {max(found):.2f}; target 1.3)"
            )
        for draws in (20, options.draws):
            words = [sys.executable, __file__, "--child", str(Path(name) / "run"), "--draws", str(draws)]
            words += ["--rows", str(options.rows), *(["--root", options.root] if options.root else [])]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            print(f"peak memory with {draws} replicates: {json.loads(done.stdout)['megabytes']:.0f} MB (target 1000)")


if __name__ == "__main__":
    main()
