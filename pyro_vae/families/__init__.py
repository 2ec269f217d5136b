"""WHAT distribution: every family, by name."""

from pyro_vae.distributions import constraints as constraints
from pyro_vae.families.base import Family, Source, parameter
from pyro_vae.families.categorical import Bernoulli, Categorical, OneHot, OrderedLogistic
from pyro_vae.families.counts import BetaBinomial, Binomial, NegativeBinomial, Poisson
from pyro_vae.families.directional import VonMises
from pyro_vae.families.flow import Flow
from pyro_vae.families.location_scale import AsymmetricLaplace, Cauchy, Laplace, Logistic, StudentT
from pyro_vae.families.mixture import Mixture
from pyro_vae.families.normal import LowRankNormal, MultivariateNormal, Normal
from pyro_vae.families.pixels import DiscretizedLogistic
from pyro_vae.families.positive import Exponential, Gamma, LogNormal, Weibull
from pyro_vae.families.priors import Aggregate, VampPrior
from pyro_vae.families.simplex import Dirichlet, LogisticNormal
from pyro_vae.families.transformed import Scaled, Transformed
from pyro_vae.families.truncated import Censored, Truncated
from pyro_vae.families.unit import Beta, ContinuousBernoulli, LogitNormal
from pyro_vae.families.zero_inflated import ZeroInflated

FAMILIES: dict[str, type[Family]] = {
    "Normal": Normal,
    "Laplace": Laplace,
    "Logistic": Logistic,
    "StudentT": StudentT,
    "Cauchy": Cauchy,
    "AsymmetricLaplace": AsymmetricLaplace,
    "MultivariateNormal": MultivariateNormal,
    "LowRankNormal": LowRankNormal,
    "Gamma": Gamma,
    "LogNormal": LogNormal,
    "Exponential": Exponential,
    "Weibull": Weibull,
    "Bernoulli": Bernoulli,
    "ContinuousBernoulli": ContinuousBernoulli,
    "Beta": Beta,
    "LogitNormal": LogitNormal,
    "VonMises": VonMises,
    "Dirichlet": Dirichlet,
    "LogisticNormal": LogisticNormal,
    "Categorical": Categorical,
    "OrderedLogistic": OrderedLogistic,
    "OneHot": OneHot,
    "DiscretizedLogistic": DiscretizedLogistic,
    "Poisson": Poisson,
    "NegativeBinomial": NegativeBinomial,
    "Binomial": Binomial,
    "BetaBinomial": BetaBinomial,
    "ZeroInflated": ZeroInflated,
    "Mixture": Mixture,
    "Flow": Flow,
    "VampPrior": VampPrior,
    "Aggregate": Aggregate,
    "Truncated": Truncated,
    "Censored": Censored,
    "Transformed": Transformed,
    "Scaled": Scaled,
}

__all__ = ["FAMILIES", "Family", "Source", "parameter", *FAMILIES]
