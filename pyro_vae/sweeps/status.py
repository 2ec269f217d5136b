"""What a point of a sweep comes to."""

from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal["finished", "refused", "diverged", "failed", "pruned", "interrupted"]

STATUSES: dict[str, Status] = {status: status for status in get_args(Status)}
"""All of them, by what a table says."""

SETTLED = ("finished", "diverged", "pruned")
"""What a point has come to that would come out the same again; all others are tried again."""

PRUNED = "the study pruned it"
"""What the history of a run says that a study has ended."""


@dataclass(frozen=True)
class Outcome:
    """What a point came to.

    Args:
        status: in a word.
        sentence: why, where it is not finished.
    """

    status: Status
    sentence: str = ""
