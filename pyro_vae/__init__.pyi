from . import (
    criticism as criticism,
    data as data,
    families as families,
    objectives as objectives,
    plots as plots,
    schedules as schedules,
)
from .core.errors import (
    InputError as InputError,
    RunNotWrittenError as RunNotWrittenError,
    TrainingInterrupted as TrainingInterrupted,
)
from .criticism.compare import Comparison as Comparison, compare as compare
from .criticism.evidence import Evidence as Evidence, evidence as evidence
from .criticism.predictive import predictive_check as predictive_check
from .criticism.refine import Refined as Refined, refine as refine
from .data.suggest import suggest as suggest
from .distributions import moments as moments
from .families import (
    Aggregate as Aggregate,
    AsymmetricLaplace as AsymmetricLaplace,
    Bernoulli as Bernoulli,
    Beta as Beta,
    BetaBinomial as BetaBinomial,
    Binomial as Binomial,
    Categorical as Categorical,
    Cauchy as Cauchy,
    Censored as Censored,
    ContinuousBernoulli as ContinuousBernoulli,
    Dirichlet as Dirichlet,
    DiscretizedLogistic as DiscretizedLogistic,
    Exponential as Exponential,
    Flow as Flow,
    Gamma as Gamma,
    Laplace as Laplace,
    Logistic as Logistic,
    LogisticNormal as LogisticNormal,
    LogitNormal as LogitNormal,
    LogNormal as LogNormal,
    LowRankNormal as LowRankNormal,
    Mixture as Mixture,
    MultivariateNormal as MultivariateNormal,
    NegativeBinomial as NegativeBinomial,
    Normal as Normal,
    OneHot as OneHot,
    OrderedLogistic as OrderedLogistic,
    Poisson as Poisson,
    Scaled as Scaled,
    StudentT as StudentT,
    Transformed as Transformed,
    Truncated as Truncated,
    VampPrior as VampPrior,
    VonMises as VonMises,
    Weibull as Weibull,
    ZeroInflated as ZeroInflated,
)
from .families.catalogue import catalogue as catalogue
from .model.summary import describe as describe
from .model.vae import VAE as VAE
from .networks import MLP as MLP, Conv as Conv
from .reports import report as report
from .runs.folder import load as load
from .sweeps import Sweep as Sweep, sweep as sweep
from .training import (
    SGD as SGD,
    Adam as Adam,
    AdamW as AdamW,
    EarlyStopping as EarlyStopping,
    History as History,
)
from .training.callbacks import EpochEvent as EpochEvent
from .training.checkpoints import Checkpoints as Checkpoints
from .training.distributed import Runtime as Runtime
from .training.monitor import Monitor as Monitor
from .workflow.aggregate import aggregate as aggregate
from .workflow.fit import fit as fit
from .workflow.options import RunOptions as RunOptions

__version__: str
