"""WHETHER to believe a model."""

from pyro_vae.criticism.bdmc import BDMC, bdmc
from pyro_vae.criticism.compare import Comparison, compare
from pyro_vae.criticism.discrepancy import ClassifierTest, MMDTest, classifier_test, mmd_test
from pyro_vae.criticism.evidence import Evidence, evidence
from pyro_vae.criticism.gap import InferenceGap, inference_gap
from pyro_vae.criticism.latent import AggregateKL, Latents, aggregate_kl, latents, spread_of_means
from pyro_vae.criticism.methods import AIS, Importance, Method
from pyro_vae.criticism.refine import Refined, refine
from pyro_vae.criticism.sbc import SBC, sbc

__all__ = [
    "AIS",
    "BDMC",
    "SBC",
    "AggregateKL",
    "ClassifierTest",
    "Comparison",
    "Evidence",
    "Importance",
    "InferenceGap",
    "Latents",
    "MMDTest",
    "Method",
    "Refined",
    "aggregate_kl",
    "bdmc",
    "classifier_test",
    "compare",
    "evidence",
    "inference_gap",
    "latents",
    "mmd_test",
    "refine",
    "sbc",
    "spread_of_means",
]
