"""What tools/benchmark.py measures, one file per subject."""
