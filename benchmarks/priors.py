"""Priors on the handwritten digits: log evidence of held-out images, paired with that under N(0, 1).

Run: python benchmarks/priors.py [--seeds 0 1 2] [--epochs 200] [--latents 8] [--draws 1000]

One split of the 8x8 digits: 1,258 rows to train on, 180 to see whether training is over, 359 to test on. Bernoulli
pixels, binarised anew for every batch, which keeps the network from learning the rows by heart; the test rows are
binarised once. For one seed all priors have the same network, starting weights and shuffles, and all of a prior's
numbers are on the same test rows, so a difference to N(0, 1) is paired row by row. The log evidence of a row is the log
mean of K importance weights p(x, z) / q(z|x), in expectation a little too low; the effective sample size says how far
to trust it.
"""

import argparse
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import pyro_vae as pv

PRIORS = {
    "N(0, 1)": pv.Normal(0, 1),
    "VampPrior, 50": pv.VampPrior(components=50),
    "Flow, realnvp": pv.Flow("realnvp"),
    "Flow, nsf": pv.Flow("nsf", hidden=(32, 32)),
    "Mixture, 50": pv.Mixture(pv.Normal(), components=50),
    "Aggregate, 10": pv.Aggregate(pv.Mixture(pv.MultivariateNormal(), components=10)),
}
ROWS = 20
"""Test rows weighed at once: memory is that many times K images."""


@dataclass(frozen=True)
class Result:
    """One fit.

    Args:
        evidence: log p(x) of the test rows, (N,), in nats.
        bound: the mean ELBO of the test rows.
        share: the median effective sample size of the importance weights, over K.
        gain: by how much the mean validation bound of the last quarter of training is above that of the one before.
        seconds: wall time of the fit.
    """

    evidence: Tensor
    bound: float
    share: float
    gain: float
    seconds: float


@torch.no_grad()
def weigh(vae: pv.VAE, x: Tensor, draws: int) -> Tensor:
    """Log importance weights of rows x at draws from the guide, (K, N), in float64."""
    torch.manual_seed(0)
    objective = pv.objectives.ELBO(particles=draws)
    return torch.cat([objective.draw(vae.model, vae.guide, part).log_weights for part in x.split(ROWS)], 1).double()


def run(vae: pv.VAE, data: pv.data.Dataset, test: Tensor, seed: int, epochs: int, draws: int) -> Result:
    """Fit and weigh one model."""
    start = time.perf_counter()
    history = pv.fit(
        vae,
        data.train,
        validation=data.validation,
        optimizer=pv.Adam(2e-3),
        epochs=epochs,
        batch_size=256,
        seed=seed,
        progress=False,
    )
    seconds = time.perf_counter() - start
    weights = weigh(vae, test, draws)
    size = (2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp()
    quarter = max(epochs // 4, 1)
    curve = -history["validation_loss"]
    return Result(
        evidence=weights.logsumexp(0) - math.log(draws),
        bound=float(weights.mean()),
        share=float(size.median()) / draws,
        gain=float(curve[-quarter:].mean() - curve[-2 * quarter : -quarter].mean()),
        seconds=seconds,
    )


def with_error(rows: Tensor) -> str:
    """A mean over rows and its standard error."""
    return f"{float(rows.mean()):+.3f} ± {float(rows.std() / len(rows) ** 0.5):.3f}"


def main() -> None:
    """Fit every prior for every seed, and print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--latents", type=int, default=8)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    split = {"validation": 0.1, "test": 0.2, "seed": 0}
    data = pv.data.load("digits", binarize="dynamic", **split)
    test = pv.data.load("digits", binarize="static", **split).test.x
    results: dict[str, list[Result]] = {name: [] for name in PRIORS}
    for seed in options.seeds:
        torch.manual_seed(seed)
        network = pv.MLP(hidden=(256,))
        first = pv.VAE(data.event_shape, options.latents, likelihood=pv.Bernoulli(), encoder=network)
        for name, prior in PRIORS.items():
            torch.manual_seed(seed)
            result = run(first.replace(prior=prior), data, test, seed, options.epochs, options.draws)
            results[name].append(result)
            print(
                f"seed {seed}, {name}: log evidence {with_error(result.evidence)}, ELBO {result.bound:.3f}, effective "
                f"share {result.share:.0%}, last quarter {result.gain:+.3f} ({result.seconds:.0f} s)",
                flush=True,
            )
    reference = torch.stack([result.evidence for result in results["N(0, 1)"]])
    print(
        f"\n{options.latents} latents, {len(test)} test rows, K = {options.draws}, seeds {options.seeds}, nats per row;"
    )
    print(
        "errors over rows, of the mean over seeds; the bound's gain in the last quarter of training on validation rows"
    )
    print("\n| prior | log evidence | minus N(0, 1), paired | by seed | ELBO | effective share | last quarter |")
    print("|---|---|---|---|---|---|---|")
    for name, found in results.items():
        evidence = torch.stack([result.evidence for result in found])
        gap = evidence - reference
        seeds = ", ".join(f"{float(value):+.2f}" for value in gap.mean(1))
        bound, share, gain = (sum(getattr(r, f) for r in found) / len(found) for f in ("bound", "share", "gain"))
        difference = "" if name == "N(0, 1)" else with_error(gap.mean(0))
        print(
            f"| {name} | {with_error(evidence.mean(0))} | {difference} | {seeds if difference else ''} | {bound:.3f} "
            f"| {share:.0%} | {gain:+.3f} |"
        )


if __name__ == "__main__":
    main()
