"""The trials of tools/reliability.py: faults that are injected into runs, and what is seen."""
