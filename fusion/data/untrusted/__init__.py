"""Readers of files from strangers: none runs code or takes more memory than it says."""
