"""`RunOptions`: the folder that `fit` writes, and what may happen to a run that is there."""

from dataclasses import dataclass
from pathlib import Path

from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError
from pyro_vae.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class RunOptions(Config):
    """Run folder to write, and what may happen to a run that is there.

    Args:
        path: the folder: declaration, weights, history, pictures.
        overwrite: whether an existing run may be replaced, once the new one is complete.
        resume: whether to continue from the newest checkpoint of the run, where there is one, to the weights and
            history that an uninterrupted training ends with, bit for bit; `epochs` may be more than before.
        checkpoints: when to save everything into the run, so that a crash loses nothing; by default never, or with
            `resume` as by `Checkpoints()`.

    Raises:
        InputError: both `overwrite` and `resume`, or a field of the wrong type.

    >>> RunOptions("runs/first", resume=True).checkpoints
    Checkpoints(every_minutes=10.0, every_epochs=None, keep=2, best=True)
    """

    path: str | Path
    overwrite: bool = False
    resume: bool = False
    checkpoints: Checkpoints | None = None

    def __post_init__(self) -> None:
        """Check the fields, and that they agree."""
        if self.checkpoints is not None and not isinstance(self.checkpoints, Checkpoints):
            raise InputError(
                f"checkpoints = {self.checkpoints!r} has to be a plan, as in "
                "checkpoints=pv.Checkpoints(every_minutes=10)."
            )
        super().__post_init__()
        if self.resume and self.overwrite:
            raise InputError("resume=True continues a run and overwrite=True replaces it: give one of them.")
        if self.resume and self.checkpoints is None:
            object.__setattr__(self, "checkpoints", Checkpoints())
