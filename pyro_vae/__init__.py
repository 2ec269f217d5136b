"""Variational autoencoders as Bayesian models, on Pyro.

vae = pv.VAE(event_shape=(1, 28, 28), latent_dim=16,
prior=pv.Normal(0, 1), likelihood=pv.Normal(scale="learned"), guide=pv.Normal())
history = pv.fit(vae, x)
vae.sample(10)
"""

from pyro_vae import criticism, data, objectives, plots, schedules
from pyro_vae.core.errors import InputError, RunNotWrittenError
from pyro_vae.criticism.compare import Comparison, compare
from pyro_vae.criticism.evidence import Evidence, evidence
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.criticism.refine import Refined, refine
from pyro_vae.data.suggest import suggest
from pyro_vae.distributions import moments
from pyro_vae.families import (
    Aggregate,
    AsymmetricLaplace,
    Bernoulli,
    Beta,
    BetaBinomial,
    Binomial,
    Categorical,
    Cauchy,
    Censored,
    ContinuousBernoulli,
    Dirichlet,
    DiscretizedLogistic,
    Exponential,
    Flow,
    Gamma,
    Laplace,
    Logistic,
    LogisticNormal,
    LogitNormal,
    LogNormal,
    LowRankNormal,
    Mixture,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    OneHot,
    OrderedLogistic,
    Poisson,
    Scaled,
    StudentT,
    Transformed,
    Truncated,
    VampPrior,
    VonMises,
    Weibull,
    ZeroInflated,
)
from pyro_vae.families.catalogue import catalogue
from pyro_vae.model.summary import describe
from pyro_vae.model.vae import VAE
from pyro_vae.networks import MLP, Conv
from pyro_vae.reports import report
from pyro_vae.runs.folder import load
from pyro_vae.sweeps import Sweep, sweep
from pyro_vae.training import SGD, Adam, AdamW, EarlyStopping, History
from pyro_vae.training.callbacks import EpochEvent
from pyro_vae.training.checkpoints import Checkpoints
from pyro_vae.training.distributed import Runtime
from pyro_vae.workflow.aggregate import aggregate
from pyro_vae.workflow.fit import fit
from pyro_vae.workflow.options import Monitor, RunOptions

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "VAE",
    "Adam",
    "AdamW",
    "Aggregate",
    "AsymmetricLaplace",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Censored",
    "Checkpoints",
    "Comparison",
    "ContinuousBernoulli",
    "Conv",
    "Dirichlet",
    "DiscretizedLogistic",
    "EarlyStopping",
    "EpochEvent",
    "Evidence",
    "Exponential",
    "Flow",
    "Gamma",
    "History",
    "InputError",
    "Laplace",
    "LogNormal",
    "Logistic",
    "LogisticNormal",
    "LogitNormal",
    "LowRankNormal",
    "Mixture",
    "Monitor",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHot",
    "OrderedLogistic",
    "Poisson",
    "Refined",
    "RunNotWrittenError",
    "RunOptions",
    "Runtime",
    "Scaled",
    "StudentT",
    "Sweep",
    "Transformed",
    "Truncated",
    "VampPrior",
    "VonMises",
    "Weibull",
    "ZeroInflated",
    "aggregate",
    "catalogue",
    "compare",
    "criticism",
    "data",
    "describe",
    "evidence",
    "fit",
    "load",
    "moments",
    "objectives",
    "plots",
    "predictive_check",
    "refine",
    "report",
    "schedules",
    "suggest",
    "sweep",
]
