"""The law of what readers are shown: numbers, orders and colours of pictures and pages equal the entries they show.

Each function under `LAWS` reads one picture, list of sentences or page back from its artists or its HTML, and compares
it with the result that it is made of, which small real fits made. `tests/plots/test_shown_faults.py` puts faults into
the package by hand, and each has to break the law that it names.
"""

from helpers.shown import comparisons, models, pages, results, sentences  # which enter their laws
from helpers.shown.base import LAWS, World

__all__ = ["LAWS", "World", "comparisons", "models", "pages", "results", "sentences"]
