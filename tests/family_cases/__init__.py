"""One minimal case per family, in files that mirror `pyro_vae/families`."""

from family_case import FamilyCase

from family_cases import basic

CASES: dict[str, FamilyCase] = {**basic.CASES}
