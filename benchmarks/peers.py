"""One epoch of MNIST through `pv.fit`, beside every peer: time, memory, and the time to two steps.

Run: python benchmarks/peers.py --root ../shared/data [--rounds 5] [--settings mlp-128 conv-1024] [--only NAME ...]
     python benchmarks/peers.py --random

The peers come with `pip install "pyro-vae[bench]"`; one that is not there, or fails, is a line that says why. All train
the same network on the same data with the same batch size, in float32: 784-400-20 or convolutions under a Gaussian
likelihood with one learned scale, where they can; what one computes instead is said beside it. `example` is the network
of Pyro's example script: 784-400-50, softplus, Bernoulli, batches of 256; that script's loop is the one over a
DataLoader of a tensor, and its tutorial's the one over pictures.

Each is a process of its own, and in each round they take turns by whole epochs; the first epoch, in which they compile
and warm up, does not count. Ratios are medians over rounds of the ratios within a round. The time to two steps
begins when everything is imported and the data lie in memory, with empty caches of compiled code. `--random` takes
random numbers of MNIST's shape: speed does not depend on what they are. `--rows` takes fewer rows; time per epoch is
scaled to 60,000 in any case, for only whole batches are trained on. With few rows `pv.fit` looks slower than it is, for
it evaluates up to 1,000 rows after each epoch, however short.
"""

import argparse
import contextlib
import importlib.metadata
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from contenders import (
    EPOCH,
    HAND,
    HAND_COMPILED,
    HAND_GRAPH,
    OURS,
    OURS_COMPILED,
    PEERS,
    PICTURES,
    PRODUCTS,
    PYTHAE,
    STEPS,
    SVI,
)
from processes import Contender, Gate, keep_to
from setting import Setting

ROWS = 60_000
LIBRARIES = ("torch", "pyro-ppl", "jax", "numpyro", "pythae", "scvi-tools")
SETTINGS = {
    "mlp-128": Setting("mlp", 128),
    "mlp-1024": Setting("mlp", 1024),
    "conv-128": Setting("conv", 128),
    "conv-1024": Setting("conv", 1024),
    "example": Setting("mlp", 256, latents=50, activation="softplus", likelihood="bernoulli"),
}
COLUMNS = (
    "one epoch of 60,000 rows",
    "median s",
    "min to max",
    "ms a step",
    "/ fit",
    "/ compiled",
    "two steps s",
    "peak MB",
    "of that, training",
    "computes instead",
)
IN_EXAMPLE = (OURS, OURS_COMPILED, HAND, HAND_COMPILED, HAND_GRAPH, STEPS, EPOCH, SVI, PICTURES, PRODUCTS)


@dataclass(frozen=True)
class Target:
    """A ratio of times that was promised: `over` takes at most, or at least, `bound` times as long as `under`."""

    over: str
    under: str
    bound: float
    least: bool = False

    def line(self, times: Mapping[str, Sequence[float]], failed: Mapping[str, str]) -> str:
        """What came of it, as a row of a table."""
        word = f"at {'least' if self.least else 'most'} {self.bound:g}"
        missing = next((name for name in (self.over, self.under) if not times.get(name)), None)
        if missing is not None:
            return f"| {self.over} / {self.under} | {word} | | not measured: {failed.get(missing, 'left out')} |"
        ratios = [a / b for a, b in zip(times[self.over], times[self.under], strict=True)]
        found = statistics.median(ratios)
        met = found >= self.bound if self.least else found <= self.bound
        spread = f"{found:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        return f"| {self.over} / {self.under} | {word} | {spread} | {'met' if met else '**missed**'} |"


TARGETS = {
    "mlp-128": [
        Target(OURS, HAND, 1.35),
        Target(OURS_COMPILED, HAND_COMPILED, 1.1),
        Target(OURS_COMPILED, HAND, 1.0),
        Target(OURS_COMPILED, STEPS, 1.0),
        Target(PYTHAE, OURS_COMPILED, 1.5, least=True),
        Target(OURS_COMPILED, PRODUCTS, 1.35),
    ],
    "example": [Target(SVI, OURS_COMPILED, 3.0, least=True), Target(PICTURES, OURS_COMPILED, 3.0, least=True)],
}
ON_A_GPU = [Target(OURS_COMPILED, HAND_GRAPH, 1.15)]


def entered(name: str, only: Sequence[str]) -> list[str]:
    """Who takes part in a setting."""
    known = IN_EXAMPLE if name == "example" else tuple(PEERS)
    return [peer for peer in known if (peer in only or not only) and SETTINGS[name].network in PEERS[peer].networks]


def measure(name: str, data: Path, options: argparse.Namespace) -> dict[str, Contender]:
    """Let everybody train, in turns."""
    running: dict[str, Contender] = {}
    with contextlib.ExitStack() as stack:
        for peer in entered(name, options.only):
            words = [sys.executable, __file__, "--child", peer, "--settings", name, "--data", str(data)]
            words += ["--threads", str(options.threads), "--device", options.device]
            running[peer] = Contender(words, options.threads, options.patience)
            stack.callback(running[peer].close)
        for turn in range(options.rounds + 1):
            for peer, contender in running.items():
                contender.turn()
                last = contender.failed or f"{contender.rounds[-1]:.2f} s"
                print(f"{name}, round {turn} of {options.rounds}, {peer}: {last}", file=sys.stderr, flush=True)
    return running


def report(name: str, found: Mapping[str, Contender], rows: int, device: str) -> None:
    """Print the table of a setting, and what came of its targets."""
    setting = SETTINGS[name]
    steps, scale = rows // setting.batch, ROWS / (rows // setting.batch * setting.batch)
    times = {peer: [scale * t for t in one.rounds[1:]] for peer, one in found.items() if not one.failed}
    failed = {peer: one.failed for peer, one in found.items() if one.failed}
    print(f"\n### {name}: {setting.network}, D = {setting.latents}, {setting.likelihood}, batch {setting.batch}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{len(COLUMNS) * '---|'}")
    for peer, one in found.items():
        if one.failed:
            print(f"| {peer} | not measured: {one.failed} |{(len(COLUMNS) - 2) * ' |'}")
            continue
        median = statistics.median(times[peer])
        ratios = [_ratio(times[peer], times.get(mine)) for mine in (OURS, OURS_COMPILED)]
        print(
            f"| {peer} | {median:.2f} | {min(times[peer]):.2f} to {max(times[peer]):.2f} | "
            f"{1e3 * median / scale / steps:.2f} | {' | '.join(ratios)} | {one.first:.2f} | {one.peak:.0f} | "
            f"{one.peak - one.before:.0f} | {PEERS[peer].instead} |"
        )
    targets = TARGETS.get(name, []) + (ON_A_GPU if device == "cuda" else [])
    if targets:
        print("\n| times | target | median ratio (min to max) | |\n|---|---|---|---|")
        print("\n".join(target.line(times, failed) for target in targets))


def _ratio(times: Sequence[float], ours: Sequence[float] | None) -> str:
    return f"{statistics.median(a / b for a, b in zip(times, ours, strict=True)):.2f}" if ours else ""


def images(options: argparse.Namespace) -> np.ndarray:
    """MNIST's training images (rows, 28, 28) in 0 ... 255, or random numbers of that shape."""
    if options.random:
        return np.random.default_rng(0).integers(0, 256, (options.rows, 28, 28), dtype=np.uint8)
    import pyro_vae as pv

    x = pv.data.load("mnist", root=options.root, validation=0).train.x[: options.rows, 0]
    return (255 * x).round().byte().numpy()


def child(options: argparse.Namespace) -> None:
    """Take part, as one of them."""
    keep_to(options.threads)
    setting = replace(SETTINGS[options.settings[0]], device=options.device)
    x = np.load(options.data)
    x = x[: len(x) // setting.batch * setting.batch]
    gate = Gate(len(x) // setting.batch)
    try:
        PEERS[options.child].train(setting, x, gate)
        raise RuntimeError("it ended by itself, without a step for each batch")
    except BaseException as error:
        gate.fail(error)


def versions() -> str:
    """Of everything that takes part."""
    found = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def main() -> None:
    """Measure every setting in turn, and print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=None, help="the folder that holds MNIST/")
    parser.add_argument("--random", action="store_true", help="random numbers in place of MNIST")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--only", nargs="+", choices=PEERS, default=[], metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=900, help="seconds that an epoch may take")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--child", choices=PEERS, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(options)
        return
    largest = max(SETTINGS[name].batch for name in options.settings)
    if not largest <= options.rows <= ROWS or options.rounds < 1 or options.threads < 1:
        parser.error(f"--rows lies in {largest} ... {ROWS} (a batch is {largest}), --rounds and --threads from 1 on")
    if options.random == (options.root is not None):
        parser.error("give --root, the folder that holds MNIST/, or --random")
    x = images(options)
    what = "random numbers of MNIST's shape" if options.random else "MNIST"
    how = f"{options.rounds} rounds, {options.threads} threads, {options.device}"
    print(f"{what}, {len(x):,} rows, {how}; {versions()}")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "x.npy"
        np.save(data, x)
        for name in options.settings:
            report(name, measure(name, data, options), len(x), options.device)


if __name__ == "__main__":
    main()
