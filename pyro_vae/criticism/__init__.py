"""WHETHER to believe a model."""

from pyro_vae.criticism.bdmc import BDMC, bdmc
from pyro_vae.criticism.compare import Comparison, compare
from pyro_vae.criticism.density_coverage import DensityCoverage, density_coverage
from pyro_vae.criticism.evidence import Evidence, evidence
from pyro_vae.criticism.inference_gap import InferenceGap, inference_gap
from pyro_vae.criticism.latent_usage import AggregateKL, Latents, aggregate_kl, latents, spread_of_means
from pyro_vae.criticism.methods import AIS, Importance, Method
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.criticism.refine import Refined, refine
from pyro_vae.criticism.sbc import SBC, sbc
from pyro_vae.criticism.statistics import STATISTICS, Statistic
from pyro_vae.criticism.summary import findings
from pyro_vae.criticism.two_sample_tests import ClassifierTest, MMDTest, classifier_test, mmd_test

__all__ = [
    "AIS",
    "BDMC",
    "SBC",
    "STATISTICS",
    "AggregateKL",
    "ClassifierTest",
    "Comparison",
    "DensityCoverage",
    "Evidence",
    "Importance",
    "InferenceGap",
    "Latents",
    "MMDTest",
    "Method",
    "Refined",
    "Statistic",
    "aggregate_kl",
    "bdmc",
    "classifier_test",
    "compare",
    "density_coverage",
    "evidence",
    "findings",
    "inference_gap",
    "latents",
    "mmd_test",
    "predictive_check",
    "refine",
    "sbc",
    "spread_of_means",
]
