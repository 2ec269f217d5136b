"""WHAT distribution: every family, by name."""

from pyro_vae.families.base import Family, Parameter, Source
from pyro_vae.families.binary import Bernoulli
from pyro_vae.families.categorical import Categorical
from pyro_vae.families.location_scale import Laplace, StudentT
from pyro_vae.families.normal import MultivariateNormal, Normal

FAMILIES: dict[str, type[Family]] = {
    "Normal": Normal,
    "Laplace": Laplace,
    "StudentT": StudentT,
    "MultivariateNormal": MultivariateNormal,
    "Bernoulli": Bernoulli,
    "Categorical": Categorical,
}

__all__ = ["FAMILIES", "Family", "Parameter", "Source", *FAMILIES]
