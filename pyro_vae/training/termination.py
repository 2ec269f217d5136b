"""How a training ends before its last epoch, and which weights it leaves."""

from pyro_vae.model.programs import Programs
from pyro_vae.training.callbacks import CallbackList, EpochEvent
from pyro_vae.training.stopping import Stopping
from pyro_vae.training.train_state import TrainState


class Termination:
    """A stopping rule and callbacks, which the first process calls, applied after each epoch."""

    def __init__(
        self, programs: Programs, state: TrainState, stopping: Stopping | None, callbacks: CallbackList
    ) -> None:
        self.programs, self.state, self.stopping, self.callbacks = programs, state, stopping, callbacks
        self.scheduled = list(state.loss.running.schedules)

    def after_epoch(self) -> Exception | None:
        """Keep the weights of a finished epoch, if it is the best, and set the reason to stop, if there is one.

        Returns:
            The exception that a callback raised, to be raised when the epoch is saved.
        """
        state, history = self.state, self.state.history
        if self.stopping is None and not self.callbacks.is_needed:
            return None
        with state.averaged_weights():
            if self.stopping is not None:
                if self.stopping.restore and self.stopping.best(history, self.scheduled) == len(history) - 1:
                    state.keep_best()
                state.stop_reason = self.stopping.reason(history, self.scheduled)
            if not self.callbacks.is_needed:
                return None
            try:
                at = EpochEvent(state.epoch, dict(history.last), history, self.programs)
                with state.group.seeded(state.seed + state.epoch):  # random draws of a callback change nothing
                    reason = state.group.run_on_rank0(lambda: self.callbacks.epoch(at))
            except Exception as error:  # the epoch is worth keeping
                return error
        state.stop_reason = state.stop_reason or reason
        return None

    def finish(self, epochs: int) -> str:
        """Leave the model its final weights.

        Returns:
            Why training ended early, and which weights are left; nothing for those of the last of all epochs.
        """
        state, done = self.state, len(self.state.history)
        state.restore_best()
        weights = ""
        if state.best_weights and state.best_epoch != done:
            weights = f"; the weights are those of epoch {state.best_epoch}, the best"
        if state.stop_reason:
            return f"stopped after epoch {done} of {epochs}: {state.stop_reason}{weights}"
        return f"carried through all {epochs} epochs{weights}" if weights else ""
