"""Base class of losses without state."""

from typing import Any


class StatelessLoss:
    """Base of losses that keep nothing from step to step.

    Training calls ``commit`` when a step is taken and ``undo`` when it is not, and saves
    ``state_dict`` in checkpoints. A stateful loss, such as :class:`fusion.losses.mcn.MCNLoss`,
    implements them itself.
    """

    compares_clips = True  # False: the loss is a mean over single clips

    def commit(self) -> None:
        """Keep what the last call changed: nothing."""

    def undo(self) -> None:
        """Forget the last call."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for a checkpoint: empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Accept what a checkpoint has; older ones have None."""
