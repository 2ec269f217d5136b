"""One minimal case per family, in files that mirror `pyro_vae/families`."""

from helpers.family_case import FamilyCase
from helpers.family_cases import basic, categories, composed, composites, counts, pixels, positive, real, simplex, unit

CASES: dict[str, FamilyCase] = {
    **basic.CASES,
    **categories.CASES,
    **composed.CASES,
    **composites.CASES,
    **counts.CASES,
    **pixels.CASES,
    **positive.CASES,
    **real.CASES,
    **simplex.CASES,
    **unit.CASES,
}
