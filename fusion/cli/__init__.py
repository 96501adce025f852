"""The command line: ``fusion train`` and so on; ``tools/*.py`` are the same commands."""
