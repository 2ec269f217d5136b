"""Outcome of a point of a sweep: a status, and a reason where it is not finished."""

from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal["finished", "refused", "diverged", "failed", "pruned", "interrupted"]

STATUSES: dict[str, Status] = {status: status for status in get_args(Status)}
"""Every status by its word in the table."""

SETTLED = ("finished", "diverged", "pruned")
"""Statuses that another attempt would reproduce; a point with any other status is tried again."""

PRUNED = "the study pruned it"
"""Reason in the history of a run that a study has pruned."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a point.

    Args:
        status: the status.
        sentence: the reason where it is not finished.
    """

    status: Status
    sentence: str = ""
