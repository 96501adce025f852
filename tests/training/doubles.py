"""The least that the trainer needs of a data set and of a loss."""


class ClipList(list):
    """Items in memory."""

    group = 1

    def set_epoch(self, seed):
        """Nothing is drawn at random."""

    def end_epoch(self):
        """Nothing to report."""


class StatelessLoss:
    """A loss without a state."""

    compares_clips = True

    def commit(self):
        """Nothing to keep."""

    def undo(self):
        """Nothing to undo."""

    def state_dict(self):
        """No state."""
        return {}

    def load_state_dict(self, state):
        """No state."""
