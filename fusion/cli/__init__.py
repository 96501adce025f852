"""The command line: ``fusion train``, ``fusion evaluate`` and so on; ``tools/*.py`` are the same."""
