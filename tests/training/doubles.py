"""The least that the trainer needs of a data set."""


class ClipList(list):
    """Items in memory."""

    group = 1

    def begin_epoch(self, number):
        """All epochs have the same items."""

    def set_epoch(self, seed):
        """Nothing is drawn at random."""

    def end_epoch(self):
        """Nothing to report."""
