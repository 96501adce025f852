"""Embed a split, rank it in every direction, and compute metrics with intervals."""
