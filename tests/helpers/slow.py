"""Cases that the fast suite leaves to the slow one."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(kept: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Cases, all of them slow but some that stand for them in the fast suite.

    Args:
        kept: those that stay, each of which has to be among the cases.
        cases: all of them.
    """
    cases = list(cases)
    missing = [case for case in kept if case not in cases]
    assert not missing, f"no such cases: {missing}"
    return [case if case in kept else pytest.param(case, marks=pytest.mark.slow) for case in cases]
