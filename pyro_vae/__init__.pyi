from . import (
    criticism as criticism,
)
from . import (
    data as data,
)
from . import families as families
from . import (
    objectives as objectives,
)
from . import (
    plots as plots,
)
from . import (
    schedules as schedules,
)
from .core.errors import InputError as InputError
from .core.errors import RunNotWrittenError as RunNotWrittenError
from .core.errors import TrainingInterrupted as TrainingInterrupted
from .criticism.compare import Comparison as Comparison
from .criticism.compare import compare as compare
from .criticism.evidence import Evidence as Evidence
from .criticism.evidence import evidence as evidence
from .criticism.predictive import predictive_check as predictive_check
from .criticism.refine import Refined as Refined
from .criticism.refine import refine as refine
from .data.suggest import suggest as suggest
from .distributions import moments as moments
from .families import (
    Aggregate as Aggregate,
)
from .families import (
    AsymmetricLaplace as AsymmetricLaplace,
)
from .families import (
    Bernoulli as Bernoulli,
)
from .families import (
    Beta as Beta,
)
from .families import (
    BetaBinomial as BetaBinomial,
)
from .families import (
    Binomial as Binomial,
)
from .families import (
    Categorical as Categorical,
)
from .families import (
    Cauchy as Cauchy,
)
from .families import (
    Censored as Censored,
)
from .families import (
    ContinuousBernoulli as ContinuousBernoulli,
)
from .families import (
    Dirichlet as Dirichlet,
)
from .families import (
    DiscretizedLogistic as DiscretizedLogistic,
)
from .families import (
    Exponential as Exponential,
)
from .families import (
    Flow as Flow,
)
from .families import (
    Gamma as Gamma,
)
from .families import (
    Laplace as Laplace,
)
from .families import (
    Logistic as Logistic,
)
from .families import (
    LogisticNormal as LogisticNormal,
)
from .families import (
    LogitNormal as LogitNormal,
)
from .families import (
    LogNormal as LogNormal,
)
from .families import (
    LowRankNormal as LowRankNormal,
)
from .families import (
    Mixture as Mixture,
)
from .families import (
    MultivariateNormal as MultivariateNormal,
)
from .families import (
    NegativeBinomial as NegativeBinomial,
)
from .families import (
    Normal as Normal,
)
from .families import (
    OneHot as OneHot,
)
from .families import (
    OrderedLogistic as OrderedLogistic,
)
from .families import (
    Poisson as Poisson,
)
from .families import (
    Scaled as Scaled,
)
from .families import (
    StudentT as StudentT,
)
from .families import (
    Transformed as Transformed,
)
from .families import (
    Truncated as Truncated,
)
from .families import (
    VampPrior as VampPrior,
)
from .families import (
    VonMises as VonMises,
)
from .families import (
    Weibull as Weibull,
)
from .families import (
    ZeroInflated as ZeroInflated,
)
from .families.catalogue import catalogue as catalogue
from .model.summary import describe as describe
from .model.vae import VAE as VAE
from .networks import MLP as MLP
from .networks import Conv as Conv
from .reports import report as report
from .runs.folder import load as load
from .sweeps import Sweep as Sweep
from .sweeps import sweep as sweep
from .training import (
    SGD as SGD,
)
from .training import (
    Adam as Adam,
)
from .training import (
    AdamW as AdamW,
)
from .training import (
    EarlyStopping as EarlyStopping,
)
from .training import (
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
