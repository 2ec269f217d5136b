"""A museum of NaNs: settings in which VAEs are known to end with a loss that is NaN, and what has to happen here.

Each exhibit trains to a finite, sensible value, which it states, or is refused or stopped with a sentence whose advice,
followed, makes it train. `tests/test_nan_museum.py` visits all of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.stats
import torch

import pyro_vae as pv

N = 200
LOADINGS = np.array([0.9, -0.8, 0.6])
"""Of one factor that all three columns share, each with a variance of 1."""


@dataclass(frozen=True)
class Exhibit:
    """A setting.

    Args:
        data: the rows.
        likelihood: the family.
        options: arguments of `fit` other than epochs.
        model: further arguments of the VAE.
        limit: the largest loss per row that is sensible after training; None where it is refused.
        says: words of the sentence of the refusal.
        mended: the same exhibit after its advice; None where it trains as it is.
        warns: whether that sentence is a warning, and training goes on.
    """

    data: Callable[[], Any]
    likelihood: Any = field(default_factory=lambda: pv.Normal(scale="per_feature"))
    options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    limit: float | None = None
    says: str = ""
    mended: "Exhibit | None" = None
    warns: bool = False


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def normal(scale: Any = 1.0, shift: Any = 0.0) -> np.ndarray:
    """Rows of one factor, in three columns."""
    generator = random()
    factor, noise = generator.normal(size=(N, 1)), generator.normal(size=(N, 3))
    return (factor * LOADINGS + noise * np.sqrt(1 - LOADINGS**2)) * scale + shift


def with_value(value: float) -> np.ndarray:
    x = normal()
    x[7, 1] = value
    return x


def counts(mean: float) -> np.ndarray:
    """Counts of one factor, in three columns."""
    generator = random()
    rates = mean * np.exp(generator.normal(size=(N, 1)) * LOADINGS)
    return generator.poisson(rates).astype(float)


def gaussian(scale: float = 1.0) -> float:
    """Half the way, in nats, from the entropy of three independent Gaussians to that of the factor's."""
    covariance = np.outer(LOADINGS, LOADINGS) + np.diag(1 - LOADINGS**2)
    factor = 0.5 * np.linalg.slogdet(covariance)[1]
    return float(3 * (0.5 * math.log(2 * math.pi * math.e) + math.log(scale)) + factor / 2)


def poisson(x: np.ndarray) -> float:
    """Mean of minus the log-probability of counts under independent Poisson distributions of their means, in nats."""
    return float(-scipy.stats.poisson.logpmf(x, x.mean(0)).sum(1).mean())


BINARY = (random().random((N, 4)) < 0.5).astype(float)
DEEP = pv.MLP(hidden=(64,) * 12)

MUSEUM: dict[str, Exhibit] = {
    # data
    "constant column": Exhibit(lambda: normal([1.0, 0.0, 1.0]), limit=gaussian()),
    "all columns constant": Exhibit(lambda: np.ones((N, 3)), limit=0.0),
    "zero-variance feature among images": Exhibit(
        lambda: np.pad(random().random((N, 1, 6, 6)), ((0, 0), (0, 0), (2, 2), (2, 2))), limit=0.0
    ),
    "unscaled inputs": Exhibit(lambda: normal([1.0, 1e4, 1e-3], [0.0, 1e6, 5.0]), limit=gaussian() + math.log(10.0)),
    "huge scale": Exhibit(lambda: normal(1e12), limit=gaussian(1e12)),
    "tiny scale": Exhibit(lambda: normal(1e-12), limit=gaussian(1e-12)),
    "square of the scale overflows": Exhibit(
        lambda: normal(1e25), says="in another unit", mended=Exhibit(lambda: normal(1e25) / 1e25, limit=gaussian())
    ),
    "offset that float32 rounds away": Exhibit(lambda: normal(1.0, 1e9), limit=gaussian()),
    "offset that float32 rounds away, under a family without a shift": Exhibit(
        lambda: np.exp(normal(1e-9, math.log(1e9))),
        pv.LogNormal(),
        says="such as `x - x.mean(axis=0)`",
        mended=Exhibit(lambda: (lambda x: x - x.mean(axis=0))(np.exp(normal(1e-9, math.log(1e9)))), limit=gaussian()),
    ),
    "NaN": Exhibit(
        lambda: with_value(math.nan),
        says="not finite",
        mended=Exhibit(lambda: with_value(math.nan)[np.isfinite(with_value(math.nan)).all(1)], limit=gaussian()),
    ),
    "NaN under a mask": Exhibit(
        lambda: {"x": with_value(math.nan), "mask": np.isfinite(with_value(math.nan))}, limit=gaussian()
    ),
    "infinity": Exhibit(
        lambda: with_value(math.inf),
        says="not finite",
        mended=Exhibit(lambda: with_value(math.inf)[np.isfinite(with_value(math.inf)).all(1)], limit=gaussian()),
    ),
    "one outlier of 1e6": Exhibit(lambda: with_value(1e6), limit=gaussian() + math.log(1e5)),
    "heavy tails": Exhibit(lambda: random().standard_cauchy((N, 3)), pv.StudentT(), limit=12.0),
    "one column": Exhibit(lambda: normal()[:, :1], limit=1.43),
    "batches of one row": Exhibit(lambda: normal(), options={"batch_size": 1, "epochs": 3}, limit=gaussian()),
    "infinity of float16": Exhibit(
        lambda: torch.tensor(1e5 * normal()).half(),
        says="float16 ends at 65,504",
        mended=Exhibit(lambda: (1e5 * normal()).astype("float32"), limit=gaussian(1e5)),
    ),
    "one row": Exhibit(
        lambda: normal()[:1], says="at least 2", mended=Exhibit(lambda: normal()[:2].repeat(20, 0), limit=1.2)
    ),
    "rows that are all the same": Exhibit(lambda: normal()[:1].repeat(N, 0), limit=0.0),
    "float16 data": Exhibit(lambda: normal().astype("float16"), limit=gaussian()),
    # counts
    "zero library size": Exhibit(
        lambda: {"x": counts(3.0), "size_factor": np.r_[0.0, np.ones(N - 1)]},
        pv.Poisson(),
        says="size_factor",
        mended=Exhibit(
            lambda: {"x": counts(3.0)[1:], "size_factor": np.ones(N - 1)}, pv.Poisson(), limit=poisson(counts(3.0))
        ),
    ),
    "library size of 1e-8": Exhibit(
        lambda: {"x": counts(3.0), "size_factor": np.r_[1e-8, np.ones(N - 1)]},
        pv.Poisson(),
        says="x.sum(1) / x.sum(1).mean()",
        mended=Exhibit(
            lambda: (lambda x: {"x": x, "size_factor": x.sum(1) / x.sum(1).mean()})(1 + counts(3.0)),
            pv.Poisson(),
            limit=7.5,
        ),
    ),
    "counts of 1e8": Exhibit(
        lambda: counts(1e8),
        pv.Poisson(),
        says="likelihood=pv.Normal()",
        mended=Exhibit(lambda: counts(1e8), pv.Normal(), limit=59.0),
    ),
    "counts of 3e6 with their own noise alone": Exhibit(
        lambda: random().poisson(3e6, (N, 3)).astype(float), pv.Poisson(), limit=27.0
    ),
    "all-zero rows": Exhibit(lambda: counts(1.0) * (np.arange(N) % 2)[:, None], pv.NegativeBinomial(), limit=3.25),
    "only zeros": Exhibit(lambda: np.zeros((N, 3)), pv.Poisson(), limit=0.01),
    "only zeros, negative binomial": Exhibit(lambda: np.zeros((N, 3)), pv.NegativeBinomial(), limit=0.01),
    "huge counts": Exhibit(
        lambda: random().negative_binomial(5, 5 / (5 + 1e5), (N, 3)).astype(float), pv.NegativeBinomial(), limit=36.5
    ),
    "zero-inflated counts": Exhibit(
        lambda: counts(5.0) * (random().random((N, 3)) < 0.2), pv.ZeroInflated(pv.NegativeBinomial()), limit=3.2
    ),
    "counts with fractions": Exhibit(
        lambda: np.log1p(counts(3.0)),
        pv.Poisson(),
        says="integers",
        mended=Exhibit(lambda: np.expm1(np.log1p(counts(3.0))).round(), pv.Poisson(), limit=poisson(counts(3.0))),
    ),
    # bounded and positive values
    "log of zero": Exhibit(
        lambda: np.maximum(normal(), 0.0),
        pv.LogNormal(),
        says="outside of the support of LogNormal",
        mended=Exhibit(
            lambda: (lambda x: x + x[x > 0].min() / 2)(np.maximum(normal(), 0.0)), pv.LogNormal(), limit=6.0
        ),
    ),
    "ends of the unit interval under Beta": Exhibit(
        lambda: BINARY,
        pv.Beta(),
        says="squeeze exact zeros and ones",
        mended=Exhibit(lambda: 0.001 + 0.998 * BINARY, pv.Beta(), limit=-10.0),
    ),
    "saturated Bernoulli": Exhibit(lambda: np.repeat([[0.0, 1.0, 0.0]], N, 0), pv.Bernoulli(), limit=0.05),
    "ends under the continuous Bernoulli": Exhibit(lambda: BINARY, pv.ContinuousBernoulli(), limit=0.0),
    "probability of a half under the continuous Bernoulli": Exhibit(
        lambda: np.full((N, 4), 0.5), pv.ContinuousBernoulli(), limit=0.1
    ),
    # labels
    "one-class column": Exhibit(lambda: np.zeros((N, 3)), pv.Categorical(3), limit=0.01),
    "empty category": Exhibit(lambda: (random().random((N, 3)) < 0.5).astype(float), pv.Categorical(5), limit=2.12),
    # scales
    "a learned scale without noise in the data": Exhibit(
        lambda: np.linspace(-1, 1, N)[:, None] * np.ones(3),
        pv.Normal(scale="learned"),
        {"epochs": 150, "optimizer": pv.Adam(0.02)},
        limit=-1.0,
    ),
    "a scale from the network": Exhibit(lambda: normal(), pv.Normal(), {"epochs": 60}, limit=gaussian()),
    "a fixed scale of 1e-6": Exhibit(
        lambda: normal(),
        pv.Normal(scale=1e-6),
        warns=True,
        says="scale='per_feature'",
        mended=Exhibit(lambda: normal(), pv.Normal(scale="per_feature"), limit=gaussian()),
    ),
    "a fixed scale of 1e-18": Exhibit(
        lambda: normal(),
        pv.Normal(scale=1e-18),
        says="scale='per_feature'",
        mended=Exhibit(lambda: normal(), pv.Normal(scale="per_feature"), limit=gaussian()),
    ),
    "a fixed scale in another unit": Exhibit(
        lambda: normal(1e5),
        pv.StudentT(scale=1.0),
        warns=True,
        says="scale='per_feature'",
        mended=Exhibit(lambda: normal(1e5), pv.StudentT(scale="per_feature"), limit=gaussian(1e5)),
    ),
    # training
    "learning rate of 0.1": Exhibit(lambda: normal(), options={"optimizer": pv.Adam(0.1)}, limit=gaussian()),
    "learning rate of 1e4": Exhibit(
        lambda: normal(),
        pv.Normal(),
        {"optimizer": pv.SGD(1e4)},
        says="learning rate",
        mended=Exhibit(lambda: normal(), pv.Normal(), {"optimizer": pv.Adam(lr=1e-4), "epochs": 300}, limit=4.6),
    ),
    "learning rate of 1": Exhibit(
        lambda: normal(),
        pv.Normal(),
        {"optimizer": pv.Adam(1.0)},
        warns=True,
        says="lower the learning rate, as in optimizer=pv.Adam(lr=1e-4)",
        mended=Exhibit(lambda: normal(), pv.Normal(), {"optimizer": pv.Adam(lr=1e-4), "epochs": 300}, limit=4.6),
    ),
    "twelve layers without normalisation": Exhibit(lambda: normal(), model={"encoder": DEEP}, limit=4.24),
    "beta of 0": Exhibit(
        lambda: normal(), options={"objective": pv.objectives.ELBO(beta=0.0), "epochs": 60}, limit=gaussian()
    ),
    "more latents than rows": Exhibit(lambda: normal(), model={"latent_dim": 300}, limit=5.0),
    "bf16-mixed": Exhibit(
        lambda: normal(),
        options={"runtime": pv.Runtime(accelerator="cpu", precision="bf16-mixed")},
        limit=gaussian(),
    ),
    "importance weights of 50 particles": Exhibit(
        lambda: normal(1e6), options={"objective": pv.objectives.IWAE(particles=50)}, limit=gaussian(1e6)
    ),
}
"""The exhibits by name."""


def train(exhibit: Exhibit) -> pv.History:
    """The history of an exhibit."""
    data = exhibit.data()
    x = data["x"] if isinstance(data, dict) else data
    arguments: dict[str, Any] = {"latent_dim": 2, **exhibit.model}
    if x.ndim == 2:
        arguments.setdefault("encoder", pv.MLP(hidden=(16,)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = pv.VAE(tuple(x.shape[1:]), likelihood=exhibit.likelihood, **arguments)
    return pv.fit(
        vae, data, progress=False, **{"epochs": 40, "batch_size": 50, "optimizer": pv.Adam(0.01), **exhibit.options}
    )
