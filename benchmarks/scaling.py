"""How the cost of `pv.fit` grows with rows, features, latents and particles.

Run: python benchmarks/scaling.py [--rounds 3] [--compile] [--picture scaling.png]

One number is varied at a time, on random data and in float32: rows (64 features, MLP(128), batches of 1,024; time of
an epoch), features (784 otherwise), latents D (20) and particles K (1; MLP(400), batches of 128; time of a step, the
median of several). Rounds go through all values in turn. The slope of log time against log value is fitted by least
squares to the largest four values, where what a step costs at least no longer counts, with a level for each round, for
a machine may be slower in one of them. A slope of 1 is linear growth, and over 1 by two standard errors more than that.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import pyro_vae as pv

STEPS, BATCH = 12, 128
LARGE = 4
"""How many of the largest values the slope is fitted to."""

Times = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Axis:
    """What is varied.

    Args:
        values: in ascending order.
        what: the cost that is measured.
        seconds: that cost at a value, given further options of `fit`.
    """

    values: tuple[int, ...]
    what: str
    seconds: Callable[..., float]


def of_a_step(features: int = 784, latents: int = 20, particles: int = 1, **options: Any) -> float:
    """Seconds of a step, the median of those of one epoch; the first two of them warm up."""
    vae = pv.VAE((features,), latents, encoder=pv.MLP(hidden=(400,)))
    stamps: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: stamps.append(time.perf_counter()))
    objective = pv.objectives.ELBO(particles=particles)
    try:
        x = torch.randn(STEPS * BATCH, features)
        pv.fit(vae, x, objective=objective, epochs=1, batch_size=BATCH, progress=False, **options)
    finally:
        hook.remove()
    return float(np.median(np.diff(stamps[1:])))


def of_an_epoch(rows: int, **options: Any) -> float:
    """Seconds of the second epoch."""
    vae = pv.VAE((64,), 20, encoder=pv.MLP(hidden=(128,)))
    history = pv.fit(vae, torch.randn(rows, 64), epochs=2, batch_size=1024, progress=False, **options)
    return float(history["seconds"][1])


AXES = {
    "rows": Axis(tuple(2**i for i in range(12, 19)), "an epoch", lambda n, **given: of_an_epoch(n, **given)),
    "features": Axis(tuple(2**i for i in range(7, 15)), "a step", lambda n, **given: of_a_step(features=n, **given)),
    "latents": Axis(tuple(2**i for i in range(4, 13)), "a step", lambda n, **given: of_a_step(latents=n, **given)),
    "particles": Axis(tuple(2**i for i in range(7)), "a step", lambda n, **given: of_a_step(particles=n, **given)),
}


@dataclass(frozen=True)
class Growth:
    """A power law, time = exp(offset) value^slope, at the large end."""

    slope: float
    error: float
    offset: float
    first: int
    last: int

    @classmethod
    def of(cls, times: Times) -> "Growth":
        """Fit it to the times of the largest values."""
        values = sorted(times)[-LARGE:]
        x, y = np.log(values)[:, None], np.log([times[value] for value in values])  # a column for each round
        across, up = x - x.mean(), y - y.mean(axis=0)
        slope = float((across * up).sum() / (across**2).sum() / y.shape[1])
        left = float(((up - slope * across) ** 2).sum()) / (y.size - y.shape[1] - 1)
        error = math.sqrt(left / float((across**2).sum()) / y.shape[1])
        return cls(slope, error, float(y.mean() - slope * x.mean()), values[0], values[-1])

    def sentence(self, name: str, what: str) -> str:
        """What it says."""
        more = self.slope > 1 + 2 * self.error
        less = self.slope < 1 - 2 * self.error
        how = "faster than linearly" if more else "more slowly than linearly" if less else "linearly"
        where = f"from {self.first:,} to {self.last:,}: slope {self.slope:.3f} +- {self.error:.3f}"
        return f"The time of {what} grows {how} in {name}, {where}."


def picture(found: Mapping[str, Times], file: str) -> None:
    """Draw time against value for each axis, with the line that was fitted."""
    from pyro_vae.plots._style import COLOURS, INK, figure, tidy

    drawn = figure(5.2)
    for axes, (name, times) in zip(drawn.subplots(2, 2).flat, found.items(), strict=False):
        values = np.array(sorted(times))
        growth = Growth.of(times)
        low, median, high = (np.array([f(times[v]) for v in values]) for f in (min, statistics.median, max))
        bars = (median - low, high - median)
        axes.errorbar(values, median, bars, fmt="o", ms=4, color=COLOURS[0], label="median, range", zorder=3)
        ends = np.array([growth.first, growth.last])
        label = f"slope {growth.slope:.2f} $\\pm$ {growth.error:.2f}"
        axes.plot(ends, math.exp(growth.offset) * ends**growth.slope, color=COLOURS[1], label=label)
        axes.plot(values, median[-1] * values / values[-1], ":", lw=1, color=INK, label="linear")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        tidy(axes, xlabel=name, ylabel=f"seconds of {AXES[name].what}")
        axes.set_ylim(bottom=low.min() / 2)
        axes.legend(fontsize=7, frameon=False)
    drawn.savefig(file)


def main() -> None:
    """Measure, and print tables, sentences and, if asked for, a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="pv.fit(..., compile=True)")
    parser.add_argument("--picture", default=None, help="a file to draw into, such as scaling.png")
    options = parser.parse_args()
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are 1 at least")
    torch.set_num_threads(options.threads)
    given = {"compile": True} if options.compile else {}
    of_an_epoch(2048)  # imports what it needs
    found: dict[str, dict[int, list[float]]] = {name: {v: [] for v in AXES[name].values} for name in options.axes}
    for _ in range(options.rounds):
        for name, times in found.items():
            for value, seconds in times.items():
                seconds.append(AXES[name].seconds(value, **given))
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds, compile={options.compile}")
    for name, times in found.items():
        print(f"\n| {name} | median ms of {AXES[name].what} | min to max |\n|---|---|---|")
        for value, seconds in times.items():
            low, median, high = (1e3 * f(seconds) for f in (min, statistics.median, max))
            print(f"| {value:,} | {median:.2f} | {low:.2f} to {high:.2f} |")
        print(f"\n{Growth.of(times).sentence(name, AXES[name].what)}")
    if options.picture:
        picture(found, options.picture)


if __name__ == "__main__":
    main()
