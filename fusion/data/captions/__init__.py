"""Captions: all their formats, which video they belong to, and their index on disk."""
