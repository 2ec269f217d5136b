"""Log-probabilities of counts up to 1e7, and their gradients, against mpmath at extreme but legal parameters."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch

from pyro_vae.distributions.counts import (
    ExactNegativeBinomial,
    ExactPoisson,
    UnexpandedBetaBinomial,
    UnexpandedBinomial,
)

mpmath.mp.dps = 50
MEANS = (1e-4, 0.1, 1.0, 30.0, 1e3, 1e5, 1e7)
TRIALS = (1.0, 5.0, 100.0, 1e5, 1e7)


def poisson(x: Any, mean: Any) -> Any:
    return x * mpmath.log(mean) - mean - mpmath.loggamma(x + 1)


def negative_binomial(x: Any, mean: Any, dispersion: Any) -> Any:
    r = 1 / dispersion
    shares = r * mpmath.log1p(mean / r) + x * mpmath.log1p(r / mean)
    return mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1) - shares


def choose(n: Any, x: Any) -> Any:
    return mpmath.loggamma(n + 1) - mpmath.loggamma(x + 1) - mpmath.loggamma(n - x + 1)


def binomial(x: Any, n: Any, logits: Any) -> Any:
    return choose(n, x) - x * mpmath.log1p(mpmath.exp(-logits)) - (n - x) * mpmath.log1p(mpmath.exp(logits))


def log_beta(a: Any, b: Any) -> Any:
    return mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)


def beta_binomial(x: Any, n: Any, a: Any, b: Any) -> Any:
    return choose(n, x) + log_beta(x + a, n - x + b) - log_beta(a, b)


def counts_about(mean: float, most: float = math.inf) -> list[float]:
    about = [0.0, 1.0, 7.0, *(float(round(mean * share)) for share in (0.5, 0.99, 1.0, 1.001, 1.5, 3.0)), most]
    return sorted({x for x in about if x <= most and math.isfinite(x)})


def require_exact(
    made: Callable[..., Any], exact: Callable[..., Any], x: float, values: tuple[float, ...], dtype: torch.dtype
) -> None:
    """Within 1e-5 relative or 1e-3 nats; gradients by log parameters within 1e-4 relative, or what rounding leaves."""
    given = [torch.tensor(value, dtype=dtype).requires_grad_() for value in values]
    at = [mpmath.mpf(value.item()) for value in given]
    found = made(*given).log_prob(torch.tensor(x, dtype=dtype))
    right = float(exact(mpmath.mpf(x), *at))
    assert found.item() == pytest.approx(right, rel=1e-5, abs=1e-3), (x, values)
    rounding = 2 * torch.finfo(dtype).eps * max(x, *values, 1.0)  # of a mean: what its gradient cannot tell
    for i, gradient in enumerate(torch.autograd.grad(found, given)):
        slope = mpmath.diff(lambda value, i=i: exact(mpmath.mpf(x), *at[:i], value, *at[i + 1 :]), at[i])
        scale = abs(values[i]) or 1.0
        assert gradient.item() * scale == pytest.approx(float(slope) * scale, rel=1e-4, abs=1e-3 + rounding), (
            x,
            values,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", MEANS)
def test_poisson_is_exact(mean: float, dtype: torch.dtype) -> None:
    for x in counts_about(mean):
        require_exact(lambda m: ExactPoisson(m, validate_args=False), poisson, x, (mean,), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dispersion", [1e-3, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("mean", MEANS)
def test_negative_binomial_is_exact(mean: float, dispersion: float, dtype: torch.dtype) -> None:
    for x in counts_about(mean):
        values = mean, dispersion
        require_exact(
            lambda m, a: ExactNegativeBinomial(m, a, validate_args=False), negative_binomial, x, values, dtype
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logits", [-12.0, -3.0, 0.0, 0.5, 9.0])
@pytest.mark.parametrize("n", TRIALS)
def test_binomial_is_exact(n: float, logits: float, dtype: torch.dtype) -> None:
    trials = torch.tensor(n, dtype=dtype)
    for x in counts_about(n / (1 + math.exp(-logits)), n):
        require_exact(
            lambda odds: UnexpandedBinomial(trials, odds, validate_args=False),
            lambda x, odds: binomial(x, mpmath.mpf(n), odds),
            x,
            (logits,),
            dtype,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [(1e-2, 1e-2), (1.0, 2.0), (30.0, 1e3), (1e3, 1e3), (1e-2, 1e3)])
@pytest.mark.parametrize("n", TRIALS)
def test_beta_binomial_is_exact(n: float, values: tuple[float, float], dtype: torch.dtype) -> None:
    trials = torch.tensor(n, dtype=dtype)
    for x in counts_about(n * values[0] / sum(values), n):
        require_exact(
            lambda a, b: UnexpandedBetaBinomial(trials, a, b, validate_args=False),
            lambda x, a, b: beta_binomial(x, mpmath.mpf(n), a, b),
            x,
            values,
            dtype,
        )
