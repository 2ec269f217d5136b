"""Log-densities to as many digits as mpmath is told, of one event and parameters as its numbers, or nested lists."""

from typing import Any

import mpmath
from mpmath import mpf


def normal(x: Any, loc: Any, scale: Any) -> Any:
    return -(((x - loc) / scale) ** 2) / 2 - mpmath.log(scale * mpmath.sqrt(2 * mpmath.pi))


def laplace(x: Any, loc: Any, scale: Any) -> Any:
    return -abs(x - loc) / scale - mpmath.log(2 * scale)


def student(x: Any, df: Any, loc: Any, scale: Any) -> Any:
    shares = (df + 1) / 2 * mpmath.log1p(((x - loc) / scale) ** 2 / df)
    constant = mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2) - mpmath.log(df * mpmath.pi) / 2
    return constant - mpmath.log(scale) - shares


def logistic(x: Any, loc: Any, scale: Any) -> Any:
    u = abs(x - loc) / scale
    return -u - mpmath.log(scale) - 2 * mpmath.log1p(mpmath.exp(-u))


def cauchy(x: Any, loc: Any, scale: Any) -> Any:
    return -mpmath.log(mpmath.pi * scale) - mpmath.log1p(((x - loc) / scale) ** 2)


def asymmetric_laplace(x: Any, loc: Any, scale: Any, asymmetry: Any) -> Any:
    tail = asymmetry if x >= loc else 1 / asymmetry
    return -abs(x - loc) * tail / scale - mpmath.log(scale * (asymmetry + 1 / asymmetry))


def gamma(x: Any, concentration: Any, rate: Any) -> Any:
    logs = concentration * mpmath.log(rate) + (concentration - 1) * mpmath.log(x)
    return logs - rate * x - mpmath.loggamma(concentration)


def weibull(x: Any, scale: Any, concentration: Any) -> Any:
    u = mpmath.log(x / scale)
    return mpmath.log(concentration / scale) + (concentration - 1) * u - mpmath.exp(concentration * u)


def log_beta(*parts: Any) -> Any:
    return mpmath.fsum(mpmath.loggamma(part) for part in parts) - mpmath.loggamma(mpmath.fsum(parts))


def beta(x: Any, a: Any, b: Any) -> Any:
    return (a - 1) * mpmath.log(x) + (b - 1) * mpmath.log1p(-x) - log_beta(a, b)


def logit_normal(x: Any, loc: Any, scale: Any) -> Any:
    return normal(mpmath.log(x) - mpmath.log1p(-x), loc, scale) - mpmath.log(x) - mpmath.log1p(-x)


def continuous_bernoulli(x: Any, logits: Any) -> Any:
    return logits * x - (mpmath.log(mpmath.expm1(logits) / logits) if logits else 0)


def von_mises(x: Any, loc: Any, concentration: Any) -> Any:
    return concentration * mpmath.cos(x - loc) - mpmath.log(2 * mpmath.pi * mpmath.besseli(0, concentration))


def log_sigmoid(logit: Any) -> Any:
    return -mpmath.log1p(mpmath.exp(-logit))


def bernoulli(x: Any, logits: Any) -> Any:
    return x * log_sigmoid(logits) + (1 - x) * log_sigmoid(-logits)


def phi(x: Any) -> Any:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def truncated(x: Any, loc: Any, scale: Any) -> Any:
    low, high = (mpf(-1) - loc) / scale, (mpf(2) - loc) / scale
    mass = phi(high) - phi(low) if low < 0 else phi(-low) - phi(-high)
    return normal(x, loc, scale) - mpmath.log(mass)


def censored(x: Any, loc: Any, scale: Any) -> Any:
    if x <= -1:
        return mpmath.log(phi((mpf(-1) - loc) / scale))
    return mpmath.log(phi((loc - mpf(2)) / scale)) if x >= 2 else normal(x, loc, scale)


def zero_inflated(x: Any, gate_logits: Any, rate: Any) -> Any:
    counted = log_sigmoid(-gate_logits) + x * mpmath.log(rate) - rate - mpmath.loggamma(x + 1)
    return counted if x else mpmath.log(mpmath.exp(log_sigmoid(gate_logits)) + mpmath.exp(counted))


def log_shares(logits: list[Any]) -> list[Any]:
    total = mpmath.log(mpmath.fsum(mpmath.exp(logit) for logit in logits))
    return [logit - total for logit in logits]


def categorical(x: Any, logits: list[Any]) -> Any:
    return log_shares(logits)[int(x)]


def one_hot(x: list[Any], logits: list[Any]) -> Any:
    return mpmath.fsum(each * share for each, share in zip(x, log_shares(logits), strict=True))


def sigmoid(logit: Any) -> Any:
    return 1 / (1 + mpmath.exp(-logit))


def ordered(x: Any, predictor: Any, cutpoints: list[Any]) -> Any:
    ends = [mpf(0), *(sigmoid(cut - predictor) for cut in cutpoints), mpf(1)]
    return mpmath.log(ends[int(x) + 1] - ends[int(x)])


def pixels(x: Any, logits: list[Any], loc: list[Any], scale: list[Any]) -> Any:
    at, half, terms = 2 * x / 15 - 1, mpf(1) / 15, []
    for share, m, s in zip(log_shares(logits), loc, scale, strict=True):
        upper = sigmoid((at + half - m) / s) if x < 15 else mpf(1)
        lower = sigmoid((at - half - m) / s) if x > 0 else mpf(0)
        terms.append(mpmath.exp(share) * (upper - lower))
    return mpmath.log(mpmath.fsum(terms))


def dirichlet(x: list[Any], concentration: list[Any]) -> Any:
    return mpmath.fsum((a - 1) * mpmath.log(s) for a, s in zip(concentration, x, strict=True)) - log_beta(
        *concentration
    )


def logistic_normal(x: list[Any], loc: list[Any], scale: list[Any]) -> Any:
    found, size = mpf(0), len(x)
    for d, (m, s) in enumerate(zip(loc, scale, strict=True)):
        rest, here = mpmath.fsum(x[d + 1 :]), x[d]
        y = mpmath.log(here / rest) + mpmath.log(size - d - 1)
        left = here + rest  # what is broken off is a share of it: dx = left * sigmoid'(y) dy
        found += normal(y, m, s) - mpmath.log(here * rest / left)
    return found


def multivariate(x: list[Any], loc: list[Any], covariance: Any) -> Any:
    off = mpmath.matrix([a - b for a, b in zip(x, loc, strict=True)])
    distance = (off.T * mpmath.lu_solve(covariance, off))[0]
    return -(distance + mpmath.log(mpmath.det(covariance)) + len(x) * mpmath.log(2 * mpmath.pi)) / 2


def full_rank(x: list[Any], loc: list[Any], scale_tril: list[list[Any]]) -> Any:
    lower = mpmath.matrix([[v if j <= i else 0 for j, v in enumerate(row)] for i, row in enumerate(scale_tril)])
    return multivariate(x, loc, lower * lower.T)


def low_rank(x: list[Any], loc: list[Any], cov_factor: list[list[Any]], cov_diag: list[Any]) -> Any:
    factor = mpmath.matrix(cov_factor)
    return multivariate(x, loc, factor * factor.T + mpmath.diag(cov_diag))


def mixture(x: Any, weights: list[Any], loc: list[Any], scale: list[Any]) -> Any:
    parts = zip(log_shares(weights), loc, scale, strict=True)
    return mpmath.log(mpmath.fsum(mpmath.exp(share + normal(x, m, s)) for share, m, s in parts))
