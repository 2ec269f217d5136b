"""A file larger than memory: what training on it takes of memory and time, beside the same loop on data in memory.

Run: python benchmarks/stream.py --folder /somewhere/with/space --gigabytes 8. It writes an .npy of normal numbers,
drops it from the page cache, trains one pass over it in a process of its own (checks of all values before included),
and removes it. That process prints the peak of its memory: all that is resident, and the anonymous part of it, which
cannot be given back; pages of the file are not mapped. The same loop is then timed on the first rows in memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

FEATURES = 784


def write(file: Path, rows: int) -> None:
    """Write rows of normal numbers, some at a time, and drop them from the page cache."""
    generator = np.random.default_rng(0)
    with file.open("wb") as opened:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, FEATURES)}
        np.lib.format.write_array_header_1_0(opened, header)
        for start in range(0, rows, 10_000):
            generator.standard_normal((min(10_000, rows - start), FEATURES), np.float32).tofile(opened)
        opened.flush()
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory(what: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


class Watched(threading.Thread):
    """Looks at the anonymous memory of this process until it ends: the kernel keeps no peak of that."""

    peak = 0

    def run(self) -> None:
        """Look, every 20 ms."""
        while True:
            self.peak = max(self.peak, memory("RssAnon"))
            time.sleep(0.02)


def train(x: object, label: str, hidden: int, batch_size: int) -> None:
    """Fit to x, and print what it took."""
    import pyro_vae as pv

    before, watch, start = memory("VmRSS"), Watched(daemon=True), time.perf_counter()
    watch.start()
    rows = pv.data.as_data(x)
    vae = pv.VAE((FEATURES,), 20, encoder=pv.MLP(hidden=(hidden,)))
    history = pv.fit(vae, rows, epochs=1, batch_size=batch_size, progress=False)
    whole, epoch = time.perf_counter() - start, float(history["seconds"][-1])
    print(
        f"{label:<8}{len(rows):>10,} rows  {len(rows) / epoch:>8,.0f} rows/s  before the epoch {whole - epoch:5.1f} s  "
        f"epoch {epoch:6.1f} s  resident before {before / 1e6:,.0f} MB, peak {memory('VmHWM') / 1e6:,.0f} MB, "
        f"anonymous peak {watch.peak / 1e6:,.0f} MB",
        flush=True,
    )


def main() -> None:
    """Write the file, train in processes of their own, and remove it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default=None)
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--in_memory", type=float, default=0.5, help="gigabytes of it that the loop in memory gets")
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child is not None:
        kind, file, count = options.child.split(":")
        x = np.load(file, mmap_mode="r")[: int(count)]
        train(torch.from_numpy(np.array(x)) if kind == "memory" else x, kind, options.hidden, options.batch_size)
        return
    rows = int(options.gigabytes * 1e9 / 4 / FEATURES)
    few = min(rows, int(options.in_memory * 1e9 / 4 / FEATURES))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = Path(folder) / "x.npy"
        write(file, rows)
        print(f"{file.stat().st_size / 1e9:.1f} GB, {options.threads} threads, torch {torch.__version__}", flush=True)
        for child in (f"memory:{file}:{few}", f"stream:{file}:{few}", f"stream:{file}:{rows}"):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--child", child], check=True)


if __name__ == "__main__":
    main()
