"""Start-up: seconds until a VAE is declared beside those of torch and Pyro alone, and of the help beside Python's own.

    python benchmarks/startup.py [--rounds 10]

Processes alternate, after one round that only warms the file system's cache; each ratio is of one pair.
"""

import argparse
import statistics
import subprocess
import sys
import time

PAIRS = {
    "pv.VAE((3,), 2) / torch and pyro": ("import pyro_vae as pv; pv.VAE((3,), 2)", "import torch, pyro"),
    "pyro-vae --help - python": ("from pyro_vae.cli import main; main(['--help'])", "pass"),
}
"""What is timed, and what it is timed beside."""


def seconds(code: str) -> float:
    """Wall-clock seconds of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    for title, (ours, other) in PAIRS.items():
        seconds(ours)
        seconds(other)
        pairs = [(seconds(ours), seconds(other)) for _ in range(rounds)]
        found = [one - two if " - " in title else one / two for one, two in pairs]
        unit = " s" if " - " in title else ""
        spans = ", ".join(f"{statistics.median(column):.2f} s" for column in zip(*pairs, strict=True))
        print(
            f"{title}: median {statistics.median(found):.2f}{unit} "
            f"({min(found):.2f} to {max(found):.2f}), {rounds} pairs; medians {spans}"
        )


if __name__ == "__main__":
    main()
